"""The lab's double of Alluxio, on loopback, held to tests/lab/membership-worker/CONTRACT.md.

What is asked here is what upstream's sources say of release 313, not what this tool wants.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import RemoteDisconnected
from pathlib import Path

import pytest

from tests.integration.release import ARTIFACTS, DOUBLE, JDK

from .conftest import Boot, Running, free_ports

TARBALL = ARTIFACTS / DOUBLE
#: Upstream's, in ConfigurationUtils.getMasterHostNotConfiguredMessage.
REFUSAL = "Cannot run Alluxio {}; Unable to determine master address. Please modify alluxio-site"
NO_FALLBACK = "-Dalluxio.dora.client.ufs.fallback.enabled=false"
READY_MS = 1500


@dataclass
class Install:
    """One unpacked release with its configuration, and a worker of it."""

    home: Path
    state: Path
    java: Path
    ports: dict[str, int]
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def configure(
        self,
        properties: Mapping[str, object] | None = None,
        env: str | None = None,
        without: tuple[str, ...] = (),
    ) -> None:
        own: dict[str, object] = {
            "alluxio.worker.membership.manager.type": "ETCD",
            "alluxio.worker.hostname": "127.0.0.1",
            "alluxio.worker.failure.detection.timeout": "5s",
            "alluxio.master.hostname": "localhost",
            "alluxio.work.dir": self.state,
            "alluxio.dora.client.ufs.root": self.state / "ufs",
            "alluxio.worker.identity.uuid.file.path": self.state / "identity",
            "alluxio.worker.page.store.dirs": self.state / "pages",
            "alluxio.worker.page.store.sizes": "64MB",
            **{f"alluxio.worker.{name}.port": port for name, port in self.ports.items()},
            **(properties or {}),
        }
        lines = [f"{key}={value}" for key, value in own.items() if key not in without]
        conf = self.home / "conf"
        (conf / "alluxio-site.properties").write_text("\n".join([*lines, ""]))
        usual = (
            f"export JAVA_HOME={self.java}\nexport ALLUXIO_LOGS_DIR={self.state}/logs\n"
            f"export ALLUXIO_USER_LOGS_DIR={self.state}/logs/user\n"
            'export ALLUXIO_WORKER_JAVA_OPTS="-Xmx96m -XX:MaxDirectMemorySize=32m '
            f'-Dlab.ready.delay.ms={READY_MS}"\n'
        )
        (conf / "alluxio-env.sh").write_text(usual if env is None else env)

    def cli(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return _run([str(self.home / "bin" / "alluxio"), *words], env)

    def start(self) -> None:
        command = [str(self.home / "bin" / "launch-process-bash"), "worker", "-c"]
        log = (self.state / "console").open("w")
        self.process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, text=True, env=_env({})
        )

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    @property
    def console(self) -> str:
        return (self.state / "console").read_text()

    def get(self, port: str, path: str) -> tuple[int, str, str]:
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()


def _env(more: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **more}


def _run(command: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=_env(env), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tarball in (TARBALL, ARTIFACTS / JDK):
        if not tarball.exists():
            pytest.fail(f"no {tarball}: run tests/lab/lab artifacts", pytrace=False)
    into = tmp_path_factory.mktemp("double")
    for tarball in (TARBALL, ARTIFACTS / JDK):
        subprocess.run(["tar", "-xzf", tarball, "-C", into], check=True)
    return into


@pytest.fixture(scope="module")
def install(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    state = tmp_path_factory.mktemp("state")
    (state / "ufs").mkdir()
    (state / "ufs" / "f").write_text("content\n")
    (state / "logs" / "user").mkdir(parents=True)
    names = ("rpc", "data", "web", "http.server", "rest")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    made = Install(unpacked / "alluxio-313", state, unpacked / "jdk-11-lab", ports)
    made.configure()
    return made


@pytest.fixture(scope="module")
def etcd(boot: Boot) -> Iterator[Running]:
    with boot(1) as running:
        yield running


def endpoints(etcd: Running) -> dict[str, str]:
    (member,) = etcd.cluster.members
    return {"alluxio.etcd.endpoints": f"http://127.0.0.1:{member.client_port}"}


def wait_for(install: Install, text: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while text not in install.console:
        assert time.monotonic() < deadline, f"not in {seconds} s: {text}\n{install.console}"
        time.sleep(0.1)


def test_the_layout_is_that_of_upstreams_profile() -> None:
    """dev/scripts/src/alluxio.org/build: profiles.yml (fileList), assembly.yml, cmd/tarball.go."""
    with tarfile.open(TARBALL) as tar:
        modes = {entry.name: entry.mode for entry in tar}
    for path in (
        "bin/alluxio",
        "bin/launch-process-bash",
        "cli/src/alluxio.org/cli/bin/alluxioCli-Linux-x86_64",
        "conf/alluxio-env.sh.template",
        "conf/alluxio-site.properties.template",
        "conf/log4j.properties",
        "conf/masters",
        "conf/workers",
        "libexec/alluxio-config.sh",
        "libexec/version.sh",
        "assembly/alluxio-client-313.jar",
        "assembly/alluxio-server-313.jar",
        "underFSStorage",
    ):
        assert f"alluxio-313/{path}" in modes
    assert modes["alluxio-313/logs/user"] == 0o777
    assert "alluxio-313/bin/launch-process" not in modes  # up to release 303


def test_its_java_begins_with_an_archive_of_classes(install: Install) -> None:
    """Not upstream's: it saves processor time at each start (tests/lab/artifacts/jdk)."""
    java = install.java / "bin" / "java"
    assert "sharing" in _run([str(java), "-Xshare:on", "-version"], {}).stderr


