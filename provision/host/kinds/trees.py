"""Unpacked tarballs, and folders that are moved."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from provision.artifacts import Artifact
from provision.dataclass import dataclass
from provision.host import former_owner, predict, safely, selinux, tool_version
from provision.host.diff import Change, Resource
from provision.host.digest import is_digest
from provision.host.facts import STATE_FOLDER, HostFacts, Look, Place, restart_mark
from provision.host.proof import Proof
from provision.tar_reader import OWN_NAMES

#: A file with the digest of the tarball from which a folder was unpacked. Only this tool makes such
#: folders.
MARKER = ".artifact.sha256"
#: A file beside it with the name of the cluster that had the folder unpacked. Folders of earlier
#: versions of this tool have none.
OWNER = ".alluxio-provision-cluster"
_OWN = r"\( " + " -o ".join(f"-name '{name}*'" for name in OWN_NAMES) + r" \)"


@dataclass(frozen=True, slots=True)
class Move(Resource):
    """A folder of ``unit`` that is moved from ``source`` to ``target`` while ``unit`` is stopped,
    and then belongs to ``owner``. It is declared only when ``source`` exists and ``target`` does
    not. ``proofs``: programs that must answer before ``unit`` is stopped."""

    source: str
    target: str
    owner: str
    unit: str
    proofs: tuple[Proof, ...] = ()

    def look(self) -> Look:
        return Look(paths=(self.target,))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        proofs = "".join(f"{proof.script()} || exit 1\n" for proof in self.proofs)
        return [
            Change(
                f"move {self.source} to {self.target}, with {self.unit} stopped",
                f"(\n{proofs}{self.script()})",
                restarts=(self.unit,),
                seconds=900,
                stops=(self.unit,) if facts.unit(self.unit).active == "active" else (),
            )
        ]

    def after(self, facts: HostFacts) -> HostFacts:
        """Files in the folder get the same owner. A folder that was not looked at gets the mode of
        the owner's folders."""
        taken = {self.target: facts.paths.get(self.source, predict.folder(mode=0o750))}
        below = f"{self.source}/"
        for path, state in facts.paths.items():
            if path.startswith(below):
                taken[f"{self.target}/{path.removeprefix(below)}"] = state
        moved = {p: replace(s, owner=self.owner, group=self.owner) for p, s in taken.items()}
        return predict.written(predict.without(self.source, facts), moved, (self.unit,))

    def script(self) -> str:
        """The script of the move. After a kill at any point, the whole folder is at one of the two
        places, and a second run does the rest.

        ``source`` is in a folder of root. The folder of ``target`` is its owner's, so there root
        does no more than a rename, and its owner makes the copy (:mod:`provision.host.safely`).
        """
        source, target, unit = map(shlex.quote, (self.source, self.target, self.unit))
        folder, _, base = self.target.rpartition("/")
        name, owner = shlex.quote(base), self.owner
        copied = f"cp -a {source} ./{name}.incoming && mv -T ./{name}.incoming ./{name}"
        rename = f"""\
set -- $(df -P {source} . | awk 'NR > 1 {{ print $1 $NF }}')  # device and mount point of each
if [ $# = 2 ] && [ "$1" = "$2" ]; then
  mv -T {source} ./{name}
else
  rm -rf ./{name}.incoming
  {safely.as_user(owner, f"sh -c {shlex.quote(copied)}")} || exit 1
  rm -rf {source}
fi
"""
        return f"""\
if [ -d {source} ] && [ ! -L {source} ] && [ ! -e {target} ]; then
  systemctl stop {unit}
  [ "$(stat -c %U {source})" = {owner} ] || chown -hRP {owner}:{owner} {source}
  {safely.in_folder(folder, f"set -e{chr(10)}{rename}")}
fi
"""


def holds(facts: HostFacts, path: str, artifact: Artifact) -> bool:
    """Whether the tree at ``path`` was unpacked from ``artifact``."""
    return (facts.text(f"{path}/{MARKER}") or "").strip() == artifact.sha256


