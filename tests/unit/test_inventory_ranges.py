"""Ranges of names: what they stand for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.inventory import range_names
from provision.inventory.range_names import MAX_ENTRIES, RangeError, expand
from tests.unit.test_inventory_loader import edited, findings, loaded, problems


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("worker", ["worker"]),
        ("worker[1-3]", ["worker1", "worker2", "worker3"]),
        ("worker[001-003]", ["worker001", "worker002", "worker003"]),
        ("worker[08-11]", ["worker08", "worker09", "worker10", "worker11"]),
        ("worker[8-11]", ["worker8", "worker9", "worker10", "worker11"]),
        ("worker[0-10]", [f"worker{n}" for n in range(11)]),
        ("w[1-2,7,9-10].example.com", [f"w{n}.example.com" for n in (1, 2, 7, 9, 10)]),
        ("10.0.1.[11-13]", ["10.0.1.11", "10.0.1.12", "10.0.1.13"]),
        ("r[1-2]n[3-4]", ["r1n3", "r1n4", "r2n3", "r2n4"]),
        ("worker[5]", ["worker5"]),
    ],
)
def test_expand(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w[3-1]", "runs backwards"),
        ("w[1-3", "bracket without its pair"),
        ("w1-3]", "bracket without its pair"),
        ("w[[1-3]]", "bracket without its pair"),
        ("w[1]n]", "bracket without its pair"),
        ("w[]", "not a range"),
        ("w[a-c]", "not a range"),
        ("w[1-]", "not a range"),
        ("w[1 - 3]", "not a range"),
        ("w[-1-3]", "not a range"),
        ("w[\u0661-\u0663]", "not a range"),
        ("w[01-100]", "the same number of digits"),
        ("w[1-010]", "the same number of digits"),
        ("w[0-999999999]", "too long"),
        ("w[9999999999]", "not a range"),
        ("w[1-60000,1-60000]", "too long"),
        ("w[1-1000][1-1000]", f"the maximum is {MAX_ENTRIES}"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(RangeError, match=message):
        expand(text)


@pytest.mark.parametrize("text", ["w[1-6]", "w[1-2][1-3]", "w[1-3,4-6]"])
def test_as_many_as_may_be(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_names, "MAX_ENTRIES", 6)
    assert len(expand(text)) == 6
    monkeypatch.setattr(range_names, "MAX_ENTRIES", 5)
    with pytest.raises(RangeError, match="5"):
        expand(text)


# --- in a file


def ranged(*workers: str) -> str:
    text = edited(("    worker2:\n      host: worker2.example.com\n", ""))
    return text + "".join(f"    {line}\n" for line in workers)


TOO_MANY = "16:5: the file stands for more than 4 hosts [inventory-range-invalid]"


@pytest.mark.parametrize(("most", "refused"), [(5, []), (4, [TOO_MANY])])
def test_the_hosts_of_a_file_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, refused: list[str]
) -> None:
    monkeypatch.setattr(range_names, "MAX_ENTRIES", most)
    text = ranged('"v[1-2]": {host: "v[1-2]"}', '"w[1-2]": {host: "w[1-2]"}', "x: {}")
    path = tmp_path / "lab.yml"
    found = findings(path, text.replace("    x: {}\n", "").encode())
    assert [p.line.removeprefix(f"{path}:") for p in found] == refused


def test_a_bad_range_hides_nothing_below_it(tmp_path: Path) -> None:
    lines = [
        '"v[2-1]": {host: "v[2-1]"}',
        '"w[1-2]": {host: "w[2-1]"}',
        "x: {host: worker1.example.com}",
    ]
    found = problems(tmp_path / "lab.yml", ranged(*lines))
    assert [(p.where, p.what.split(":")[0]) for p in found] == [
        ("15:5", "[2-1] runs backwards"),
        ("16:22", "[2-1] runs backwards"),
        ("17:15", "workers 'worker1' and 'x' are on the same host 'worker1.example.com' (see 14"),
    ]


@pytest.mark.parametrize("given", ["w[2-1]", "w[a]", "w[001-2]", "w[1-200000]", "w[1"])
@pytest.mark.parametrize("value", ["{host: x}", "{}", '{host: "x[1-3]", hostname: y}'])
def test_a_bad_range_alone_is_one_mistake(tmp_path: Path, given: str, value: str) -> None:
    """There are workers, though none can be named: no other error follows from it."""
    workers = "    worker1:\n      host: worker1.example.com\n"
    text = ranged(f'"{given}": {value}').replace(workers, "")
    (problem,) = findings(tmp_path / "lab.yml", text.encode())
    assert problem.id == "inventory-range-invalid"
    assert problem.where.endswith(":13:5")


@pytest.mark.parametrize(
    "members",
    [
        ['"infra[2-0]": {host: x, address: y}'],
        ["i1: {host: x}", '"i[2-0]": {host: y}'],
        ["i1: {host: x}", "i2: {host: z}", '"i[2-0]": {host: y}'],
    ],
)
def test_how_many_members_there_are_is_not_known_when_a_range_is_bad(
    tmp_path: Path, members: list[str]
) -> None:
    lines = [line for line in ranged().split("\n") if not line.startswith("    infra")]
    at = lines.index("  members:") + 1
    lines[at:at] = [f"    {line}" for line in members]
    found = findings(tmp_path / "lab.yml", "\n".join(lines).encode())
    assert [p.id for p in found] == ["inventory-range-invalid"]


def test_each_name_that_is_there_already_is_said(tmp_path: Path) -> None:
    lines = ["v2: {host: a}", "v3: {host: b}", '"v[1-4]": {host: "v[1-4]", heap: x}']
    found = problems(tmp_path / "lab.yml", ranged(*lines))
    assert [(p.where, p.what, p.remedy) for p in found[:2]] == [
        ("17:5", "'v2' is already named at 15:5", "give every host one name"),
        ("17:5", "'v3' is already named at 16:5", "give every host one name"),
    ]
    assert [p.where for p in found[2:]] == ["17:38"]


def test_what_a_range_s_hosts_lack_is_said_once_at_its_place(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "lab.yml", ranged('"v[1-2]": {hostname: "v[1-2]"}'))
    assert (problem.where, problem.what) == ("15:5", "'host' of 'v1' is missing")
    (problem,) = problems(tmp_path / "lab.yml", ranged('"v[1-2]": {host: [a, b]}'))
    assert problem.where == "15:16"
    assert problem.what.startswith("'host' must be one value")


def test_one_host_may_stand_in_a_range(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path / "lab.yml",
        (
            "infra2: {host: infra2.example.com, address: 10.0.1.12}",
            '"infra[2]": {host: x.example.com, address: "10.0.1.[12]"}',
        ),
    )
    member = inventory.etcd.members[2]
    assert (member.name, member.machine.host, member.address) == (
        "infra2",
        "x.example.com",
        "10.0.1.12",
    )


def test_an_even_number_of_members_by_a_range_is_said_at_the_members(tmp_path: Path) -> None:
    text = edited(
        ("    infra1: {host: infra1.example.com, address: 10.0.1.11}\n", ""),
        (
            "    infra2: {host: infra2.example.com, address: 10.0.1.12}\n",
            '    "infra[1-3]": {host: "infra[1-3].example.com", address: "10.0.1.[11-13]"}\n',
        ),
    )
    (problem,) = problems(tmp_path / "lab.yml", text)
    assert (problem.where, problem.severity) == ("5:3", "warning")