def test_a_relative_symlink_breaks_the_launcher(install: Install) -> None:
    """bin/launch-process-bash finds itself by a plain readlink."""
    launcher = install.home / "bin" / "launch-process-bash"
    links = install.home / "links"
    links.mkdir()
    (links / "absolute").symlink_to(launcher)
    (links / "relative").symlink_to("../bin/launch-process-bash")
    install.configure(env="JAVA=/bin/false\n")
    found = _run([str(links / "absolute"), "worker"], {})
    assert "requires Java" in found.stdout  # it came as far as the check of Java
    lost = _run([str(links / "relative"), "worker"], {})
    assert lost.returncode != 0
    assert "requires Java" not in lost.stdout
    install.configure()


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("1.8.0_392", True), ("11.0.13", True), ("17.0.9", False), ("21.0.1", False)],
)
def test_java_8_and_11_alone_are_accepted(
    install: Install, tmp_path: Path, version: str, accepted: bool
) -> None:
    """libexec/alluxio-config.sh, and InitAlluxioEnv of the command line."""
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\necho STARTED\n")
    java.chmod(0o755)
    install.configure(env=f"export JAVA={java}\n")
    worker = _run([str(install.home / "bin" / "launch-process-bash"), "worker"], {})
    shell = install.cli("info", "nodes")
    install.configure()
    assert ("STARTED" in worker.stdout) is accepted
    assert ("STARTED" in shell.stdout) is accepted
    if not accepted:
        assert (worker.returncode, shell.returncode) == (1, 1)
        said = f"Error: Alluxio requires Java 8 or Java 11, currently Java {version} found."
        assert said in worker.stdout
        short = ".".join(version.split(".")[:2])
        said = f"Error: Alluxio requires Java 1.8 or 11.0, currently Java {short} found."
        assert f"Caused by: {said}" in shell.stderr


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ('export A="-Xmx1g -Dx=y"', "-Xmx1g -Dx=y"),
        ("A='one # not a comment'", "one # not a comment"),
        ("A=one # a comment", "one"),
        ('B=1\nA="${B} $B"', "1 1"),
        # As shells quote an apostrophe: it is read, and is another value.
        ("A='it'\\''s'", "it'\\''s"),
    ],
)
def test_the_command_line_reads_alluxio_env_as_gotenv_does(
    install: Install, tmp_path: Path, line: str, value: str
) -> None:
    """The values are those that upstream's own program has of these lines."""
    java = tmp_path / "java"
    java.write_text(
        '#!/bin/sh\n[ "$1" != -version ] || { echo \'"11.0.1"\' >&2; exit 0; }\nprintf %s "$A"\n'
    )
    java.chmod(0o755)
    install.configure(env=f"{line}\nJAVA={java}\n")
    done = install.cli("info", "nodes")
    install.configure()
    assert done.stdout == value


