# Facts about a host, for any systemd Linux: needs a POSIX shell, procfs, and the programs that are
# named after "needs" (of GNU, uutils or busybox), and setpriv of util-linux.
# Changes nothing. Prefers what the shell itself can do: each process costs a slow host milliseconds.
# The lines it prints are read by provision/host/facts.py, which puts its own calls of
# these functions behind this text.
STATE=/run/alluxio-provision
echo @@here # before anything that may take its time: a host that hangs is known by its silence
if [ -e "$STATE/batch.lock" ] && command -v flock >/dev/null; then
  exec 9<"$STATE/batch.lock"; timeout 90 flock -s 9 || echo "a batch still runs here" >&2
  exec 9<&-
fi
echo @@begin
# What is missing is said: a fact that could not be asked is unknown, and must not look like none.
needs() { # needs PROGRAM…
  for tool in "$@"; do command -v "$tool" >/dev/null || echo "lacks $tool"; done
}
tries() { # tries WHAT COMMAND…: the command works only where the program can do what is needed
  what=$1
  shift
  "$@" </dev/null >/dev/null 2>&1 || echo "lacks $what"
}
pids=
sockets() { # sockets FOLDERS: adds to $owners which process has a socket of $inodes
  # uutils 0.0.17 puts the socket into quotes.
  while read -r line; do
    case $line in
      /*) pid=${line#/proc/} pid=${pid%%/*};;
      *) line=${line##* } line=${line#\'} owners="$owners ${line%\'}=$pid";;
    esac
  done <<EOF
$(ls -ln $1 /dev/null 2>/dev/null | grep -E "^/proc/|-> '?socket:\[($inodes)\]'?\$")
EOF
}
listening() { # listening HEX TABLE: sets inode
  # In these tables 0A is LISTEN; five fields further on is the socket's inode. Those that listen
  # come first: byte by byte (-u), the kernel does not look for the connections after them.
  inode=$(sed -${buffer}nE "1d; /^ *[0-9]+: [0-9A-F]+:$1 [0-9A-F:]+ 0A( +[^ ]+){5} +([0-9]+) .*/{
    s//\2/p; q
    }; / 0A /!q" "$2" 2>/dev/null) && return 0
  [ -n "$buffer" ] && [ -r "$2" ] || return 0
  buffer= # this sed has no -u
  listening "$@"
}
listeners() {
  buffer=u
  # A service that crashes again and again may end between the look at the tables and the look at the
  # processes: then both are looked at again.
  for round in 1 2 3; do
    found= inodes= unseen=
    for port in "$@"; do
      hex=$(printf %04X "$port")
      for table in /proc/net/tcp6 /proc/net/tcp; do
        listening "$hex" $table
        [ -z "$inode" ] || { found="$found $hex=$inode" inodes="$inodes|$inode"; break; }
      done
    done
    [ -n "$found" ] || return 0
    inodes=${inodes#?}
    # The units' own processes first: those of a whole host may be thousands.
    owners=
    [ -z "$pids" ] || sockets "$pids"
    for pair in $found; do
      case $owners in *" socket:[${pair#*=}]="*) ;; *) sockets '/proc/[0-9]*/fd'; break;; esac
    done
    for pair in $found; do
      case $owners in *" socket:[${pair#*=}]="*) ;; *) unseen=yes;; esac
    done
    [ -n "$unseen" ] || break
  done
  for pair in $found; do
    pid=0 name=
    port=$((0x${pair%=*}))
    case $owners in *" socket:[${pair#*=}]="*)
      pid=${owners#*" socket:[${pair#*=}]="}
      pid=${pid%% *}
      { read -r name </proc/"$pid"/comm; } 2>/dev/null
      { while read -r line; do
        case $line in *.service) echo "serves $port ${line##*/}"; break;; esac
      done </proc/"$pid"/cgroup; } 2>/dev/null
    esac
    printf 'listen %d %s %s\n' "$port" "$pid" "${name:-unknown}"
  done
}
units() {
  shown=$(systemctl show -p Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,FragmentPath,NeedDaemonReload "$@") ||
    { # some releases end with an error after a complete answer
      for unit in "$@"; do
        case $shown in *"Id=$unit"*) ;; *) [ ! -d /run/systemd/system ] || echo "unasked systemd";; esac
      done
    }
  while IFS= read -r line; do
    printf 'unit %s\n' "$line"
    case $line in MainPID=[1-9]*) pids="$pids /proc/${line#MainPID=}/fd";; esac
  done <<EOF
