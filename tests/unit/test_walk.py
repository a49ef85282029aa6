"""How root goes to a folder (:data:`provision.host.safely.FUNCTIONS`): by one look at the way where
root alone can change it, and step by step elsewhere. Both must come to the same end."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.host import safely

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders can be root's alone"),
]
USER = "daemon"
STEPS = safely.FUNCTIONS + "on_roots_way() { return 1; }\n"
#: What may be at a name: most ways have one thing at most that is not as usual.
USUAL = [("dir", "root", 0o755)] * 8
KINDS = [
    *USUAL,
    *(("dir", who, mode) for who in ("root", USER) for mode in (0o755, 0o700, 0o775, 0o757)),
    *(("dir", "root", mode) for mode in (0o1777, 0o2755, 0o750)),
    *(("link", who, 0) for who in ("root", USER)),
    ("dangling", "root", 0),
    ("file", "root", 0o644),
    ("nothing", "", 0),
]


@pytest.fixture
def top() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/run"))  # root's alone, as /var/lib
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def layout(top: Path, r: random.Random) -> list[str]:
    """Makes three levels of things, and returns the paths to go to."""
    (top / "elsewhere/inner").mkdir(parents=True)
    paths = []
    for number in range(12):
        at = top / f"n{number}"
        for depth in range(3):
            kind, who, mode = r.choice(KINDS)
            if kind == "nothing":
                break
            if kind == "link":
                at.symlink_to(top / "elsewhere")
            elif kind == "dangling":
                at.symlink_to(top / "gone")
            elif kind == "file":
                at.touch()
            else:
                at.mkdir(mode=mode)
                at.chmod(mode)
            shutil.chown(at, who, who) if kind not in ("link", "dangling") else os.lchown(
                at, *((0, 0) if who == "root" else (1, 1))
            )
            if kind != "dir":
                break
            at = at / f"d{depth}"
        paths += [f"{top}/n{number}{rest}" for rest in ("", "/d0", "/d0/d1", "/inner", "//d0/d1")]
    return paths


def went(functions: str, top: Path, paths: list[str], made: str) -> tuple[str, list[str]]:
    """What the shell says of each way, and what is there afterwards."""
    lines = [
        f"( {made} walk '{path}' 2>&1 && echo \"$(pwd -P) ${{alone:-others}}\" || echo refused )"
        for path in paths
    ]
    script = "\n".join([functions, *lines])
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    state = [
        f"{path.relative_to(top)} {path.lstat().st_mode:o} {path.lstat().st_uid}"
        for path in sorted(top.rglob("*"))
    ]
    return done.stdout.replace(str(top), "/T"), state


@pytest.mark.parametrize("made", ["", "made=yes"])
@pytest.mark.parametrize("seed", range(4))
def test_one_look_comes_to_the_same_end_as_many(top: Path, seed: int, made: str) -> None:
    ends = []
    for functions in (safely.FUNCTIONS, STEPS):
        paths = layout(top, random.Random(seed))
        ends.append(went(functions, top, paths, made))
        for path in top.iterdir():
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
    assert ends[0] == ends[1]
    assert {line.partition(" ")[2] for line in ends[0][0].splitlines()} >= {"yes", "others"}


def test_a_way_that_is_roots_alone_takes_one_look(top: Path) -> None:
    looks = top / "looks"
    (top / "a/b").mkdir(parents=True)
    count = f'stat() {{ echo look >>{looks}; command stat "$@"; }}\n'
    went(safely.FUNCTIONS + count, top, [f"{top}/a/b", f"{top}/a/c"], "made=yes")
    assert looks.read_text().count("look") == 2
    assert (top / "a/c").is_dir()
    shutil.chown(top / "a", USER)
    went(safely.FUNCTIONS + count, top, [f"{top}/a/b"], "")
    assert looks.read_text().count("look") > 4


def test_a_folder_directly_below_the_root(top: Path) -> None:
    name = f"{top.name}-walked"  # the same name in the current folder is another folder
    below_root = Path("/", name)
    (top / name).mkdir()
    try:
        below_root.mkdir()
        for command, left in (
            (f"(walk '' && pwd -P); (made=yes walk '/' && pwd -P); empty /{name}", "/\n/\n"),
            (f"mkdir /{name}; echo x >/{name}/x; gone /{name}", ""),
        ):
            script = f"cd {top}\n{safely.FUNCTIONS}\n{command}"
            done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout, done.stderr) == (0, left, "")
            assert not below_root.exists()
            assert (top / name).is_dir()
    finally:
        if below_root.exists():
            shutil.rmtree(below_root)


@pytest.mark.parametrize("fails", [1, 2, 3, 4])
def test_where_a_look_fails_root_does_not_go(top: Path, fails: int) -> None:
    """A host that has no memory left, say: what could not be asked proves nothing."""
    (top / "theirs").mkdir()
    shutil.chown(top / "theirs", USER)
    (top / "theirs/link").symlink_to(top)
    os.lchown(top / "theirs/link", 1, 1)
    looks = top / "looks"
    fail = (
        f'stat() {{ echo x >>{looks}; [ "$(grep -c x {looks})" -lt {fails} ] || return 1\n'
        'command stat "$@"; }\n'
    )
    said, _ = went(safely.FUNCTIONS + fail, top, [f"{top}/theirs/link"], "")
    assert said.splitlines()[-1] == "refused"


@pytest.mark.parametrize("group", [0, 1])
def test_a_folder_of_roots_has_roots_group(top: Path, group: int) -> None:
    (top / "a").mkdir()
    shutil.chown(top / "a", 0, 1)
    calls = f"folder {top}/a root:root 0750; folder {top}/new root:root 0700"
    line = ["setpriv", "--regid", str(group), "--clear-groups", "sh", "-c"]
    subprocess.run([*line, f"{safely.FUNCTIONS}\n{calls}"], check=True, timeout=60)
    assert [(top / n).stat().st_gid for n in ("a", "new")] == [0, 0]
    assert [(top / n).stat().st_mode & 0o7777 for n in ("a", "new")] == [0o750, 0o700]
