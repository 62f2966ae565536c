#!/bin/bash
#
# Installs what mdserver needs around it: the system user, the configuration, the folders, the
# systemd units, the libvirt hook and the log rotation. It runs from a source checkout after
# `npm run build` and from the installed npm package alike.
#
#   PREFIX             put before all paths; then no user is made and systemd is left alone
#   MDS_DNSMASQ_USER   the user of mdserver and its dnsmasq in a new mdserver.conf (mdserver)
#   MDS_DATA_DIR       the data folder in a new mdserver.conf (/var/lib/mdserver)
#
# mdserver.conf rules: once there is one, the user and the paths are what stands in it.
#
# Run again it changes nothing that was changed by hand. The files it installs carry a checksum: one
# that still matches is replaced, any other stays and gets the new file put beside it as FILE.new.
# What the Python md_server installed is replaced, and kept as FILE.md_server.

set -euo pipefail
umask 022
# For the order of *.conf, and so that ranges in patterns are those of ASCII.
export LC_ALL=C

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
prefix=${PREFIX:-}
prefix=${prefix%/}
new_user=${MDS_DNSMASQ_USER:-mdserver}
new_data=${MDS_DATA_DIR:-/var/lib/mdserver}

say() { printf '%s\n' "$*"; }
warn() { printf 'system-integration: %s\n' "$*" >&2; }
fail() {
  warn "$*"
  exit 1
}

[[ $new_user =~ ^[a-z_][a-z0-9_-]*$ ]] || fail "MDS_DNSMASQ_USER is '$new_user', which is no user name"
[[ $new_data =~ ^/[A-Za-z0-9._/-]+$ ]] ||
  fail "MDS_DATA_DIR is '$new_data': it has to be an absolute path of letters, digits and . _ -"

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# --- the configuration -------------------------------------------------------------------------

