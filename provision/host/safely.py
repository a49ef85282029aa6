"""Work of root in folders in which a service user can replace every name.

Below such a folder a name proves nothing: between a look and the work on it, the user can put a
link in its place. So root opens, writes, reads and executes nothing there by name. There are two
ways. The service's user does it (:func:`become`, :func:`as_user`), or the folder's owner does
(:func:`as_owner`); what that user could do anyway, an attack gains nothing from. Or root goes
there: where others could change a name on the way, step by step, and it checks each folder when it
is in it. A process has its current folder itself, not its name. From there, ``mkdir``, ``rm``,
``mv`` and ``rmdir`` of a single name follow no link, and ``chown`` and ``chmod`` work on ``.``.

A service's folder may itself be below a folder of another user. Then its own name proves nothing
either: root walks to it.

``tests/unit/test_roots_paths.py`` reads every script that this tool sends to hosts, and refuses
other forms.
"""

from __future__ import annotations

import re
import shlex

#: timeout(1) after the time: ended by TERM, by KILL; 125 is what uutils' 0.0.30 gives with -k.
TIMED_OUT = (124, 125, 137)
#: Stands for a user that is not made yet: it has no more rights (nobody).
_NOBODY = 65534
#: Shell functions for scripts that run as root:
#:
#: ``walk DIR`` goes to DIR; ``made=yes walk DIR`` also makes the missing folders on the way. Only
#: where root alone can change names is a link followed. Call it in a subshell. Where DIR is no link
#: and root alone can change every name on the way (``on_roots_way``), one look proves it: nobody
#: can change the names afterwards. Elsewhere each folder is proven when root is in it.
#:
#: ``folder DIR OWNER:GROUP MODE`` makes DIR, or changes its owner and mode. The new mode comes
#: first, so that a service that reads in it can read all the time.
#:
#: ``gone PATH…`` deletes each PATH, with everything in it.
#:
#: ``empty PATH`` deletes PATH if it is an empty folder.
#:
#: ``owner SECONDS COMMAND…`` runs COMMAND in the folder to which ``walk`` went, as its owner. As
#: root it does so only where root alone can change names, up to this folder and in it.
#:
#: ``as USER COMMAND…`` runs COMMAND as USER. A process of a user can be taken over by that user: so
#: it gets neither the batch's lock nor its input and output.
FUNCTIONS = r"""me=0
[ -O /proc/1 ] || me=$(id -u)
is_roots() {
  case $2 in d????-??-?) ;; *) return 1;; esac
  [ "$1" = 0 ] || [ "$1" = "$me" ]
}
walk() {
  set -- "${1:-/}"
  alone=yes
  if on_roots_way "$1"; then
    if [ -z "$last" ] && [ -n "${made-}" ]; then
      mkdir -m 755 "$1" || return
      last=$me:drwxr-xr-x
    fi
    cd -P "$1" 2>/dev/null || { echo "$1: there is no folder ${1##*/}" >&2; return 1; }
    is_roots "${last%%:*}" "${last#*:}" || alone=
    return 0
  fi
  cd -P / || return
  way=${1#/}
  set -- "$1" $(stat -c "%u %A %d:%i" .)
  while :; do
    [ -n "${4-}" ] || return
    is_roots "$2" "$3" || alone=
    here=$4
    [ -n "$way" ] || return 0
    name=${way%%/*}
    case $way in */*) way=${way#*/};; *) way=;; esac
    [ -n "$name" ] || continue
    if [ -n "${made-}" ] && [ ! -e "./$name" ] && [ ! -L "./$name" ]; then
      mkdir -m 755 "./$name" || return
    fi
    cd -P "./$name" 2>/dev/null || { echo "$1: there is no folder $name" >&2; return 1; }
    set -- "$1" $(stat -c "%u %A %d:%i" . .. "../$name" 2>/dev/null)
    [ -n "${4-}" ] || return
    { [ "${7-}" = "$here" ] && [ "$4" = "${10-}" ]; } || own_link || {
      echo "$1: $name is a link, and others than root could have made it" >&2
      return 1
    }
  done
}
on_roots_way() {
  at= left=${1#/} last=$1
  set -- /
  while :; do
    case $left in */*) ;; *) break;; esac
    at=$at/${left%%/*} left=${left#*/}
    set -- "$@" "$at"
  done
  count=$#
  set -- $(stat -c %u:%A "$@" "$last" 2>/dev/null)
  while [ "$count" -gt 0 ]; do
    is_roots "${1%%:*}" "${1#*:}" || return
    shift
    count=$((count - 1))
  done
  last=${1-}
  case $last in '' | *:d*) ;; *) return 1;; esac
}
own_link() {
  [ -n "$alone" ] || return
  up=. top=$(stat -c %d:%i /) || return
  until [ "$(stat -c %d:%i $up)" = "$top" ]; do
    up=$up/..
    is_roots $(stat -c "%u %A" $up) || return
  done
}
# Root's first group may be another one.
is_root_group() { [ -G "$1" ] && [ -G /proc/1 ]; }
folder() (
  made=yes walk "$1" || exit 1
  # A mode in numbers alone leaves these two bits of a folder.
  { [ ! -u . ] && [ ! -g . ]; } || chmod ug-s . || exit
  chmod "$3" . || exit
  { [ "$2" = root:root ] && is_root_group . && [ -O . ]; } || chown "$2" .
)
as() {
  as=$1
  shift
  if [ "$(id -un)" = "$as" ]; then
    "$@"
  else
    setpriv --reuid "$as" --regid "$as" --init-groups "$@"
  fi </dev/null >/dev/null 9>&-
}
owner() {
  seconds=$1
  shift
  as=$(stat -c "%u %g" .) || return
  if [ "${as% *}" != "$me" ]; then
    as="setpriv --reuid ${as% *} --regid ${as#* } --clear-groups"
  elif [ -n "$alone" ] || [ "$me" != 0 ]; then
    as=
  else
    echo "$(pwd -P) is root's, but others can change it, or the way to it" >&2
    return 1
  fi
  timeout -k 2 "$seconds" $as "$@" </dev/null 9>&-
}
gone() {
  for gone; do
    [ -e "${gone%/*}/." ] || continue
    (walk "${gone%/*}" && rm -rf "./${gone##*/}") || return
  done
}
empty() (
  walk "${1%/*}" && rmdir "./${1##*/}"
) 2>/dev/null
"""