$shown
EOF
}
# Below a folder in which a service's user can change names, root reads no file by its name: this
# user could put a link or a pipe there. There the user reads it. services USER… names the users,
# besides those of the units; ways FILE… looks at the folders on the way; reader FILE sets who
# ("UID GID"; empty: root).
known='
'
theirs=' '
services() {
  for user in "$@"; do
    user=$(id -u -- "$user" 2>/dev/null) || continue
    case $theirs in *" $user "*) ;; *) theirs="$theirs$user ";; esac
  done
}
ways() {
  on=
  for f in "$@"; do
    d=${f%/*}
    while [ -n "$d" ]; do
      case "$known$on
" in *"
$d
"* | *"
way $d|"*) break;; esac
      on="$on
$d"
      d=${d%/*}
    done
  done
  [ -n "$on" ] || return 0
  # Names are parted by newlines alone: one process for all folders.
  while IFS= read -r line; do
    [ -n "$line" ] || continue
    shape "$line"
    known="${known}way $name|$kind|$uid $gid|$mode
"
  done <<EOF
$(IFS='
'; exec stat -c "$format" -- / $on 2>/dev/null)
EOF
}
# shape LINE: sets what stat says of a file, with the letter that find has for its type.
format='%n|%A|%U|%G|%a|%s|%u|%g'
shape() {
  gid=${1##*|} name=${1%|*}
  uid=${name##*|} name=${name%|*}
  size=${name##*|} name=${name%|*}
  mode=${name##*|} name=${name%|*}
  group=${name##*|} name=${name%|*}
  owner=${name##*|} name=${name%|*}
  kind=${name##*|} name=${name%|*}
  case $kind in -*) kind=f;; *) kind=${kind%"${kind#?}"};; esac
  [ "$owner" != UNKNOWN ] || owner=$uid
  [ "$group" != UNKNOWN ] || group=$gid
}
reader() {
  who= at= left=${1#/}
  while :; do
    here=${known#*"
way ${at:-/}|"}
    [ "$here" != "$known" ] || return 0 # it is not there
    here=${here%%"
"*}
    owner=${here#*|} mode=${here##*|}
    owner=${owner%|*}
    if [ "${here%%|*}" = l ]; then # of root's own: what counts is where it leads
      set -- "$(readlink -f -- "$at")/$left"
      ways "$1"
      reader "$1"
      return 0
    fi
    case $left in */*) next=$at/${left%%/*} left=${left#*/};; *) next=;; esac
    case ${owner%% *} in
      0 | "$me")
        case $mode in
          *[2367])
            case $mode:$known in # in a folder with the sticky bit, names of root's own stay
              1???:*"
way $next|d|0 "* | 1???:*"
way $next|d|$me "*) ;;
              *) who=${who:-65534 65534};;
            esac
        esac;;
      *) case $theirs in *" ${owner%% *} "*) who=$owner;; esac;;
    esac
    [ -n "$next" ] || return 0
    at=$next
  done
}
by() { # by COMMAND…: as the user in $who
  if [ -z "$who" ] || [ "$me" != 0 ]; then
    "$@" </dev/null 2>/dev/null
  else
    timeout -k 1 10 setpriv --reuid "${who% *}" --regid "${who#* }" --clear-groups "$@" </dev/null 2>/dev/null
  fi
}
paths() {
  # $wanted: the files whose content is asked for, each between line ends. What is root's goes in one
  # stream, of which the sizes say what is whose. Nobody else can change these sizes meanwhile.
  seen=$(stat -c "$format" -- "$@" 2>/dev/null)
  ways "$@"
  printf %s "${known#?}"
  [ -n "$seen" ] || return 0
  set --
  alone=
  while IFS= read -r line; do
    shape "$line"
    path=$name long=$size
    printf 'stat %s|%s|%s|%s|%s|%s\n' "$path" "$kind" "$owner" "$group" "$mode" "$size"
    to= roots=
    case $kind in
      l)
        target=$(readlink -- "$path")
        case $target in *"
"*) target='?';; esac
        printf 'link %s|%s\n' "$path" "$target"
    esac
    case $wanted in *"
$path
"*) ;; *) continue;; esac
    case $kind in
      l) to=$(readlink -f -- "$path") || continue; [ -f "$to" ] || continue;;
      f) [ "$size" -le 262144 ] || continue; case $uid in 0 | "$me") roots=yes;; esac;;
      *) continue;;
    esac
    [ -z "$to" ] || ways "$to"
    reader "$path"
    [ -n "$who" ] || [ -z "$to" ] || reader "$to"
    case $who$to:$roots in
      :yes) echo "size $path|$long"; set -- "$@" "$path";;
      *) alone="$alone
$who|$path";;
    esac
  done <<EOF
$seen
EOF
  stream "$@"
  while IFS='|' read -r who path; do
    [ -n "$path" ] || continue
    printf 'file %s|' "$path"
    by head -c 262145 -- "$path" | encoded
  done <<EOF