@dataclass(frozen=True, slots=True)
class Tree(Resource):
    """A tarball unpacked at ``path`` without its top folder. Its digest is kept inside.

    All files belong to root, and nobody else can write to them. ``before``: the folders that are
    moved out of this folder before it is replaced. ``cluster`` is noted in the folder: another
    cluster's ``destroy`` leaves it alone. ``proof``: a program of the tree that must answer before
    the tree comes to its place.
    """

    path: str
    artifact: Artifact
    restarts: tuple[str, ...] = ()
    before: tuple[Move, ...] = ()
    cluster: str = ""
    proof: Proof | None = None

    @property
    def marker(self) -> str:
        return f"{self.path}/{MARKER}"

    def look(self) -> Look:
        return Look(paths=(self.marker, self.path), contents=(self.marker,))

    def place(self) -> Place:
        return Place(self.path, "a directory", ("dir",))

    def change(self, facts: HostFacts, before: HostFacts) -> Sequence[Change]:
        name = self.artifact.path.name
        if self.path not in facts.paths:
            # No process runs from a folder that does not exist yet.
            return [Change(f"install {self.path} from {name}", upload=self)]
        what = f"replace {self.path} from {name}"
        return [Change(what, upload=self, restarts=self.restarts)]

    def after(self, facts: HostFacts) -> HostFacts:
        if holds(facts, self.path, self.artifact):
            return facts
        restarts: tuple[str, ...] = ()
        if self.path in facts.paths:
            restarts = self.restarts
            for move in self.before:
                if move.target not in facts.paths:
                    pending = facts.pending_restarts
                    facts = replace(move.after(facts), pending_restarts=pending)
        # Files in the old tree are removed with it.
        facts = predict.without(self.path, facts)
        marker = predict.file(f"{self.artifact.sha256}\n".encode(), "root", 0o644)
        made = {self.path: predict.folder(), self.marker: marker}
        return predict.written(facts, made, restarts)

    def receive(self) -> str:
        """The command that reads the tarball from standard input, checks and unpacks it.

        Before it replaces a tree, it notes the restarts that the change needs.
        """
        path, digest = shlex.quote(self.path), self.artifact.sha256
        pending = shlex.join(map(restart_mark, self.restarts))
        note = f"{STATE_FOLDER}; touch {pending}" if pending else ":"
        before = "".join(move.script() for move in self.before)
        owner = f'printf "%s\\n" {shlex.quote(self.cluster)} >"$t/tree/{OWNER}"'
        proof = self.proof.script("./") if self.proof is not None else ":"
        return f"""\
set -e
umask 022
{tool_version.note()}
{safely.FUNCTIONS if self.before else ""}base=$(dirname {path})
{former_owner.made_if_missing(self.path.rpartition("/")[0])}
mkdir -p "$base"
rm -rf "$base"/.incoming.*
t=$(mktemp -d "$base/.incoming.XXXXXX")
trap 'rm -rf "$t"' EXIT HUP TERM INT
chmod 755 "$t"
cat >"$t/tarball"
{is_digest("$t/tarball", digest)} || {{
  echo "sha256 differs after the upload" >&2
  exit 1
}}
mkdir "$t/unpacked"
tar -xzof "$t/tarball" -C "$t/unpacked"  # o: nobody of the archive owns a file
rm "$t/tarball"
top=$(ls -A "$t/unpacked")
if [ -z "$top" ] || [ -L "$t/unpacked/$top" ] || [ ! -d "$t/unpacked/$top" ]; then
  echo "the tarball does not hold one folder" >&2
  exit 1
fi
mv -T "$t/unpacked/$top" "$t/tree"
odd=$(find "$t/tree" ! -type f ! -type d ! -type l)
own=$(find "$t/tree" -mindepth 1 -maxdepth 1 {_OWN})
if [ -n "$odd" ] || [ -n "$own" ]; then
  echo "the tarball holds devices, or a name of this tool's own files" >&2
  exit 1
fi
# Where two readers of the archive see other targets, what counts is what is there now.
out=$(find "$t/tree" -type l -exec readlink -m {{}} + | grep -vxE "$t/tree(/.*)?" | head -n 1)
if [ -n "$out" ]; then
  echo "the tarball holds a link that leads outside" >&2
  exit 1
fi
# Alluxio's release has a folder that all may write to: logs/user.
chmod -R u=rwX,go=rX,a-s,-t "$t/tree"
( cd "$t/tree"; {proof} )
{owner if self.cluster else ":"}
echo {digest} >"$t/tree/{MARKER}"
if [ -e {path} ]; then
  # Only this tool's own tree, or an empty folder, is replaced.
  if [ ! -e {path}/{MARKER} ] && [ -n "$(ls -A {path})" ]; then
    echo {path} is not empty, and this tool has not made it >&2
    exit 1
  fi
  {note}
{before}  mv {path} "$t/replaced"
fi
mv -T "$t/tree" {path}
{selinux.label(self.path)}
"""
