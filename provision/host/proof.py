"""A program that must answer on a host before a service is stopped for it.

The right tarball can still hold a program that does not run there: for another CPU, on a disk that
is mounted ``noexec``, in a folder that the service's user may not enter. So the program is asked
for its version as that user.
"""

from __future__ import annotations

import shlex

from provision.dataclass import dataclass
from provision.host import safely

#: Seconds that a program has for its answer. A JVM on a busy host takes some.
ANSWER_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Proof:
    """``program`` in ``folder`` answers to ``arguments``, run by ``user``, with the line ``says``.

    Without arguments the user must only be able to run it. ``readable``: files in the folder that
    the user must be able to read.
    """

    folder: str
    program: str
    arguments: tuple[str, ...]
    user: str
    says: str = ""
    readable: tuple[str, ...] = ()

    def script(self, folder: str = "") -> str:
        """Shell lines that end with 1, and say why, unless the program answers.

        ``folder``: another place of the tree, with a slash at its end.
        """
        at = folder or f"{self.folder}/"
        program, user = shlex.quote(f"{at}{self.program}"), shlex.quote(self.user)
        named = shlex.quote(f"{self.folder}/{self.program}")
        run = f"timeout {ANSWER_SECONDS} $as {program} {shlex.join(self.arguments)}"
        if not self.arguments:  # a program that does not say its version
            run = f"$as test -x {program}"
        files = "".join(
            f"\n9>&- $as test -r {shlex.quote(f'{at}{name}')} || "
            f'{{ echo "{user} cannot read" {shlex.quote(name)} >&2; exit 1; }}'
            for name in self.readable
        )
        says = f"*{shlex.quote(f'{self.says}{chr(10)}')}*" if self.says else "*"
        return f"""(
{safely.become_or_nobody(self.user)}
code=0; said=$({run} 2>&1 </dev/null 9>&-) || code=$?
case "$code:$said
" in
  0:{says}) ;;
  *) echo "the new" {named} "does not answer as user" {user}: "$said" >&2; exit 1;;
esac{files}
)"""
