# Facts about a host, for any systemd Linux: needs a POSIX shell, coreutils, findutils, sed and procfs.
# Changes nothing. Prefers what the shell itself can do: each process costs a slow host milliseconds.
# The lines it prints are read by provision/host/facts.py, which puts its own calls of
# these functions behind this text.
STATE=/run/alluxio-provision
echo @@here # before anything that may take its time: a host that hangs is known by its silence
if [ -e "$STATE/batch.lock" ] && command -v flock >/dev/null; then
  exec 9<"$STATE/batch.lock"; flock -s -w 90 9 || echo "a batch still runs here" >&2
  exec 9<&-
fi
echo @@begin
pids=
sockets() {
  where=$1
  shift
  while read -r fd socket; do
    pid=${fd#/proc/}
    owners="$owners $socket=${pid%%/*}"
  done <<EOF
$(find $where \( "$@" \) -printf '%p %l\n' 2>/dev/null)
EOF
}
listeners() {
  found=
  # In these tables 0A is LISTEN; five fields further on is the socket's inode. Those that listen
  # come first: byte by byte (-u), the kernel does not look for the connections after them.
  for port in "$@"; do
    hex=$(printf %04X "$port")
    for table in /proc/net/tcp6 /proc/net/tcp; do
      inode=$(sed -unE "1d; /^ *[0-9]+: [0-9A-F]+:$hex [0-9A-F:]+ 0A( +[^ ]+){5} +([0-9]+) .*/{
        s//\2/p; q
        }; / 0A /!q" $table 2>/dev/null)
      [ -z "$inode" ] || { found="$found $hex=$inode"; break; }
    done
  done
  [ -n "$found" ] || return 0
  set --
  for pair in $found; do set -- "$@" -o -lname "socket:\[${pair#*=}\]"; done
  shift
  # The units' own processes first: those of a whole host may be thousands.
  owners=
  [ -z "$pids" ] || sockets "$pids" "$@"
  for pair in $found; do
    case $owners in *" socket:[${pair#*=}]="*) ;; *) sockets '/proc/[0-9]*/fd' "$@"; break;; esac
  done
  for pair in $found; do
    pid=0 name=
    case $owners in *" socket:[${pair#*=}]="*)
      pid=${owners#*" socket:[${pair#*=}]="}
      pid=${pid%% *}
      { read -r name </proc/"$pid"/comm; } 2>/dev/null
    esac
    printf 'listen %d %s %s\n' "$((0x${pair%=*}))" "$pid" "${name:-unknown}"
  done
}
units() {
  while IFS= read -r line; do
    printf 'unit %s\n' "$line"
    case $line in MainPID=[1-9]*) pids="$pids /proc/${line#MainPID=}/fd";; esac
  done <<EOF
$(systemctl show -p Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,FragmentPath,NeedDaemonReload "$@")
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
  # Names are parted by newlines alone: one process for all folders.
  [ -z "$on" ] || known="$known$(IFS='
'; exec find / $on -maxdepth 0 -printf 'way %p|%y|%U %G|%m\n' 2>/dev/null)
"
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
  seen=$(find "$@" -maxdepth 0 -printf 'stat %p|%y|%u|%g|%m|%s\n' 2>/dev/null)
  ways "$@"
  printf %s "${known#?}"
  [ -n "$seen" ] || return 0
  echo "$seen"
  set --
  alone=
  while read -r _ file; do
    path=${file%|*|*|*|*|*}
    shape=${file#"$path|"}
    size=${file##*|}
    to=
    case $shape in
      "l|"*)
        target=$(readlink -- "$path")
        case $target in *"
"*) target='?';; esac
        printf 'link %s|%s\n' "$path" "$target"
    esac
    case $wanted in *"
$path
"*) ;; *) continue;; esac
    case $shape in
      "l|"*) to=$(readlink -f -- "$path") || continue; [ -f "$to" ] || continue;;
      "f|"*) [ "$size" -le 262144 ] || continue;;
      *) continue;;
    esac
    [ -z "$to" ] || ways "$to"
    reader "$path"
    [ -n "$who" ] || [ -z "$to" ] || reader "$to"
    case $who$to:$shape in
      ":f|root|"* | ":f|$name|"*) echo "size $path|$size"; set -- "$@" "$path";;
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
    by head -c 262145 -- "$path" | base64 -w0
    echo
  done <<EOF
$alone
EOF
}
stream() {
  [ $# -gt 0 ] || return 0
  printf 'data '
  cat -- "$@" | base64 -w0
  echo
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
  # Names are parted by newlines alone: one process for all disks.
  while read -r dev kind total avail rest; do
    for d in "$@"; do
      climb "$d"
      # The mount point, then the name that was asked for, in columns.
      case $rest in *" $near") ;; *) continue;; esac
      mount=${rest%"$near"}
      echo "disk $d|$dev|$kind|$total|$avail|${mount%"${mount##*[! ]}"}"
    done
  done <<EOF
$(IFS='
'; exec df -B1 --output=source,fstype,size,avail,target,file $names)
EOF
}
addresses() { for a in $(hostname -I 2>/dev/null); do echo "address $a"; done; }
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
[ -r /etc/os-release ] && . /etc/os-release
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
echo "fact clock=$(date +%s.%N)"
while read -r k _ v _; do [ "$k" = Uid: ] && echo "fact uid=$v" && break; done </proc/self/status
me=$v name=root
[ "$me" = 0 ] || name=$(id -un)
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