# SECTION KEY VALUE FILE: puts the value in a configuration that only has defaults, in the place of
# the comment that shows the default.
set_value() {
  awk -v section="$1" -v key="$2" -v value="$3" '
    { line[NR] = $0 }
    /^\[/ { current = $0; gsub(/^\[|\].*$/, "", current); if (current == section) header = NR }
    current == section && $0 ~ "^[#; \t]*" key "[ \t]*[=:]" && !place { place = NR }
    END {
      for (number = 1; number <= NR; number++) {
        if (number != place) print line[number]
        if (number == (place ? place : header)) print key " = " value
      }
      if (!header) print "\n[" section "]\n" key " = " value
    }' "$4" >"$4.set"
  mv -- "$4.set" "$4"
}

fresh=$work/mdserver.conf
cp -- "$here/etc/mdserver/mdserver.conf" "$fresh"
if [ "$new_user" != mdserver ]; then set_value dnsmasq user "$new_user" "$fresh"; fi
if [ "$new_data" != /var/lib/mdserver ]; then
  set_value mdserver db_file "$new_data/db_file.json" "$fresh"
  set_value dnsmasq base_dir "$new_data/dnsmasq" "$fresh"
fi

configuration=$prefix/etc/mdserver/mdserver.conf
if [ -e "$configuration" ]; then files=("$configuration"); else files=("$fresh"); fi

# SECTION KEY DEFAULT: the value as mdserver reads it from these files, the last one winning.
configured() {
  local found
  found=$(awk -v section="$1" -v key="$2" '
    function trim(text) { gsub(/^[ \t]+|[ \t]+$/, "", text); return text }
    FNR == 1 { current = ""; open = 0; sub(/^\357\273\277/, "") }
    { sub(/\r$/, "") }
    /^[ \t]*([#;]|$)/ { next }
    { match($0, /^[ \t]*/) }
    open && RLENGTH > indent { if (wanted) value = trim(value " " trim($0)); next }
    { indent = RLENGTH }
    /^[ \t]*\[/ { current = trim($0); gsub(/^\[|\].*$/, "", current); open = 0; next }
    {
      at = match($0, /[=:]/)
      open = 1
      wanted = at && current == section && tolower(trim(substr($0, 1, at - 1))) == key
      if (wanted) value = trim(substr($0, at + 1))
    }
    END { gsub(/%%/, "%", value); print value }' "${files[@]}")
  printf '%s\n' "${found:-$3}"
}

IFS=: read -r -a include_directories <<<"$(configured _include_ directories '')"
IFS=: read -r -a include_files <<<"$(configured _include_ files '')"
for directory in "${include_directories[@]}"; do
  for file in "$prefix$directory"/*.conf; do
    if [ -f "$file" ]; then files+=("$file"); fi
  done
done
for file in "${include_files[@]}"; do
  if [ -n "$file" ] && [ -f "$prefix$file" ]; then files+=("$prefix$file"); fi
done

# Units have a quoting of their own: what would need it is refused.
configured_path() {
  local path
  path=$(configured "$@")
  [[ $path =~ ^/[A-Za-z0-9._/-]+$ ]] ||
    fail "$configuration: $1.$2 is '$path': the units need an absolute path of letters, digits and . _ -"
  printf '%s\n' "$path"
}

user=$(configured dnsmasq user mdserver)
[[ $user =~ ^[a-z_][a-z0-9_-]*$ ]] || fail "$configuration: dnsmasq.user is '$user', which is no user name"
network=$(configured dnsmasq net_name mds)
[[ $network =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] ||
  fail "$configuration: dnsmasq.net_name is '$network': it has to be of letters, digits and . _ -"
database=$(configured_path mdserver db_file /var/lib/mdserver/db_file.json)
log=$(configured_path mdserver logfile /var/log/mdserver.log)
userdata=$(configured_path mdserver userdata_dir /etc/mdserver/userdata)
base=$(configured_path dnsmasq base_dir /var/lib/mdserver/dnsmasq)
run=$(configured_path dnsmasq run_dir /var/run/mdserver)
socket=$(configured_path mdserver control_socket "$run/control.sock")
data=$(dirname -- "$database")

if [ -n "${MDS_DNSMASQ_USER:-}" ] && [ "$user" != "$new_user" ]; then
  warn "$configuration says dnsmasq.user = $user, so that is used and not MDS_DNSMASQ_USER"
fi
if [ -n "${MDS_DATA_DIR:-}" ] && [ "$data" != "${new_data%/}" ]; then
  warn "$configuration says mdserver.db_file = $database, so that is used and not MDS_DATA_DIR"
fi

# Where the hook posts to: the first IPv4 address, else the first IPv6 one.
upload_url() {
  local item items ipv4='' ipv6='' host port
  port=$(configured mdserver port 80)
  [[ $port =~ ^[0-9]{1,5}$ ]] || fail "$configuration: mdserver.port is '$port', which is no port"
  IFS=', ' read -r -a items <<<"$(configured mdserver listen_address 169.254.169.254)"
  for item in "${items[@]}"; do
    item=${item#[}
    item=${item%]}
    if [[ $item =~ ^[0-9]+(\.[0-9]+){3}$ ]]; then
      ipv4=${ipv4:-$item}
    elif [[ $item =~ ^[0-9A-Fa-f:.]+$ && $item == *:* ]]; then
      ipv6=${ipv6:-$item}
    elif [ -n "$item" ]; then
      fail "$configuration: mdserver.listen_address has '$item', which is no address"
    fi
  done
  # "Any address" is one to listen on, not one to connect to.
  if [ "$ipv4" = 0.0.0.0 ]; then ipv4=127.0.0.1; fi
  if [ "$ipv6" = :: ]; then ipv6=::1; fi
  host=${ipv4:-${ipv6:+[$ipv6]}}
  [ -n "$host" ] || fail "$configuration: mdserver.listen_address has no address"
  printf 'http://%s:%s/instance-upload\n' "$host" "$port"
}
url=$(upload_url)

# --- the programs ------------------------------------------------------------------------------

hook_source=$here/dist/hooks/qemu.js
[ -f "$hook_source" ] || fail "$hook_source is not there: run 'npm run build' first"
[ "$(grep -cE "^const (uploadUrl|controlSocket) = '[^']*';\$" "$hook_source")" = 2 ] ||
  fail "$hook_source has no line to put the address in: run 'npm run build' again"

node=$(command -v node) || fail "node is not in PATH: install Node 20 or newer, or put it there"
[[ $node =~ ^/[A-Za-z0-9._/+-]+$ ]] || fail "node is '$node': it has to be a plain absolute path"
case $node in
  /usr/local/bin/node | /usr/bin/node | /bin/node) ;;
  *) warn "node is $node: the units look for it in /usr/local/bin and /usr/bin only" ;;
esac

program=/usr/local/bin/mdserver
if [ ! -e "$prefix$program" ]; then
  if [ -e "$prefix/usr/bin/mdserver" ]; then
    program=/usr/bin/mdserver
  elif [ -z "$prefix" ]; then
    program=$(command -v mdserver) || program=/usr/local/bin/mdserver
    [[ $program =~ ^/[A-Za-z0-9._/+-]+$ ]] || fail "mdserver is '$program': it has to be a plain absolute path"
  fi
fi

if [ -z "$prefix" ] && [ ! -x /usr/sbin/dnsmasq ]; then
  warn "there is no /usr/sbin/dnsmasq: install dnsmasq (only the program, not a service of its own)"
fi

# --- the user ----------------------------------------------------------------------------------

if [ -z "$prefix" ] && ! id -u -- "$user" >/dev/null 2>&1; then
  shell=$(PATH=$PATH:/usr/sbin:/sbin command -v nologin) || shell=/bin/false
  if PATH=$PATH:/usr/sbin:/sbin useradd -r -U -d "$data" -s "$shell" -- "$user"; then
    say "made the system user $user"
  else
    warn "could not make the system user $user: make it and run this again"
  fi
fi

# Without the user, or without being root, files belong to whoever runs this.
group=''
if [ "$(id -u)" != 0 ]; then
  warn "not run as root: nothing is given to the user $user"
elif ! group=$(id -g -n -- "$user" 2>/dev/null); then
  group=''
  warn "there is no user $user: everything stays with root"
fi
unit_group=${group:-$user}

# --- files and folders -------------------------------------------------------------------------

exists() { [ -e "$1" ] || [ -L "$1" ]; }

# DIRECTORY MODE OWNER: makes the folder if there is none. OWNER is "user" for the user's, "group"
# for one of root's that the user's group may look into, "root" for any other.
make_directory() {
  if exists "$1"; then return; fi
  local owner=()
  if [ -n "$group" ]; then
    case $3 in
      user) owner=(-o "$user" -g "$group") ;;
      group) owner=(-g "$group") ;;
    esac
  fi
  install -d -m "$2" "${owner[@]}" -- "$1"
  say "made $1"
}

# SOURCE TARGET MODE [GROUP]: puts the file in its place in one step, unless it is there as it is.
put() {
  if [ ! -L "$2" ] && cmp -s -- "$1" "$2"; then return; fi
  local temporary
  temporary=$(mktemp -- "$(dirname -- "$2")/.$(basename -- "$2").XXXXXX")
  cat -- "$1" >"$temporary"
  if [ -n "${4:-}" ]; then chgrp -- "$4" "$temporary"; fi
  chmod "$3" "$temporary"
  mv -f -T -- "$temporary" "$2"
  say "installed $2"
}

mark="Installed by mdserver's system-integration.sh, which replaces it unless it was edited; sha256 "

# The checksum of a file without the line that holds it.
checksum() { sed "/$mark/d" "$1" | sha256sum | cut -d ' ' -f 1; }

marked() { grep -q -- "$mark" "$1"; }

# A file of ours that nobody has edited.
untouched() { marked "$1" && grep -q -- "$mark$(checksum "$1")" "$1"; }

python_unit() {
  grep -Eq '^ExecStart=.*(/mdserver |dnsmasq .*--conf-file[= ].*mds\.conf)' "$1" &&
    ! grep -q '^Type=notify' "$1" && ! marked "$1"
}

python_hook() {
  [ ! -L "$1" ] && head -n 1 "$1" | grep -Eq '^#!.*sh' && grep -q instance-upload "$1" &&
    grep -Eq '/etc/default/mdserver|qemu-hook' "$1"
}

never() { false; }

# TARGET: a copy of what the Python md_server installed, which nothing runs.
keep_python() {
  cp --backup=numbered -- "$1" "$1.md_server"
  chmod 0644 "$1.md_server"
  say "kept the Python md_server's $1 as $1.md_server"
}

# SOURCE TARGET MODE COMMENT LINE PYTHON: installs a file of ours, with its mark as the given line.
# PYTHON is a command that knows the file that the Python md_server installed.
install_ours() {
  local source=$1 target=$2 mode=$3 comment=$4 line=$5 python=$6 rendered=$work/rendered
  sed "${line}i $comment $mark$(checksum "$source")" "$source" >"$rendered"
  if exists "$target"; then
    if cmp -s -- "$rendered" "$target"; then return; fi
    if [ -L "$target" ] || ! untouched "$target"; then
      if "$python" "$target"; then
        keep_python "$target"
      else
        put "$rendered" "$target.new" 0644
        say "$target was not installed by this script, or was edited: it stays, the new one is $target.new"
        return
      fi
    fi
  fi
  put "$rendered" "$target" "$mode"
}

make_directory "$prefix/etc/mdserver" 0750 group
for directory in "${include_directories[@]}"; do
  case $directory in
    /etc/mdserver/?*) make_directory "$prefix$directory" 0750 group ;;
  esac
done
make_directory "$prefix$userdata" 0750 group

if ! exists "$configuration"; then
  put "$fresh" "$configuration" 0640 "$group"
elif ! cmp -s -- "$fresh" "$configuration"; then
  put "$fresh" "$configuration.new" 0640 "$group"
  say "$configuration stays as it is; the one of this version is $configuration.new"
fi

# What mdserver writes. Folders that somebody chose are not given away without being asked.
own() {
  if [ -n "$group" ] && [ ! -L "$1" ] && [ "$(stat -c %U -- "$1")" != "$user" ]; then
    chown -h -- "$user:$group" "$1"
    say "gave $1 to $user"
  fi
}
data_directory() {
  make_directory "$prefix$1" 0755 user
  case $1/ in
    /var/lib/mdserver/* | "${new_data%/}"/*) own "$prefix$1" ;;
    *)
      if [ -n "$group" ] && [ "$(stat -L -c %U -- "$prefix$1")" != "$user" ]; then
        warn "$prefix$1 belongs to another user: $user has to be able to write in it"
      fi
      ;;
  esac
}
data_directory "$data"
data_directory "$base"
case $run in
  /run/?*) runtime_directory=${run#/run/} ;;
  /var/run/?*) runtime_directory=${run#/var/run/} ;;
  *)
    runtime_directory=''
    data_directory "$run"
    ;;
esac

# The Python md_server ran as root, and its files are root's.
for file in "$prefix$database" "$prefix$base"/{dhcp,dns} "$prefix$base"/{dhcp,dns}/* \
  "$prefix$base/$network".{conf,opts}; do
  if [ -f "$file" ] || [ -d "$file" ]; then own "$file"; fi
done
log_directory=$(dirname -- "$log")
# Beside mdserver's own, which looks for it there: mdserver-dnsmasq.log.
log_name=$(basename -- "$log")
case $log_name in
  ?*.*) dnsmasq_log=$log_directory/${log_name%.*}-dnsmasq.${log_name##*.} ;;
  *) dnsmasq_log=$log-dnsmasq ;;
esac
# /dev/null and /dev/stdout are nobody's to make, to give away or to rotate.
if [ "$log_directory" != /dev ]; then
  make_directory "$prefix$log_directory" 0755 root
  for file in "$log" "$dnsmasq_log"; do
    if ! exists "$prefix$file"; then
      : >"$prefix$file"
      chmod 0640 "$prefix$file"
      say "made $prefix$file"
    fi
    if [ -f "$prefix$file" ]; then own "$prefix$file"; fi
  done
fi

# --- units, log rotation, hook -----------------------------------------------------------------

# Only where something of the configuration is in a home do the units open the homes, for reading.
protect_home=yes
template=$(configured mdserver default_template '')
for path in "$data" "$userdata" "$base" "$run" "$log_directory" "$template" \
  "${include_directories[@]}" "${include_files[@]}"; do
  case $path/ in
    /home/* | /root/* | /run/user/*) protect_home=read-only ;;
  esac
done

# FILE: the unit with what the configuration says.
fill_unit() {
  local runtime=(-e "s|^RuntimeDirectory=.*|RuntimeDirectory=$runtime_directory|") writable="-$data -$base -$log_directory"
  local dnsmasq_logs="s|--log-facility=[^ ]*|--log-facility=$dnsmasq_log|"
  if [ "$log_directory" = /dev ]; then dnsmasq_logs='s| --log-facility=[^ ]*||'; fi
  local state="s|^StateDirectory=.*|StateDirectory=${data#/var/lib/}|"
  case $data in
    /var/lib/?*) ;;
    *) state='/^StateDirectory=/d' ;;
  esac
  if [ -z "$runtime_directory" ]; then
    runtime=(-e '/^RuntimeDirectory/d')
    writable="$writable -$run"
  fi
  case $base in "$data"/*) writable=${writable/ -$base/} ;; esac
  writable=${writable/ -\/dev/}
  sed -e "s|^User=.*|User=$user|" -e "s|^Group=.*|Group=$unit_group|" \
    -e "s|^ExecStart=[^ ]*/mdserver |ExecStart=$program |" \
    -e "s|--conf-file=[^ ]*|--conf-file=$base/$network.conf|" \
    -e "s|^ReadWritePaths=-/var/log\$|ReadWritePaths=-$log_directory|" -e "$dnsmasq_logs" \
    -e "s|^ReadWritePaths=-/var/lib/.*|ReadWritePaths=$writable|" -e "$state" "${runtime[@]}" \
    -e "s|^ProtectHome=.*|ProtectHome=$protect_home|" "$1"
}

units=$prefix/etc/systemd/system
install -d -m 0755 -- "$units" "$prefix/etc/logrotate.d" "$prefix/etc/libvirt/hooks"
for unit in mdserver.service mdserver-dnsmasq.service; do
  fill_unit "$here/systemd/$unit" >"$work/$unit"
  install_ours "$work/$unit" "$units/$unit" 0644 '#' 1 python_unit
done
# The Python md_server's way to wait for dnsmasq's configuration.
path_unit=$units/mdserver-dnsmasq.path
if [ -f "$path_unit" ] && grep -q '^PartOf=mdserver.service' "$path_unit"; then
  keep_python "$path_unit"
  rm -- "$path_unit"
fi

if [ "$log_directory" != /dev ]; then
  sed -e "s|^/var/log/mdserver.log |$log |" -e "s|^/var/log/mdserver-dnsmasq.log |$dnsmasq_log |" \
    -e "s|create 0640 .*|create 0640 $user $unit_group|" \
    "$here/etc/logrotate/mdserver" >"$work/logrotate"
  install_ours "$work/logrotate" "$prefix/etc/logrotate.d/mdserver" 0644 '#' 1 never
fi

completions=$prefix/usr/local/share/bash-completion/completions
install -d -m 0755 -- "$completions"
install_ours "$here/etc/bash-completion/mdserverctl" "$completions/mdserverctl" 0644 '#' 1 never

# libvirt takes a hook that fails for a "no": a guest does not start, a running one is killed. So the
# hook is started by a shell that says "yes" even when this node is gone some day. The second line
# is a comment to JavaScript after its string, and all there is to the shell.
{
  printf '#!/bin/sh\n'
  # shellcheck disable=SC2016
  printf '%s %s %s\n' "':' //;" "$node" '"$0" "$@"; exit 0'
  sed -e 1d -e '/^\/\/# sourceMappingURL=/d' \
    -e "s|^const uploadUrl = '[^']*';\$|const uploadUrl = '$url';|" \
    -e "s|^const controlSocket = '[^']*';\$|const controlSocket = '$socket';|" "$hook_source"
} >"$work/qemu"
hooks=$prefix/etc/libvirt/hooks
hook=$hooks/qemu
if exists "$hook" && ! marked "$hook" 2>/dev/null && ! python_hook "$hook"; then
  hook=$hooks/qemu.d/mdserver
  install -d -m 0755 -- "$hooks/qemu.d"
  say "$hooks/qemu is not mdserver's and stays; mdserver's is $hook, which libvirt runs since 6.5"
elif ! exists "$hook" && exists "$hooks/qemu.d/mdserver"; then
  hook=$hooks/qemu.d/mdserver
fi
install_ours "$work/qemu" "$hook" 0755 '//' 3 python_hook

# --- what is left ------------------------------------------------------------------------------

# mdserver is not root: it has to be able to read what it is given.
if [ -n "$group" ]; then
  while IFS= read -r file; do
    warn "$user cannot read $file: chgrp $group '$file' && chmod g+r '$file'"
  done < <(find -L "${files[@]}" "$prefix$userdata" ! -path "$work/*" \
    ! \( -user "$user" -perm -u=r -o -group "$group" -perm -g=r -o -perm -o=r \) 2>/dev/null)
fi

if [ -z "$prefix" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
cat <<EOF

What to do next:
  - edit $configuration: at least a public key
  - unless libvirt has the network $network already:
      virsh net-define $here/etc/libvirt/mds-network.xml
      virsh net-autostart mds && virsh net-start mds
  - libvirt looks for hooks when it starts: systemctl restart libvirtd (or virtqemud)
  - systemctl daemon-reload
    systemctl enable mdserver && systemctl restart mdserver
EOF
