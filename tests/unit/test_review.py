"""What a reader sees of a plan: new files with their content, and each difference once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from provision.alluxio.worker import desired
from provision.alluxio.worker.desired import Artifacts
from provision.cli import review
from provision.engine.plan import Gate, HostChanges, Plan, Step
from provision.etcd.member import desired as etcd_member
from provision.host.diff import Change, changes
from provision.host.kinds.files import File, Identity
from provision.inventory.model import AlluxioEtcd, Secret
from provision.inventory.resolved import Machine
from tests.unit import builders, hosts


def shown(*steps: Step, new: bool = True, full: bool = False) -> str:
    return "\n".join(line.text for line in review.lines(Plan("t", "c", steps), new=new, full=full))


def on(name: str, *changes: Change) -> HostChanges:
    return HostChanges(name, Machine(f"{name}.example.com"), changes)


def files(name: str, *content: str) -> HostChanges:
    declared = [File(f"/f{n}", text.encode()) for n, text in enumerate(content)]
    return on(name, *changes(declared, hosts.facts()))


def new(path: str, *lines: str) -> str:
    return f"--- /dev/null\n+++ {path}\n@@ -0,0 +1,{len(lines)} @@\n" + "".join(
        f"+{line}\n" for line in lines
    )


class TestNewFiles:
    @pytest.mark.parametrize(
        ("file", "diff"),
        [
            (File("/f", b"one\n\ntwo\n"), new("/f", "one", "", "two")),
            (File("/f", b""), "--- /dev/null\n+++ /f\n"),
            (File("/f", b"a\x1b]0;x\x07\n"), new("/f", "a\ufffd]0;x\ufffd")),
            (File("/f", b"p=hunter2\n", mode=0o640), new("/f", "***")),
            (File("/f", b"p=hunter2\n", secret=True), new("/f", "***")),
            (File("/f", b"p=hunter2\n", secret=True, masked=b"p=***\n"), new("/f", "p=***")),
            (File("/f", b"p=hunter2\n", mode=0o640, masked=b"p=***\n"), new("/f", "p=***")),
        ],
    )
    def test_the_content_is_the_difference(self, file: File, diff: str) -> None:
        (change,) = changes([file], hosts.facts())
        assert change.diff == diff

    def test_what_is_in_the_way_of_a_new_file_is_no_content(self) -> None:
        there = replace(hosts.text(""), kind="link", target="/x")
        (change,) = changes([File("/f", b"x\n")], hosts.facts(paths={"/f": there}))
        assert change.diff == new("/f", "x")

    def test_a_random_identity_is_not_shown(self) -> None:
        (change,) = changes([Identity("/s/worker_identity", "u", "1-2")], hosts.facts())
        assert change.diff == ""

    def test_the_workers_properties_without_their_secrets(self, tmp_path: Path) -> None:
        (tmp_path / "p").write_text("hunter2 of: all\n")
        secret = Secret(file=tmp_path / "p")
        worker = builders.worker("w1")._replace(secret_properties={"s3a.secretKey": secret})
        login = AlluxioEtcd(username="bob", password=secret)
        alluxio = builders.alluxio(worker, etcd_login=login)
        declared = desired.resources(alluxio, worker, Artifacts(hosts.TARBALL, None), None)
        found = {c.what: c for c in changes(declared, hosts.facts())}
        change = found["write /opt/alluxio/313/conf/alluxio-site.properties"]
        assert "\n+alluxio.worker.hostname=w1\n" in change.diff
        assert "\n+s3a.secretKey=***\n" in change.diff
        assert "\n+alluxio.etcd.password=***\n" in change.diff
        everything = "".join(c.what + c.diff for c in found.values())
        assert not re.search("hunter2|bob", everything)

    def test_only_where_it_is_asked_for(self) -> None:
        step = Step("s", (files("a", "one\n"),))
        changed = Change("change /g", diff="--- /g\n+++ /g\n-x\n+y\n")
        assert "+one" in shown(step)
        assert "+one" not in shown(step, new=False)
        assert "+y" in shown(Step("s", (on("a", changed),)), new=False)

    def test_an_encoded_block_is_counted(self) -> None:
        pem = "-----BEGIN CERTIFICATE-----\nabc\ndef==\n-----END CERTIFICATE-----\n"
        step = Step("s", (files("a", f"x\n{pem}{pem}y\n"),))
        assert shown(step).count("+(2 lines)") == 2
        assert "abc" not in shown(step)
        assert shown(step, full=True).count("+def==") == 2


class TestOnce:
    def test_hosts_with_the_same_changes_are_one_block(self) -> None:
        text = shown(Step("s", (files("a", "x\n"), files("b", "x\n"))))
        assert text.count("+x") == 1
        assert "   a (a.example.com), b (b.example.com)\n     * write /f0\n" in text

    def test_what_is_the_same_is_shown_once_beside_what_is_not(self) -> None:
        step = Step("s", (files("a", "x\n", "same\n"), files("b", "y\n", "same\n")))
        text = shown(step)
        assert text.count("+same") == 1
        assert "       on a:\n" in text
        assert text.count("on b:\n       as on a, but\n       -x\n       +y\n") == 1

    def test_only_the_own_name_differs(self) -> None:
        step = Step("s", tuple(files(n, f"i am {n} at {n}.example.com\n") for n in ("a1", "a2")))
        text = shown(step)
        assert "       on a1; with its own name on a2:\n" in text
        assert "am a2" not in text
        assert "+i am a1 at a1.example.com" in text

    def test_a_name_within_a_word_is_no_name(self) -> None:
        step = Step("s", (files("a", "bay\n"), files("b", "bby\n")))
        assert "with its own name" not in shown(step)

    def test_the_same_text_is_the_same_also_with_the_names_in_it(self) -> None:
        step = Step("s", tuple(files(n, "hosts a, b\n") for n in ("a", "b", "c")))
        text = shown(step)
        assert text.count("+hosts a, b") == 1
        assert " on " not in text

    def test_later_steps_name_the_first(self) -> None:
        long = "".join(f"{n}\n" for n in range(9))
        text = shown(*(Step(f"roll {n}", (files(n, long),)) for n in ("a", "b")))
        assert text.count("+8") == 1
        assert "       the same as in step 1, on a" in text
        short = shown(*(Step(f"roll {n}", (on(n, Change("x", diff="-1\n+2\n")),)) for n in "ab"))
        assert short.count("+2") == 2

    def test_many_of_their_own_and_long_ones_are_cut(self) -> None:
        many = [files(f"w{n}", f"{n * n} of {n}\n") for n in range(9)]
        text = shown(Step("s", tuple(many)))
        assert "on w5, w6, w7, w8: not shown (--diff-full shows all)" in text
        assert "+16 of 4" in text
        assert "+25 of 5" not in text
        long = shown(Step("s", (files("a", "".join(f"{n}\n" for n in range(300))),)))
        # Three lines are its head.
        assert "+196\n       and 103 more lines (--diff-full shows all)" in long

    def test_in_full_nothing_is_left_out(self) -> None:
        many = [files(f"w{n}", f"{n * n} of {n}\n", "same\n") for n in range(9)]
        step = Step("s", (*many, files("w9", "64 of 8\n", "same\n")))
        text = shown(step, full=True)
        assert all(f"+{n * n} of {n}" in text for n in range(9))
        assert text.count("+same") == 9
        assert "w8 (w8.example.com), w9 (w9.example.com)" in text
        long = "".join(f"{n}\n" for n in range(300))
        assert "+299" in shown(Step("s", (files("a", long),)), full=True)


def test_the_rest_of_a_plan() -> None:
    stop = Change("stop x", stops=("x.service",))
    text = shown(Step("one", (on("a", stop),), after=Gate("all are healthy", lambda: None)))
    assert text.splitlines() == [
        "t: 1 to change in 1 step",
        "1. one",
        "   a (a.example.com)",
        "     * stop x",
        "   then: all are healthy",
        "affected: stops x on a",
    ]
    assert shown(Step("one", (on("a", Change("x")),))).endswith(
        "no service is stopped or restarted"
    )


def first_deploy(workers: int) -> Plan:
    etcd = builders.etcd()
    alluxio = builders.alluxio(*(builders.worker(f"worker{n:03}") for n in range(workers)))
    artifacts = Artifacts(hosts.TARBALL, None)

    def installed(name: str, machine: Machine, declared: Sequence[object]) -> HostChanges:
        return HostChanges(name, machine, changes(declared, hosts.facts()))  # type: ignore[arg-type]

    members = tuple(
        installed(m.name, m.machine, etcd_member.resources(etcd, m, hosts.TARBALL, None, None))
        for m in etcd.members
    )
    installing = tuple(
        installed(w.name, w.machine, desired.resources(alluxio, w, artifacts, None))
        for w in alluxio.workers
    )
    return Plan("t", "c", (Step("members", members), Step("workers", installing)))


def test_a_first_deployment_can_be_read_and_asks_nothing() -> None:
    """More workers are more lines in the list of workers alone, up to its end."""
    few, many = ("\n".join(x.text for x in review.lines(first_deploy(n))) for n in (20, 200))
    assert len(few.splitlines()) < 300
    assert 100 < len(many.splitlines()) - len(few.splitlines()) <= review.LINES
    for text in (few, many):
        assert "+alluxio.worker.hostname=worker000" in text
        assert "+ExecStart=/opt/etcd/3.6.16/etcd --config-file /etc/etcd/etcd.conf.yml" in text
        assert "not shown" not in text
    assert not first_deploy(2).ends_something
