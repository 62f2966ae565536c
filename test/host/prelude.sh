# What comes before each script of steps.ts: it ends at the first command that fails, and says which.
set -euo pipefail
export LC_ALL=C SYSTEMD_PAGER= SYSTEMD_COLORS=0 DEBIAN_FRONTEND=noninteractive
trap 'echo "line $((LINENO - prelude)): $BASH_COMMAND" >&2' ERR

conf=/etc/mdserver/mdserver.conf
url=http://169.254.169.254

# WORDS: says what is wrong, and ends.
fail() {
  echo "$*" >&2
  trap - ERR
  exit 1
}

# WHAT VALUE EXPECTED
same() { [ "$2" = "$3" ] || fail "$1 is '$2', expected '$3'"; }

# SECONDS COMMAND ...: repeats the command until it succeeds.
within() {
  local end=$((SECONDS + $1)) output
  shift
  until output=$("$@" 2>&1); do
    [ "$SECONDS" -lt "$end" ] || fail "not in time: $*: ${output:-no output}"
    sleep 0.2
  done
}

# COMMAND ...: succeeds if the command fails.
fails() { ! "$@" >/dev/null 2>&1; }

state() { systemctl is-active "$1" || :; }
pid_of() { systemctl show -P MainPID "$1"; }

# UNIT PID: whether the unit runs with another main process.
runs_anew() { [ "$(state "$1")" = active ] && [ "$(pid_of "$1")" != "$2" ] && [ "$(pid_of "$1")" != 0 ]; }

serves() { curl -fsS -m 20 -o /dev/null "$url/"; }

# [OPTION ...]: what mdserver says of itself, with options of curl.
health() { curl -sS "$@" --unix-socket /run/mdserver/control.sock http://localhost/health; }

# [OPTION ...]: what mdserver has logged in the last minute.
logged() { journalctl -q -u mdserver -o cat --since -1min "$@"; }

# KEY: the property of mdserver.service.
property() { systemctl show -P "$1" mdserver; }

# The configuration as installed, whatever the last step has left.
fresh_conf() {
  [ -e /root/conf ] || cp -p "$conf" /root/conf
  cat /root/conf >"$conf"
}

# SECTION KEY VALUE: sets a value in mdserver.conf, in place of the old one or at the section's begin.
set_value() {
  sed -i "/^\[$1\]/,/^\[/ { /^$2 *=/d }; s|^\[$1\]\$|&\n$2 = $3|" "$conf"
  grep -q "^$2 = $3\$" "$conf" || printf '\n[%s]\n%s = %s\n' "$1" "$2" "$3" >>"$conf"
}

# NAME: its address in the guests' DNS; fails if it has none.
dns_address() { dig +short +time=1 +tries=1 @10.122.0.1 "$1" | grep -v '^;'; }

address_of() { mdserverctl show "$1" --json | sed -n 's/^ *"ipv4": "\(.*\)".*/\1/p'; }
mac_of() { virsh -q domiflist "$1" | awk '{ print $5 }'; }

# NAME NUMBER [NETWORK]: defines a domain of firmware only, whose interface is on the network.
define_domain() {
  # Of a step that failed, or another network's.
  virsh -q destroy "$1" >/dev/null 2>&1 || :
  virsh -q undefine "$1" >/dev/null 2>&1 || :
  virsh -q define /dev/stdin <<XML
<domain type='qemu'>
  <name>$1</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type><bios useserial='no'/></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='network'>
      <mac address='52:54:00:00:00:0$2'/><source network='${3:-mds}'/><model type='virtio'/><rom enabled='no'/>
    </interface>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
XML
}

# NAME [BRIDGE]: a namespace on the bridge with the domain's MAC, which asks for an address and then for
# its host name. Prints both.
boot_client() {
  # Of a step that failed.
  end_client "$1" 2>/dev/null || :
  ip netns add "$1"
  ip link add "c-$1" type veth peer name eth0 netns "$1" address "$(mac_of "$1")"
  ip link set "c-$1" master "${2:-br-mds}" up
  ip -n "$1" link set lo up
  ip -n "$1" link set eth0 up
  cat >/var/tmp/udhcpc-script <<'SCRIPT'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
set -- $staticroutes
if [ $# = 0 ]; then ip route add default via "${router%% *}"; fi
while [ $# -gt 1 ]; do
  if [ "$2" = 0.0.0.0 ]; then ip route add "$1" dev "$interface"; else ip route add "$1" via "$2"; fi
  shift 2
done
SCRIPT
  chmod 755 /var/tmp/udhcpc-script
  within "${lease_limit:-20}" ip netns exec "$1" udhcpc -f -n -q -t 3 -T 1 -O staticroutes -i eth0 -s /var/tmp/udhcpc-script
  ip -n "$1" -4 -o address show dev eth0 | awk '{ sub("/.*", "", $4); print $4 }'
  ip netns exec "$1" curl -fsS -m 10 "$url/latest/meta-data/hostname"
  echo
}

# NAME: removes what boot_client has made.
end_client() {
  ip link del "c-$1"
  ip netns del "$1"
}

# NAME [BRIDGE]: the domain gets its own address, and is told its own name.
check_client() {
  local answer
  answer=$(boot_client "$@" | paste -sd ' ')
  end_client "$1"
  same "what $1 is told" "$answer" "$(address_of "$1") $1"
}

prelude=$((LINENO + 1))