def in_folder(folder: str, commands: str) -> str:
    """A shell command, after :data:`FUNCTIONS`: ``commands`` with ``folder`` as the current folder.
    They name only what is directly in it, as ``./NAME``."""
    return f"( walk {shlex.quote(folder)} || exit 1\n{commands} )"


def as_user(user: str, command: str) -> str:
    """A shell command, after :data:`FUNCTIONS`, that runs the simple command ``command`` as
    ``user``."""
    return f"as {shlex.quote(user)} {command}"


def become(user: str) -> str:
    """The start of a simple command that runs as ``user``. It does not get the batch's lock.

    ``setpriv``, unlike ``runuser``, becomes the command, so a signal reaches the command itself.
    """
    name = shlex.quote(user)
    return f"9>&- setpriv --reuid {name} --regid {name} --init-groups"


def become_or_nobody(user: str) -> str:
    """Shell lines that set ``as`` for ``9>&- $as COMMAND``, which runs as ``user``. Before this
    user is made, it runs as nobody. A login other than root stays itself."""
    name = shlex.quote(user)
    return (
        f"u=$(id -u {name} 2>/dev/null) && g=$(id -g {name}) && as=--init-groups || "
        f"{{ u={_NOBODY} g={_NOBODY} as=--clear-groups; }}\n"
        '[ "$(id -u)" != 0 ] && as= || as="setpriv --reuid $u --regid $g $as"'
    )


def as_owner(folder: str, script: str, *, seconds: int = 60) -> str:
    """A shell command, after :data:`FUNCTIONS`, that runs ``script`` in ``folder`` as the folder's
    owner, for at most ``seconds``. It does nothing when there is no ``folder``.

    The script names what is in the folder as ``./NAME``. Its output goes where the command's goes;
    its standard input is empty, and it does not get the batch's lock.
    """
    q = shlex.quote
    run = in_folder(folder, f"owner {seconds} sh -c {q(script)}")
    return f"[ ! -e {q(folder)} ] && [ ! -L {q(folder)} ] || {run}"


def is_called(command: str) -> bool:
    """Whether a shell command may call one of :data:`FUNCTIONS`."""
    return re.search(r"\b(is_roots|walk|folder|as|owner|gone|empty) ", command) is not None


def proven(command: str) -> str:
    """The start of a shell command that runs ``command`` within the facts script: where it is to
    become another user, the host says before whether it can."""
    return "becomes; " if re.search(r"\b(setpriv|owner|as) ", command) else ""