@pytest.mark.parametrize(
    "line", ["if true; then", "source /etc/profile", "export A", "ulimit -n 9"]
)
def test_what_only_a_shell_understands_ends_the_command_line(install: Install, line: str) -> None:
    install.configure(env=f"{line}\n")
    done = install.cli("info", "nodes")
    install.configure()
    assert done.returncode == 1
    assert "Caused by: error reading alluxio-env config" in done.stderr
    assert done.stdout == ""


def test_without_a_master_address_the_command_line_refuses(install: Install) -> None:
    """FileSystemAdminShell and FileSystemShell: on stdout."""
    install.configure(without=("alluxio.master.hostname",))
    nodes, ls = install.cli("info", "nodes"), install.cli("fs", "ls", "/")
    install.configure()
    assert nodes.stdout.startswith(REFUSAL.format("fsadmin shell"))
    assert ls.stdout.startswith(REFUSAL.format("fs shell"))
    for done, name in ((nodes, "nodes"), (ls, "ls")):
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: error running {name}\n")
        assert "\nCaused by: exit status 1\n" in done.stderr


def test_a_members_life(install: Install, etcd: Running) -> None:
    """AlluxioWorkerProcess.start: it joins, then web and HTTP answer. Then it serves, and ends."""
    install.configure(endpoints(etcd))
    install.start()
    try:
        wait_for(install, "registering service")
        for name in ("rpc", "data", "web"):  # taken before the join
            socket.create_connection(("127.0.0.1", install.ports[name]), 2).close()
        with pytest.raises(urllib.error.URLError):
            install.get("http.server", "/v1/health")
        wait_for(install, "Alluxio worker started.")

        nodes = install.cli("info", "nodes")
        assert re.search(r"^worker-\S+\t127\.0\.0\.1:\d+\tONLINE$", nodes.stdout, re.MULTILINE)
        assert install.get("http.server", "/v1/health")[::2] == (200, "worker is active")
        status, kind, listed = install.get("http.server", "/v1/files?path=/")
        assert (status, kind) == (200, "application/json")
        assert [one["mPath"] for one in json.loads(listed)] == ["/f"]
        assert json.loads(install.get("http.server", "/v1/info?path=/f")[2])[0]["mLength"] == 8
        with pytest.raises(RemoteDisconnected):  # what it cannot do it leaves unanswered
            install.get("http.server", "/v1/info?path=/nope")
        status, kind, metrics = install.get("web", "/metrics/")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "# TYPE" in metrics

        location = json.loads(install.cli("fs", "location", "/f").stdout)
        assert location["mPreferredWorker"] == "127.0.0.1"
        assert location["mWorkersThatHaveData"] == []
        assert install.cli("fs", "cat", "/f", NO_FALLBACK).stdout == "content\n"
        assert json.loads(install.cli("fs", "location", "/f").stdout)["mDataOnPreferredWorker"]
        assert install.cli("fs", "head", "-c", "3", "/f", NO_FALLBACK).stdout == "con"
        stat = install.cli("fs", "stat", "--path", "/f", "-f", "%z", NO_FALLBACK)
        assert stat.stdout == "8\n"
        cached = install.cli("fs", "check-cached", "/").stdout
        assert "Fully cached files count: 1" in cached
        missing = install.cli("fs", "cat", "/nope", NO_FALLBACK)
        assert (missing.returncode, missing.stdout) == (
            1,
            f'Path "{install.state}/ufs/nope" does not exist.\n',
        )
        worker_id = next(line for line in nodes.stdout.split() if line.startswith("worker-"))
        refused = install.cli("process", "remove-worker", "-n", worker_id)
        assert (refused.returncode, "running worker" in refused.stdout) == (1, True)
    finally:
        assert install.stop() == 128 + signal.SIGTERM
    left = sorted(path.name for path in (install.state / "logs").glob("alluxio-worker-exit-*"))
    assert re.fullmatch(r"alluxio-worker-exit-metrics-\d{8}-\d{6}\.json", left[0])
    assert re.fullmatch(r"alluxio-worker-exit-stacks-\d{8}-\d{6}\.txt", left[1])
    assert (install.state / "metastore" / "DoraMeta" / "CURRENT").exists()


