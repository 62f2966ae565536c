#!/bin/bash
#
# Sets up the host for mdserver: the system user, the configuration, the folders, the systemd units,
# the libvirt hook and the log rotation. Run it from the installed npm package, or from a source
# checkout after `npm ci` and `npm run build`.
#
#   PREFIX             put before all paths; no user is created, and systemd is not reloaded
#   MDS_DNSMASQ_USER   the user of mdserver and its dnsmasq in a new mdserver.conf (mdserver)
#   MDS_DATA_DIR       the data folder in a new mdserver.conf (/var/lib/mdserver)
#
# If there is a mdserver.conf, it determines the user and the paths.
#
# Running it again keeps what you have changed. The files it installs contain a checksum: a file
# that still matches is replaced; any other is kept, and the new one is installed as FILE.new.
# Files of the Python md_server are replaced, and kept as FILE.md_server.

set -euo pipefail
umask 022
# Ranges in patterns are those of ASCII.
export LC_ALL=C

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
prefix=${PREFIX:-}
prefix=${prefix%/}
case $prefix in '' | /*) ;; *) prefix=$PWD/$prefix ;; esac
new_user=${MDS_DNSMASQ_USER:-mdserver}
new_data=${MDS_DATA_DIR:-/var/lib/mdserver}

say() { printf '%s\n' "$*"; }
warn() { printf 'system-integration: %s\n' "$*" >&2; }
fail() {
  warn "$*"
  exit 1
}

[[ $new_user =~ ^[a-z_][a-z0-9_-]*$ ]] || fail "MDS_DNSMASQ_USER is '$new_user', which is not a user name"
[[ $new_data =~ ^/[A-Za-z0-9._/-]+$ ]] ||
  fail "MDS_DATA_DIR is '$new_data': it must be an absolute path of letters, digits and . _ -"

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# --- the configuration -------------------------------------------------------------------------

# SECTION KEY VALUE FILE: sets the value in a configuration that only has defaults, in place of the
# comment that shows the default.
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
settings_file=$fresh
if [ -e "$configuration" ]; then settings_file=$configuration; fi

control=$here/dist/src/ctl/main.js
[ -f "$control" ] || fail "$control does not exist: run 'npm ci' and 'npm run build' first"
node=$(command -v node) || fail "node is not in PATH: install Node 20.17 or newer, or add it to PATH"
[[ $node =~ ^/[A-Za-z0-9._/+-]+$ ]] ||
  fail "node is '$node': it must be an absolute path of letters, digits and . _ + -"
# From /, as systemd starts mdserver: it is where relative paths of included files start.
if ! settings=$(cd / && PREFIX=$prefix "$node" "$control" config --config "$settings_file" 2>"$work/errors"); then
  # mdserverctl reports one line; Node prints a stack trace if it cannot load it.
  problem=$(sed -n 's/^mdserverctl: //p' "$work/errors")
  fail "${problem:-$control does not run with $node: run 'npm ci' and 'npm run build' with Node 20.17 or newer}"
fi
cat -- "$work/errors" >&2

# SECTION.KEY: the value that mdserver uses.
configured() { sed -n "s/^$1=//p" <<<"$settings"; }

IFS=: read -r -a include_directories <<<"$(configured _include_.directories)"
IFS=: read -r -a include_files <<<"$(configured _include_.files)"

# SECTION.KEY: a path that needs no quoting in the units.
configured_path() {
  local path
  path=$(configured "$1")
  [[ $path =~ ^/[A-Za-z0-9._/-]+$ ]] ||
    fail "$configuration: $1 is '$path': the units need an absolute path of letters, digits and . _ -"
  printf '%s\n' "$path"
}

user=$(configured dnsmasq.user)
[[ $user =~ ^[a-z_][a-z0-9_-]*$ ]] || fail "$configuration: dnsmasq.user is '$user', which is not a user name"
network=$(configured dnsmasq.net_name)
database=$(configured_path mdserver.db_file)
log=$(configured_path mdserver.logfile)
userdata=$(configured_path mdserver.userdata_dir)
base=$(configured_path dnsmasq.base_dir)
run=$(configured_path dnsmasq.run_dir)
socket=$(configured_path mdserver.control_socket)
data=$(dirname -- "$database")

if [ -n "${MDS_DNSMASQ_USER:-}" ] && [ "$user" != "$new_user" ]; then
  warn "MDS_DNSMASQ_USER is ignored: $configuration has dnsmasq.user = $user"
fi
if [ -n "${MDS_DATA_DIR:-}" ] && [ "$data" != "${new_data%/}" ]; then
  warn "MDS_DATA_DIR is ignored: $configuration has mdserver.db_file = $database"
fi

# The URL that the hook posts to: on the first IPv4 address, else on the first IPv6 address.
upload_url() {
  local address addresses ipv4='' ipv6='' host
  IFS=$', \t' read -r -a addresses <<<"$(configured mdserver.listen_address)"
  for address in "${addresses[@]}"; do
    case $address in
      *:*)
        address=${address#[}
        ipv6=${ipv6:-${address%]}}
        ;;
      *) ipv4=${ipv4:-$address} ;;
    esac
  done
  # One can listen on "any address", but not connect to it.
  if [ "$ipv4" = 0.0.0.0 ]; then ipv4=127.0.0.1; fi
  if [ "$ipv6" = :: ]; then ipv6=::1; fi
  host=${ipv4:-[$ipv6]}
  printf 'http://%s:%s/instance-upload\n' "$host" "$(configured mdserver.port)"
}
url=$(upload_url)

# --- the programs ------------------------------------------------------------------------------

hook_source=$here/dist/hooks/qemu.js
[ -f "$hook_source" ] || fail "$hook_source does not exist: run 'npm run build' first"
[ "$(grep -cE "^const (uploadUrl|controlSocket) = '[^']*';\$" "$hook_source")" = 2 ] ||
  fail "$hook_source does not have the lines for socket and URL: run 'npm run build' again"

case $node in
  /usr/local/bin/node | /usr/bin/node | /bin/node) ;;
  *) warn "node is $node, but the units look for it in /usr/local/bin and /usr/bin only" ;;
esac

program=/usr/local/bin/mdserver
if [ ! -e "$prefix$program" ]; then
  if [ -e "$prefix/usr/bin/mdserver" ]; then
    program=/usr/bin/mdserver
  elif [ -z "$prefix" ]; then
    program=$(command -v mdserver) || program=/usr/local/bin/mdserver
    [[ $program =~ ^/[A-Za-z0-9._/+-]+$ ]] || fail "mdserver is '$program': it must be an absolute path of letters, digits and . _ + -"
  fi
fi

if [ -z "$prefix" ] && [ ! -x /usr/sbin/dnsmasq ]; then
  warn "/usr/sbin/dnsmasq does not exist: install dnsmasq-base (the program without its own service)"
fi

# --- the user ----------------------------------------------------------------------------------

if [ -z "$prefix" ] && ! id -u -- "$user" >/dev/null 2>&1; then
  shell=$(PATH=$PATH:/usr/sbin:/sbin command -v nologin) || shell=/bin/false
  if PATH=$PATH:/usr/sbin:/sbin useradd -r -U -d "$data" -s "$shell" -- "$user"; then
    say "created the system user $user"
  else
    warn "cannot create the system user $user: create it and run this script again"
  fi
fi

# Files get this group, and the user as owner, only if this runs as root and the user exists.
group=''
if [ "$(id -u)" != 0 ]; then
  warn "not running as root: files do not get the owner $user"
elif ! group=$(id -g -n -- "$user" 2>/dev/null); then
  group=''
  warn "there is no user $user: root owns all files"
fi
unit_group=${group:-$user}

# --- files and folders -------------------------------------------------------------------------

exists() { [ -e "$1" ] || [ -L "$1" ]; }

# DIRECTORY MODE OWNER: creates the folder if it does not exist. OWNER is "user", "root", or "group" for
# root and the group of the user.
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
  say "created $1"
}

# SOURCE TARGET MODE [GROUP]: installs the file atomically, unless the target is the same already.
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

# The checksum of a file without the line that contains the checksum.
checksum() { sed "/$mark/d" "$1" | sha256sum | cut -d ' ' -f 1; }

marked() { grep -q -- "$mark" "$1"; }

# Whether this script installed the file, and nobody has edited it.
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

# TARGET: keeps a copy of the Python md_server's file, under a name that nothing runs.
keep_python() {
  cp --backup=numbered -- "$1" "$1.md_server"
  chmod 0644 "$1.md_server"
  say "kept the Python md_server's $1 as $1.md_server"
}

# SOURCE TARGET MODE COMMENT LINE PYTHON: installs the file, with its mark as the given line. PYTHON
# is a command that recognises the file of the Python md_server.
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
        say "kept $target, which was edited or is not from this script; the new one is $target.new"
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
  say "kept $configuration; the one of this version is $configuration.new"
fi

# Folders that mdserver writes to. A folder outside mdserver's own data folders keeps its owner.
own() {
  if [ -n "$group" ] && [ ! -L "$1" ] && [ "$(stat -c %U -- "$1")" != "$user" ]; then
    chown -h -- "$user:$group" "$1"
    say "changed the owner of $1 to $user"
  fi
}
data_directory() {
  make_directory "$prefix$1" 0755 user
  case $1/ in
    /var/lib/mdserver/* | "${new_data%/}"/*) own "$prefix$1" ;;
    *)
      if [ -n "$group" ] && [ "$(stat -L -c %U -- "$prefix$1")" != "$user" ]; then
        warn "$prefix$1 belongs to another user: make sure that $user can write to it"
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

# The Python md_server ran as root, which owns its files.
for file in "$prefix$database" "$prefix$base"/{dhcp,dns} "$prefix$base"/{dhcp,dns}/* \
  "$prefix$base/$network".{conf,opts}; do
  if [ -f "$file" ] || [ -d "$file" ]; then own "$file"; fi
done
log_directory=$(dirname -- "$log")
# mdserver looks for the log of dnsmasq next to its own: mdserver-dnsmasq.log.
log_name=$(basename -- "$log")
case $log_name in
  ?*.*) dnsmasq_log=$log_directory/${log_name%.*}-dnsmasq.${log_name##*.} ;;
  *) dnsmasq_log=$log-dnsmasq ;;
esac
# /dev/null and /dev/stdout are not created, owned or rotated.
if [ "$log_directory" != /dev ]; then
  make_directory "$prefix$log_directory" 0755 root
  for file in "$log" "$dnsmasq_log"; do
    if ! exists "$prefix$file"; then
      : >"$prefix$file"
      chmod 0640 "$prefix$file"
      say "created $prefix$file"
    fi
    if [ -f "$prefix$file" ]; then own "$prefix$file"; fi
  done
fi

# --- units, log rotation, hook -----------------------------------------------------------------

# The units can read homes only if the configuration has a path in one.
protect_home=yes
template=$(configured mdserver.default_template)
for path in "$data" "$userdata" "$base" "$run" "$log_directory" "$template" \
  "${include_directories[@]}" "${include_files[@]}"; do
  case $path/ in
    /home/* | /root/* | /run/user/*) protect_home=read-only ;;
  esac
done

# FILE: prints the unit with the values of the configuration.
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
# With this unit, the Python md_server waited for dnsmasq's configuration.
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

# If a hook fails, libvirt does not start the guest, or kills a running one. So a shell starts the
# hook and exits with 0 even if this node no longer exists. To JavaScript, the second line is a
# string and a comment; the shell does not read any further.
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
  say "kept $hooks/qemu, which is not mdserver's; mdserver's hook is $hook, which libvirt 6.5 and newer runs"
elif ! exists "$hook" && exists "$hooks/qemu.d/mdserver"; then
  hook=$hooks/qemu.d/mdserver
fi
install_ours "$work/qemu" "$hook" 0755 '//' 3 python_hook

# --- the next steps ------------------------------------------------------------------------------

# mdserver does not run as root: it must be able to read its configuration and templates.
if [ -n "$group" ]; then
  readable=("$configuration" "$prefix$userdata")
  for directory in "${include_directories[@]}"; do readable+=("$prefix$directory"/*.conf); done
  for file in "${include_files[@]}"; do
    if [ -n "$file" ]; then readable+=("$prefix$file"); fi
  done
  while IFS= read -r file; do
    warn "$user cannot read $file: chgrp $group '$file' && chmod g+r '$file'"
  done < <(find -L "${readable[@]}" ! \( -user "$user" -perm -u=r -o -group "$group" -perm -g=r -o -perm -o=r \) 2>/dev/null)
fi

if [ -z "$prefix" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
cat <<EOF

What to do next:
  - edit $configuration: add at least a public key
  - unless libvirt already has the network $network:
      virsh net-define $here/etc/libvirt/mds-network.xml
      virsh net-autostart mds && virsh net-start mds
  - restart libvirt, which finds hooks when it starts: systemctl restart libvirtd (or virtqemud)
  - systemctl daemon-reload
    systemctl enable mdserver && systemctl restart mdserver
EOF
