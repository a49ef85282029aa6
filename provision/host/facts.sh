# Facts about a host, for any systemd Linux: needs a POSIX shell, coreutils, findutils and procfs.
# Changes nothing. The lines it prints are read by provision/host/observe.py, which puts its own
# calls of these functions behind this text.
STATE=/run/alluxio-provision
if [ -e "$STATE/batch.lock" ] && command -v flock >/dev/null; then
  exec 9<"$STATE/batch.lock"; flock -s -w 90 9 || echo "a batch still runs here" >&2
  exec 9<&-
fi
echo @@begin
listeners() {
  inodes=''
  for port in "$@"; do
    hex=$(printf %04X "$port")
    while read -r _ local _ state _ _ _ _ _ inode _; do
      case "$state $local" in "0A "*":$hex") inodes="$inodes $inode=$port";; esac
    done <<EOF
$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
EOF
  done
  [ -n "$inodes" ] || return 0
  set --
  for pair in $inodes; do set -- "$@" -o -lname "socket:\[${pair%=*}\]"; done
  shift
  found=$(find /proc/[0-9]*/fd \( "$@" \) -printf '%p %l\n' 2>/dev/null)
  for pair in $inodes; do
    pid=$(echo "$found" | sed -n "s|^/proc/\([0-9]*\)/.*\[${pair%=*}\]$|\1|p" | head -n 1)
    name=$(cat /proc/"${pid:-0}"/comm 2>/dev/null)
    echo "listen ${pair#*=} ${pid:-0} ${name:-unknown}"
  done
}
disk() {
  d=$1
  while [ ! -d "$d" ]; do d=$(dirname "$d"); done
  df -PT -B1 "$d" | tail -n 1 | while read -r dev kind total used avail _; do
    echo "disk $1|$dev|$kind|$total|$avail"
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
. /etc/os-release 2>/dev/null
echo "fact os=${ID:-unknown} ${VERSION_ID:-}"
echo "fact arch=$(uname -m)"
echo "fact hostname=$(cat /proc/sys/kernel/hostname)"
echo "fact machine_id=$(cat /etc/machine-id 2>/dev/null)"
[ -d /run/systemd/system ] && echo "fact systemd=$(systemctl --version | sed -n '1s/[^ ]* \([0-9]*\).*/\1/p')"
echo "fact clock=$(date +%s.%N)"
echo "fact uid=$(id -u)"
while read -r k v _; do [ "$k" = MemTotal: ] && echo "fact memory=$((v * 1024))" && break; done </proc/meminfo
for a in $(hostname -I 2>/dev/null); do echo "address $a"; done
for p in "$STATE"/restart.*; do [ -e "$p" ] && echo "pending ${p##*/restart.}"; done