def test_a_taken_web_port_ends_it_and_a_taken_http_port_does_not(
    install: Install, etcd: Running
) -> None:
    """WebServer's constructor throws; HttpServer binds in a thread whose failure nobody reads."""
    install.configure(endpoints(etcd))
    with socket.create_server(("0.0.0.0", install.ports["web"])):
        install.start()
        assert install.process is not None
        assert install.process.wait(60) == 255
    assert "Fatal error: Failed to create worker process" in install.console
    assert "Failed to listen on address" in install.console
    with socket.create_server(("0.0.0.0", install.ports["http.server"])):
        install.start()
        try:
            wait_for(install, "Alluxio worker started.")
            assert install.get("web", "/metrics/")[0] == 200
        finally:
            install.stop()


def test_a_metastore_that_cannot_be_made_ends_it(install: Install, etcd: Running) -> None:
    """RocksDBDoraMetaStore. A file stands where the folder would be: so for root, too."""
    (install.state / "file").write_text("")
    install.configure({**endpoints(etcd), "alluxio.work.dir": install.state / "file"})
    install.start()
    assert install.process is not None
    assert install.process.wait(60) == 255
    assert "Fatal error: Failed to create worker process" in install.console
    install.configure()


def test_a_page_store_that_cannot_be_made_turns_the_cache_off(
    install: Install, etcd: Running
) -> None:
    """LocalCacheManager.restoreOrInit: no store is used then, and the worker serves without."""
    (install.state / "in the way").write_text("")
    dirs = f"{install.state}/pages,{install.state}/in the way"
    stores = {
        "alluxio.worker.page.store.dirs": dirs,
        "alluxio.worker.page.store.sizes": "64MB,64MB",
    }
    install.configure({**endpoints(etcd), **stores})
    install.start()
    try:
        wait_for(install, "Cache is in NOT_IN_USE.")
        wait_for(install, "Alluxio worker started.")
        assert install.cli("fs", "cat", "/f", NO_FALLBACK).stdout == "content\n"
    finally:
        install.stop()
        install.configure()


def test_no_worker_of_static_membership_is_used(install: Install) -> None:
    """StaticMembershipManager marks none as LIVE; ConsistentHashPolicy hands on that it is not."""
    static = "-Dalluxio.worker.membership.manager.type=STATIC"
    refused = install.cli("fs", "cat", "/f", static, NO_FALLBACK)
    assert (refused.returncode, refused.stdout) == (1, "The preferred worker is not active.\n")
    silent = install.cli("fs", "cat", "/f", static)  # from the under store itself
    assert (silent.returncode, silent.stdout) == (0, "content\n")


def test_without_live_workers_a_read_fails_or_falls_back(install: Install, etcd: Running) -> None:
    install.configure({**endpoints(etcd), "alluxio.cluster.name": "Empty"})
    none = install.cli("fs", "cat", "/f", NO_FALLBACK)
    assert none.returncode == 1
    assert none.stdout == "No workers available in the cluster. Lost workers excluded\n"
    assert install.cli("fs", "cat", "/f").stdout == "content\n"
    install.configure()