$alone
EOF
}
encoded() { { base64 -w0 2>/dev/null || base64 | tr -d '\n'; }; echo; }
stream() {
  [ $# -gt 0 ] || return 0
  printf 'data '
  cat -- "$@" | encoded
}
hashes() {
  ways "$@"
  for f in "$@"; do
    [ -f "$f" ] || continue
    reader "$f"
    sum=$(by sha256sum -- "$f")
    sum=${sum%% *}
    case ${#sum} in 64) printf 'hash %s|%s\n' "$f" "$sum";; esac
  done
}
users() {
  while IFS= read -r line; do
    [ -z "$line" ] || printf 'user %s\n' "$line"
  done <<EOF
$(getent passwd "$@")
EOF
}
climb() { near=$1; while [ ! -d "$near" ]; do near=${near%/*} near=${near:-/}; done; }
disks() {
  names=
  for d in "$@"; do
    climb "$d"
    names="$names
$near"
  done
  # Names are parted by newlines alone: one process for all disks, with a line for each.
  found=$(IFS='
'; exec df -PTk $names) && { each "$found" "$@"; return 0; }
  tries 'df -T' df -PTk /
  for d in "$@"; do # one of them cannot be asked
    climb "$d"
    found=$(df -PTk "$near") && each "$found" "$d"
  done
}
each() { # each OUTPUT PATH…: the lines after the first, in the order of the paths
  lines=$1
  shift
  {
    read -r _
    while [ $# -gt 0 ] && read -r dev kind total _ avail _ mount; do
      echo "disk $1|$dev|$kind|$((total * 1024))|$((avail * 1024))|$mount"
      shift
    done
  } <<EOF
$lines
EOF
}
addresses() { # not every hostname has -I
  for a in $(hostname -I 2>/dev/null ||
    ip -o addr show scope global | sed -nE 's/.* inet6? ([^ /]+).*/\1/p'); do echo "address $a"; done
}
said() {
  left=65536 # characters of a command's output, by its own length
  while [ "$left" -gt 0 ] && { IFS= read -r line || [ -n "$line" ]; }; do
    printf 'said %s|%.65536s\n' "$1" "$line"
    left=$((left - ${#line} - 1))
  done
}
lookup() { a=$(getent ahosts "$1" | head -n 1); echo "resolved $1 ${a%% *}"; }
reach() {
  command -v bash >/dev/null || return 0
  e=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1) && return 0
  case $?:$e in
    *refused*) ;;
    124:*) echo "unreachable $1 $2 no answer in 3 s";;
    *) echo "unreachable $1 $2 $(echo "$e" | head -n 1 | sed 's/.*: //')";;
  esac
}
needs base64 cat date df getent grep head id ls readlink sed setpriv sha256sum stat systemctl timeout tr
[ ! -r /etc/os-release ] || . /etc/os-release
echo "fact os=${ID:-unknown} ${VERSION_ID:-}"
line= # the file is there from Linux 6.1 on
{ read -r line </proc/sys/kernel/arch; } 2>/dev/null || line=$(uname -m)
echo "fact arch=$line"
read -r line </proc/sys/kernel/hostname
echo "fact hostname=$line"
line=
{ read -r line </etc/machine-id; } 2>/dev/null
echo "fact machine_id=$line"
if [ -d /run/systemd/system ]; then
  # The name of systemd's own library has its version, without a process.
  for version in /usr/lib/systemd /usr/lib/*/systemd /lib/systemd; do
    for version in "$version"/libsystemd-shared-[0-9]*.so; do [ ! -e "$version" ] || break 2; done
  done
  if [ -e "$version" ]; then
    version=${version##*/libsystemd-shared-}
  else
    read -r _ version _ <<EOF
$(systemctl --version)
EOF
  fi
  echo "fact systemd=${version%%[!0-9]*}"
fi
clock=$(date +%s.%N)
case $clock in *.*[!0-9]*) clock=${clock%%.*};; esac # whole seconds: what %N is stays unknown
echo "fact clock=$clock"
while read -r k _ v _; do [ "$k" = Uid: ] && echo "fact uid=$v" && break; done </proc/self/status
me=$v
set -- timeout -k 1 9 setpriv --reuid 0 --regid 0 --clear-groups stat -c %A /
[ "$me" = 0 ] || shift 10 # only root becomes another user
"$@" >/dev/null 2>&1 || { # one process in place of three
  tries 'stat -c' stat -c %A /
  tries 'timeout -k' timeout -k 1 9 stat /
  [ "$me" != 0 ] || tries 'setpriv --reuid' setpriv --reuid 0 --regid 0 --clear-groups stat /
}
while read -r k v _; do [ "$k" = MemTotal: ] && echo "fact memory=$((v * 1024))" && break; done </proc/meminfo
line=
[ ! -f /var/lib/alluxio-provision/tool-version ] || { read -r line </var/lib/alluxio-provision/tool-version; } 2>/dev/null
[ -z "$line" ] || printf 'fact tool=%.64s\n' "$line"
for unit in etcd alluxio-worker alluxio-master; do
  [ -f "/etc/systemd/system/$unit.service" ] || continue
  while read -r line; do
    case $line in User=*) services "${line#User=}"; break;; esac
  done <"/etc/systemd/system/$unit.service"
done
for p in "$STATE"/restart.*; do [ -e "$p" ] && echo "pending ${p##*/restart.}"; done
