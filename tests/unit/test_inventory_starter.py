"""init-inventory with lists of hosts: an inventory that the loader takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import UsageError
from provision.inventory import document, loader
from provision.inventory.findings import Findings
from provision.inventory.parts import Parts, Tarball, scalar
from provision.inventory.resolved import Inventory
from provision.inventory.starter import Answers, starter
from tests.unit.test_program_in_use import run


def made(tmp_path: Path, **options: str) -> Inventory:
    """What the loader makes of the inventory for ``options``."""
    path = tmp_path / "made.yml"
    path.write_text(starter(Answers(**options)).text)
    return loader.read(path).inventory


def hosts(inventory: Inventory) -> tuple[dict[str, str], dict[str, str]]:
    """Members and workers: the host of each name."""
    workers = inventory.alluxio.workers if inventory.alluxio else ()
    return (
        {m.name: m.machine.host for m in inventory.etcd.members},
        {w.name: w.machine.host for w in workers},
    )


def test_the_usual_lists(tmp_path: Path) -> None:
    lists = {"etcd": "host1,host2,host3", "workers": "worker[1-20].example.com"}
    found = made(tmp_path, **lists, user="deploy")
    members, workers = hosts(found)
    assert members == {"host1": "host1", "host2": "host2", "host3": "host3"}
    assert workers == {f"worker{n}": f"worker{n}.example.com" for n in range(1, 21)}
    assert {m.machine.user for m in found.etcd.members} == {"deploy"}
    seen = starter(Answers(**lists))
    assert (seen.members, seen.workers, seen.warnings) == (3, 20, ())
    assert '    "worker[1-20]": {host: "worker[1-20].example.com"}\n' in seen.text  # still a range
    for key in ("  version: 3", "  properties:\n", '  version: "313"'):
        before = seen.text.partition(f"\n{key}")[0]
        assert "EDIT" in "\n".join(before.splitlines()[-1:]), key


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("a.x.com, b.x.com ,c.x.com,", ["a", "b", "c"]),
        ("a.x.com,a.y.com,b.x.com", ["a.x.com", "a.y.com", "b"]),
        ("a,a.x.com,b.a", ["a", "a.x.com", "b"]),
        ("10.0.0.1,10.0.0.2", ["worker-10-0-0-1", "worker-10-0-0-2"]),
        ("10.0.0.[8-10]", ["worker-10-0-0-8", "worker-10-0-0-9", "worker-10-0-0-10"]),
        ("fd00::5,[fd00::6]", ["worker-fd00--5", "worker-fd00--6"]),
        ("rack[1-2]-n[01,03].x", ["rack1-n01", "rack1-n03", "rack2-n01", "rack2-n03"]),
        ("n.rack[1-2].x", ["n.rack1.x", "n.rack2.x"]),
        ("w[1-2].a,w[2-3].b", ["w1.a", "w2.a", "w2.b", "w3.b"]),
        ("no,null,true", ["no", "null", "true"]),
    ],
)
def test_names(tmp_path: Path, listed: str, names: list[str]) -> None:
    assert list(hosts(made(tmp_path, etcd="e1,e2,e3", workers=listed))[1]) == names


def test_how_hosts_are_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my key").touch()
    how = {"user": "deploy", "port": "2222", "key": "my key", "jump": "me@bastion:22"}
    (machine,) = {m.machine for m in made(tmp_path, etcd="a", **how).etcd.members}
    assert (machine.user, machine.port, machine.jump) == ("deploy", 2222, "me@bastion:22")
    assert machine.key == tmp_path / "my key"


def test_etcd_alone_and_workers_alone(tmp_path: Path) -> None:
    assert made(tmp_path, etcd="a,b,c").alluxio is None
    found = made(tmp_path, workers="w1,w2")
    assert list(hosts(found)[1]) == ["w1", "w2"]
    assert found.etcd.external
    assert "without TLS. EDIT\n  external:" in (tmp_path / "made.yml").read_text()


def test_a_warning_of_the_loader_is_kept() -> None:
    (warning,) = starter(Answers(etcd="a,b")).warnings
    assert warning.severity == "warning"
    assert ".check-" not in warning.line


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({"user": "x"}, ["--etcd: no host is named"]),
        ({"etcd": ","}, ["--etcd: no host is named"]),
        ({"etcd": "root@a"}, ["--etcd: 'root@a' is not a host name"]),
        ({"etcd": "a:22"}, ["--etcd: 'a:22' is not a host name"]),
        ({"etcd": "a b"}, ["--etcd: 'a b' is not a host name"]),
        ({"etcd": "-a"}, ["--etcd: '-a' is not a host name"]),
        ({"etcd": "a\n  evil: 1"}, ["--etcd: 'a\\n  evil: 1' is not a host name"]),
        ({"etcd": "a,b,a"}, ["--etcd: a is named 2 times"]),
        ({"workers": "w[1-3],w2"}, ["--workers: w2 is named 2 times"]),
        ({"workers": "w[3-1]"}, ["--workers: [3-1] runs backwards"]),
        ({"workers": "w[1-60000],v[1-60000]"}, ["--workers: there are more than 100000 hosts"]),
        ({"etcd": "a" * 65}, [f"--etcd: '{'a' * 65}' cannot be a name"]),
        ({"etcd": "1,b,c"}, ["--etcd: 'host': '1' is not an IPv4 address"]),
        ({"etcd": "a", "port": "99999"}, ["--port: 'port' must be at most 65535"]),
        ({"etcd": "a", "port": "ssh"}, ["--port: "]),
        ({"etcd": "a", "user": "x y"}, ["--user: "]),
        ({"etcd": "a", "key": "/no/key"}, ["--key: key: there is no file '/no/key'"]),
        ({"etcd": "a", "jump": "x y"}, ["--jump: "]),
        ({"etcd": "u@a", "workers": "[1"}, ["--etcd: 'u@a'", "--workers: '[1' has a bracket"]),
    ],
)
def test_what_is_refused(options: dict[str, str], problems: list[str]) -> None:
    with pytest.raises(UsageError, match="no inventory was written") as caught:
        starter(Answers(**options))
    found = [problem.line for problem in caught.value.problems]
    assert len(found) == len(problems), found
    for line, begins in zip(found, problems, strict=True):
        assert line.startswith(begins)
        assert ".check-" not in line


@pytest.mark.parametrize("text", ["a", "a: b", "~", "null", "a #b", "[1]", "*x", "ü", "~/k"])
def test_a_scalar_is_read_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(f"{scalar(text)}: {{k: {scalar(text)}}}")
    findings = Findings("x")
    root = document.parse(path.read_bytes(), findings)
    assert not findings.errors
    assert root is not None
    assert list(root.entries) == [text]


@pytest.mark.process
@pytest.mark.parametrize("program", ["alluxio-provision", "invoke"])
def test_in_an_empty_folder(tmp_path: Path, program: str) -> None:
    """The command of the README, and then each command that it names."""
    cwd = tmp_path
    if program == "invoke":  # it finds tasks.py in its folder only
        (cwd / "tasks.py").symlink_to(Path(__file__).parents[2] / "tasks.py")
    lists = ("--etcd", "host1,host2,host3", "--workers", "worker[1-20].example.com")
    done = run(program, "init-inventory", *lists, "--user", "deploy", cwd=cwd)
    where = "inventory/inventory.yml"
    then = f"edit what says EDIT, then {program} show-inventory\n"
    assert done.stdout == f"wrote {where}: 3 members, 20 workers; {then}"
    text = (cwd / where).read_text()
    assert f"`{program} init-inventory FILE`" in text
    assert f"the name that '{program} destroy' asks for" in text
    shown = run(program, "show-inventory", "--format", "json", cwd=cwd)
    assert (shown.returncode, shown.stderr) == (0, "")
    values = {row["path"]: row["value"] for row in json.loads(shown.stdout)["values"]}
    assert values["alluxio.workers.worker20.host"] == "worker20.example.com"
    again = run(program, "init-inventory", *lists, "--format", "json", cwd=cwd)
    assert json.loads(again.stdout)["id"] == "file-exists"
    other = run(program, "init-inventory", "a/b.yml", "--format", "json", *lists, cwd=cwd)
    assert json.loads(other.stdout) == {
        "schema": "alluxio-provision/init-inventory/1",
        "path": "a/b.yml",
        "members": 3,
        "workers": 20,
        "to_edit": True,
        "tarballs": [],
    }


SHA = "ab" * 32
WHOLE = Parts(
    cluster="Reports",
    etcd=Tarball("../etcd.tar.gz", SHA, "3.5.35"),
    alluxio=Tarball("/a b/x: y.tar.gz", SHA, "310"),
    java=Tarball("jdk.tar.gz", SHA, "11"),
    ufs="s3://bucket/a #b",
)


def test_with_all_that_a_cluster_needs_nothing_is_left_to_edit(tmp_path: Path) -> None:
    seen = starter(Answers(etcd="a,b,c", workers="w1"), WHOLE)
    assert "EDIT" not in seen.text
    path = tmp_path / "sub" / "made.yml"
    path.parent.mkdir()
    path.write_text(seen.text)
    found = loader.read(path).inventory
    assert (found.cluster, found.etcd.version) == ("Reports", "3.5.35")
    assert found.etcd.source is not None
    assert (found.etcd.source.path, found.etcd.source.sha256) == (tmp_path / "etcd.tar.gz", SHA)
    assert found.alluxio is not None
    assert (found.alluxio.version, found.alluxio.source.path) == ("310", Path("/a b/x: y.tar.gz"))
    assert found.alluxio.java.source is not None
    assert found.alluxio.java.source.path == tmp_path / "sub" / "jdk.tar.gz"
    assert found.alluxio.properties["alluxio.dora.client.ufs.root"] == "s3://bucket/a #b"
    assert found.kubernetes is None


def test_java_of_the_hosts_and_pods(tmp_path: Path) -> None:
    parts = Parts(java="/usr/lib/jvm/11", kubernetes=True, ufs="s3://b/p", ask_sudo=True)
    path = tmp_path / "made.yml"
    path.write_text(starter(Answers(etcd="a,b,c", workers="w[1-4]"), parts).text)
    found = loader.read(path).inventory
    assert found.alluxio is not None
    assert found.alluxio.java.home == "/usr/lib/jvm/11"
    password = found.etcd.members[0].machine.sudo_password
    assert password is not None
    assert password.ask
    assert found.kubernetes is not None
    assert (found.kubernetes.workers, found.kubernetes.etcd_replicas) == (4, 3)


def test_in_a_shared_etcd_the_cluster_has_a_name_of_its_own() -> None:
    lists = Answers(endpoints="http://a:2379", workers="w1")
    whole = Parts(alluxio=WHOLE.alluxio, ufs="s3://b/p")
    assert "list-clusters" in starter(lists, whole).text
    assert "for.  EDIT" not in starter(lists, whole).text
    assert "for. EDIT\n" in starter(lists, whole).text
    assert "EDIT" not in starter(lists, replace(whole, cluster="Mine")).text


@pytest.mark.parametrize(
    ("lists", "parts", "where"),
    [
        ({"etcd": "a,b,c"}, Parts(ufs="s3://b/p"), "--ufs"),
        ({"etcd": "a,b,c"}, Parts(java="/j"), "--java"),
        ({"etcd": "a,b,c"}, Parts(alluxio=WHOLE.alluxio), "--alluxio-tarball"),
        ({"etcd": "a,b,c"}, Parts(kubernetes=True), "--kubernetes"),
        ({"workers": "w", "endpoints": "http://a:1"}, Parts(etcd=WHOLE.etcd), "--etcd-tarball"),
        ({"etcd": "a", "workers": "w"}, Parts(cluster="x y"), "--cluster"),
        ({"etcd": "a", "workers": "w"}, Parts(java="relative"), "--java"),
        ({"etcd": "a", "workers": "w"}, Parts(etcd=Tarball("e", SHA, "9")), "--etcd-tarball"),
    ],
)
def test_parts_that_do_not_fit(lists: dict[str, str], parts: Parts, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        starter(Answers(**lists), parts)
    assert {problem.where for problem in caught.value.problems if problem.severity == "error"} == {
        where
    }


def test_an_etcd_that_is_there(tmp_path: Path) -> None:
    urls = ["http://10.0.1.10:2379", "http://10.0.1.11:2379"]
    inventory = made(tmp_path, endpoints=", ".join(urls), workers="w1,w2")
    assert inventory.alluxio is not None
    assert list(inventory.alluxio.etcd_endpoints) == urls
    text = starter(Answers(endpoints=urls[0], workers="w1")).text
    assert "client URL, without TLS.\n" in text


@pytest.mark.parametrize("endpoints", ["10.0.1.10:2379", "https://", "http://a:2379/path"])
def test_an_endpoint_that_is_none_is_refused(endpoints: str) -> None:
    with pytest.raises(UsageError) as caught:
        starter(Answers(endpoints=endpoints, workers="w1"))
    assert {problem.where for problem in caught.value.problems} == {"--endpoints"}


def test_members_of_its_own_or_endpoints() -> None:
    with pytest.raises(UsageError) as caught:
        starter(Answers(etcd="a,b,c", endpoints="http://d:2379"))
    (problem,) = caught.value.problems
    assert problem.where == "--endpoints"
