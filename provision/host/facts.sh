# Facts about a host, for any systemd Linux: needs a POSIX shell, coreutils, findutils and procfs.
# Changes nothing. Prefers what the shell itself can do: each process costs a slow host milliseconds.
# The lines it prints are read by provision/host/observe.py, which puts its own calls of
# these functions behind this text.
STATE=/run/alluxio-provision
echo @@here # before anything that may take its time: a host that hangs is known by its silence
if [ -e "$STATE/batch.lock" ] && command -v flock >/dev/null; then
  exec 9<"$STATE/batch.lock"; flock -s -w 90 9 || echo "a batch still runs here" >&2
  exec 9<&-
fi
echo @@begin
listeners() {
  hex=
  for port in "$@"; do hex="$hex${hex:+|}$(printf %04X "$port")"; done
  # In these tables 0A is LISTEN; five fields further on is the socket's inode.
  found=$(sed -nE "s/^ *[0-9]+: [0-9A-F]+:($hex) [0-9A-F:]+ 0A( +[^ ]+){5} +([0-9]+) .*/\1=\3/p" \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null)
  [ -n "$found" ] || return 0
  set --
  for pair in $found; do set -- "$@" -o -lname "socket:\[${pair#*=}\]"; done
  shift
  owners=
  while read -r fd socket; do
    pid=${fd#/proc/}
    owners="$owners $socket=${pid%%/*}"
  done <<EOF
$(find /proc/[0-9]*/fd \( "$@" \) -printf '%p %l\n' 2>/dev/null)
EOF
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
disk() {
  d=$1
  while [ ! -d "$d" ]; do d=${d%/*} d=${d:-/}; done
  df -PT -B1 "$d" | {
    read -r _
    read -r dev kind total used avail _
    echo "disk $1|$dev|$kind|$total|$avail"
  }
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
echo "fact arch=$(uname -m)"
read -r line </proc/sys/kernel/hostname
echo "fact hostname=$line"
line=
{ read -r line </etc/machine-id; } 2>/dev/null
echo "fact machine_id=$line"
if [ -d /run/systemd/system ]; then
  read -r _ version _ <<EOF
$(systemctl --version)
EOF
  echo "fact systemd=${version%%[!0-9]*}"
fi
echo "fact clock=$(date +%s.%N)"
echo "fact uid=$(id -u)"
while read -r k v _; do [ "$k" = MemTotal: ] && echo "fact memory=$((v * 1024))" && break; done </proc/meminfo
for a in $(hostname -I 2>/dev/null); do echo "address $a"; done
for p in "$STATE"/restart.*; do [ -e "$p" ] && echo "pending ${p##*/restart.}"; done
