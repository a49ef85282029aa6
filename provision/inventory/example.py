"""The commented inventory that ``invoke init-inventory`` writes, and ``inventory/example.yml``."""

from __future__ import annotations

import os
from pathlib import Path

from provision.errors import Problem, UsageError
from provision.files import make_folder
from provision.program_in_use import rendered

EXAMPLE = """\
# Inventory of one etcd cluster and the Alluxio workers that register in it.
#
# Commented keys show their defaults, or an example where there is none. Unknown keys are errors.
#   invoke show-inventory     every value in force, and the line it comes from
#   invoke inventory-schema   a JSON schema, for editors that complete and check YAML
#
# Ranges: a key such as worker[001-200] stands for 200 hosts, with a range of the same length in
# host, address and hostname. [1-3,7] lists several. Within { } put them in quotes.
# Text is taken as written: 'version: 3.10' is 3.10, and 'host: no' is a host called "no".

# alluxio.cluster.name, and the name that 'invoke destroy' asks for.
cluster: DefaultAlluxioCluster

# Other Alluxio clusters that use the same etcd. No name may begin with another one: older
# Alluxio clients would mix them up.
# other_clusters: [Analytics]

# Hosts worked on at once, 1 to 500.
# parallel: 20

# How hosts are reached. What is unset comes from ~/.ssh/config. Members and workers may have an
# 'ssh' of their own, whose keys win.
# ssh:
#   user: deploy                        # login; root, or may use sudo
#   sudo_password: {ask: true}          # when sudo wants one; or {env: NAME} or {file: PATH}
#   port: 22
#   key: ~/.ssh/id_ed25519              # else the keys of ssh-agent
#   known_hosts: ~/.ssh/known_hosts     # a host that is not in it is refused
#   key_passphrase: {ask: true}         # when it has one and ssh-agent does not have the key
#   jump: deploy@bastion.example.com:22 # several: a,b; a host of its own may say 'none'
#   connect_timeout: 10                 # seconds

etcd:
  # An etcd that another inventory, or another person, manages: then only this, nothing below.
  # Every member's client URL, of the listener without TLS. See docs/membership.md.
  # external:
  #   endpoints: ["http://10.0.1.10:2379", "http://10.0.1.11:2379", "http://10.0.1.12:2379"]

  # 3.4 or later. Releases known to lose or corrupt data are refused (invoke explain
  # etcd-version-unfit), unless:
  version: 3.6.16
  # allow_corrupting_version: false

  # Where the binaries come from: one of path, url and package. Paths start at this file's folder.
  # The hosts need no access to the internet: everything goes to them over SSH.
  source:
    path: etcd-v3.6.16-linux-amd64.tar.gz
    # url: https://mirror.example.com/etcd-v3.6.16-linux-amd64.tar.gz
    # package: false                    # true: the hosts' own distribution package
    # Hex digest, or a file of them. A tarball is never installed without.
    sha256: file:SHA256SUMS

  # Other releases, for 'invoke upgrade-etcd VERSION'. The upgrade goes one minor
  # release at a time: declare one release of every minor between the running one and VERSION.
  # releases:
  #   3.7.3: {path: etcd-v3.7.3-linux-amd64.tar.gz, sha256: file:SHA256SUMS}

  # install_dir: /opt/etcd              # a folder for each version, a link 'current'
  # config_dir: /etc/etcd               # etcd.conf.yml and certificates
  # data_dir: /var/lib/etcd             # mode 0700; best on an SSD of its own
  # user: etcd                          # system user, made when missing
  # client_port: 2379
  # peer_port: 2380
  # cluster_token: DefaultAlluxioCluster  # initial-cluster-token; default: the cluster's name

  # Certificates come from a CA of the cluster's own, which stays on this machine, or (ca:
  # external) from yours: invoke export-csrs DIR, have them signed, invoke import-certs DIR.
  # tls:
  #   peer: true                        # TLS and mutual authentication between members
  #   client: false                     # TLS on client_port. Alluxio 313 cannot use TLS to etcd:
  #   plain_client_port: 2378           # give its workers one more listener, without TLS,
  #   plain_client_address: 10.0.1.10   # at this address (default: each member's own)
  #   client_auth: true                 # with client TLS: clients need a certificate
  #   ca: own                           # or external; then also:
  #   ca_bundle: corporate-root.pem     # its root; both roots while one CA follows another
  #   pki_dir: pki                      # the CA: keep it safe, and out of version control
  #   leaf_days: 365                    # validity of members' certificates
  #   ca_days: 3650                     # validity of the CA

  # Users and their rights: workers need alluxio.etcd, too. Then invoke enable-auth (disable-auth).
  # auth:
  #   enabled: true                     # unset: this tool leaves it alone
  #   root_password: {env: ETCD_ROOT_PASSWORD}      # or {file: etcd-root-password}

  # Snapshots by timers on the members' hosts: the first healthy member saves. Without this section,
  # only you take snapshots: invoke backup-etcd.
  # backup:
  #   dir: /var/backups/etcd            # best on another disk than data_dir
  #   same_disk: true                   # no warning when it is on that disk
  #   keep: 7                           # so many of each history, the newest
  #   on_calendar: daily                # as systemd's OnCalendar has it
  #   member: infra2                    # on this host alone
  #   copy_command: /usr/local/bin/copy-backup      # on the hosts: gets each new file's path

  # Any other key of the release's etcd.conf.yml, for every member. Times in ms, sizes in bytes.
  # settings:
  #   heartbeat-interval: 100
  #   election-timeout: 1000            # at least 5 heartbeats; about 10 round trips
  #   quota-backend-bytes: 2147483648   # of the database; etcd warns above 8 GiB
  #   auto-compaction-mode: periodic    # or revision
  #   auto-compaction-retention: 1h     # how much history stays: a time, or a number of revisions

  # The members by name. 3 survive the loss of one, 5 of two; an even number gains nothing.
  # host: where SSH goes. address: in peer and client URLs (default: host).
  members:
    infra0: {host: infra0.example.com, address: 10.0.1.10}
    infra1: {host: infra1.example.com, address: 10.0.1.11}
    infra2:
      host: infra2.example.com
      address: 10.0.1.12
      # sans: [203.0.113.12]            # more names in its certificates (NAT, a virtual address)
      # ssh: {port: 2222}
      # client_port: 2379               # these four: instead of, or added to, etcd's own above
      # peer_port: 2380
      # data_dir: /mnt/ssd/etcd
      # settings: {log-level: debug}

# Leave this whole part out for an etcd cluster alone.
alluxio:
  # The release; names the install folder.
  version: 313

  source:
    path: alluxio-313-bin.tar.gz
    sha256: file:SHA256SUMS

  # The Java that workers run on. Without home and source: the hosts' own, if its version fits.
  # java:
  #   home: /usr/lib/jvm/java-11-openjdk-amd64      # an existing JAVA_HOME on the hosts
  #   source: {path: jdk-11-linux-x64.tar.gz, sha256: file:SHA256SUMS}  # or a tarball, not both
  #   install_dir: /opt/java            # where the tarball goes
  #   versions: [8, 11]                 # major versions that the release accepts

  # install_dir: /opt/alluxio           # a folder for each version, a link 'current'
  # state_dir: /var/lib/alluxio         # identity, metastore, journal; survives reinstalls
  # log_dir: /var/log/alluxio
  # user: alluxio                       # system user, made when missing

  # How workers find each other: ETCD, STATIC (a file with all hosts; clients do not use them) or
  # SERVICE_REGISTRY (live keys in etcd only).
  # membership: ETCD

  # Login to an etcd with authentication turned on.
  # etcd:
  #   username: alluxio
  #   password: {env: ALLUXIO_ETCD_PASSWORD}        # or {file: etcd-password}

  # failure_detection_timeout: 120      # seconds until a dead worker counts as FAILED
  # start_timeout: 120                  # seconds to be LIVE, then as many again to be READY
  # rpc_port: 29999
  # heap: 4g                            # Java heap of a worker
  # direct_memory: 4g                   # Java direct memory of a worker

  # Cache folders, and how much of each may be used: as many sizes as dirs.
  # page_store:
  #   dirs: [/var/lib/alluxio/pages]
  #   sizes: [1GB]

  # Any other line of alluxio-site.properties.
  properties:
    alluxio.dora.client.ufs.root: s3://bucket/path

  # Secrets are in the environment of this machine or in a file, never here. On the hosts they
  # are in a file of mode 0600.
  # secret_properties:
  #   s3a.accessKeyId: {env: AWS_ACCESS_KEY_ID}
  #   s3a.secretKey: {file: s3-secret-key}

  # More variables for alluxio-env.sh.
  # env: {ALLUXIO_WORKER_JAVA_OPTS: -XX:+UseG1GC}

  # The masters by name, if any: workers and clients of 3xx find one another without.
  # They may share hosts with workers. One, or 3 with an embedded journal. invoke start-masters.
  # masters:
  #   master[0-2]: {host: "master[0-2].example.com"}
  # master_heap: 4g                     # Java heap of a master

  # The workers by name. host: where SSH goes. hostname: what clients connect to (default: host).
  # Hosts of etcd may be workers too.
  workers:
    worker1:
      host: worker1.example.com
      # hostname: worker1.storage.example.com
      # ssh: {user: admin}
      # rpc_port: 29999                 # these: instead of alluxio's own above
      # heap: 8g
      # direct_memory: 16g
      # page_store: {dirs: [/mnt/nvme0/pages, /mnt/nvme1/pages], sizes: [500GB, 500GB]}
      # java_home: /usr/lib/jvm/java-8-openjdk-amd64
      # properties: {alluxio.worker.web.port: 30010}        # these three: added to the ones above
      # secret_properties: {s3a.secretKey: {env: OTHER_KEY}}
      # env: {LANG: C.UTF-8}
    worker[002-004]:
      host: worker[002-004].example.com

# The same cluster on Kubernetes, by Alluxio's Helm chart: 'invoke render-helm' writes the chart's
# values from this and from what is above; see docs/kubernetes.md.
# kubernetes:
#   chart: 1.1.0-SNAPSHOT               # writes its keys; 0.7.0 cannot start etcd
#   release: alluxio                    # as in 'helm install alluxio'
#   namespace: default
#   kubectl: [kubectl]                  # or [k3s, kubectl], [oc]: for check-nodes --kubernetes
#   kubeconfig: ~/.kube/config          # these two: as kubectl finds them
#   context: production
#   image: alluxio/alluxio
#   image_tag: 313                      # default: alluxio.version
#   image_pull_secrets: [registry]
#   service_account: alluxio            # a role of the cloud instead of keys
#   dataset_path: s3://bucket/path      # default: the property alluxio.dora.client.ufs.root
#   secrets: {s3-credentials: /etc/s3}  # Kubernetes Secrets, and where pods have their files
#   properties: {alluxio.user.file.metadata.sync.interval: -1}  # added to alluxio.properties
#   # Only for 'render-helm --credentials FILE': the chart puts these in a ConfigMap.
#   credentials:
#     aws.accessKeyId: {env: AWS_ACCESS_KEY_ID}
#     aws.secretKey: {file: s3-secret-key}
#   jvm_options: [-XX:+UseG1GC]         # of every component
#   worker:
#     count: 4                          # default: as many as alluxio.workers
#     heap: 4g                          # these two: default as in alluxio
#     direct_memory: 4g
#     requests: {cpu: 2, memory: 9Gi}   # memory by default: both of them and 1Gi
#     limits: {cpu: 4, memory: 9Gi}
#     env: {AWS_CREDENTIAL_PROFILES_FILE: /etc/s3/credentials}
#     jvm_options: []
#   page_store: {type: emptyDir, size: 1Gi}
#   # page_store: {type: hostPath, host_path: /mnt/nvme0/pages}
#   # page_store: {type: persistentVolumeClaim, storage_class: fast}
#   etcd:
#     enabled: true                     # false: the pods use the etcd members above
#     replicas: 3                       # default: as many as etcd.members
#     size: 8Gi
#     storage_class: fast
"""


def write_example(path: Path) -> None:
    """Writes the example to ``path``. Raises UsageError when ``path`` exists."""
    write_new(path, EXAMPLE)


def write_new(path: Path, text: str) -> None:
    """Writes an inventory to ``path``, with the program in use in its comments. Folders above it
    that are missing are made. Raises UsageError when ``path`` exists."""
    try:
        make_folder(path.parent, private=False)
        # O_EXCL: an existing file stays, even if it was made a moment ago.
        # Whatever the umask: who may write it decides what is done on the hosts as root.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(rendered(text))
    except FileExistsError:
        problem = Problem(
            str(path), "this file exists already", "name another, or move it away", id="file-exists"
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problem = Problem(str(path), f"cannot be written: {reason}", id="file-unwritable")
    else:
        return
    raise UsageError("no inventory was written", problems=[problem], id=problem.id)


if __name__ == "__main__":
    print(EXAMPLE, end="")
