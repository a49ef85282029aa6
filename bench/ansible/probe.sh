#!/bin/sh
# probe.sh OWN_ADDRESS ADDRESS...: what the preflight of etcd.yml needs beside `setup`, as JSON.
own=$1
shift
unit=/etc/systemd/system/etcd.service
owner=$(sed -n 's/^X-Alluxio-Provision-Cluster=//p' $unit 2>/dev/null)
ports=free
ss -Hltn 'sport = 2379 or sport = 2380' | grep -q . && ports=taken
for address; do
  [ "$address" = "$own" ] && continue
  # shellcheck disable=SC2016 # $0 is the inner shell's
  error=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/2380"' "$address" 2>&1) || case $error in
    *refused*) ;;
    *) unreachable="$unreachable $address" ;;
  esac
done
cat <<JSON
{"systemd": "$(systemctl --version | sed -n '1s/[^ ]* \([0-9]*\).*/\1/p')",
 "machine_id": "$(cat /etc/machine-id)", "hostname": "$(hostname)", "clock": "$(date +%s.%N)",
 "owner": "$owner", "ports": "$ports", "unreachable": "$unreachable",
 "free": "$(df -P -B1 /var/lib | awk 'NR == 2 { print $4 }')",
 "release": "$(cat /opt/etcd/current/.artifact.sha256 2>/dev/null)",
 "data": $([ -d /var/lib/etcd/member ] && echo true || echo false)}
JSON
