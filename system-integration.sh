#!/bin/bash
#
# Sets up the host for mdserver: the system user, the configuration, the folders, the systemd units,
# the libvirt hooks and the log rotation. Run it from the installed npm package, or from a source
# checkout after `npm ci` and `npm run build`.
#
#   system-integration.sh            installs, or brings an installation to this version
#   system-integration.sh --remove   removes what it has installed, and nobody has edited
#
#   PREFIX             put before all paths; no user is created, and systemd is not reloaded
#   MDS_DNSMASQ_USER   the user of mdserver and its dnsmasq in a new mdserver.conf (mdserver)
#   MDS_DATA_DIR       the data folder in a new mdserver.conf (/var/lib/mdserver)
#
# If there is a mdserver.conf, it determines the user and the paths.
#
# Running it again keeps what you have changed. The files it installs contain a checksum: a file
# that still matches is replaced; any other is kept, and the new one is installed as FILE.new.
# Files of the Python md_server are replaced, and kept as FILE.md_server, unless something would break:
# then the script says what, and changes nothing.

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

exists() { [ -e "$1" ] || [ -L "$1" ]; }

mark="Installed by mdserver's system-integration.sh, which replaces it unless it was edited; sha256 "

# The checksum of a file without the line that contains the checksum.
checksum() {
  local sum
  read -r sum _ < <(sed "/$mark/d" "$1" | sha256sum)
  printf '%s\n' "$sum"
}

marked() { grep -q -- "$mark" "$1"; }

# Whether this script installed the file, and nobody has edited it.
untouched() { marked "$1" && grep -q -- "$mark$(checksum "$1")" "$1"; }

# --- removal -------------------------------------------------------------------------------------

has_systemd() { [ -z "$prefix" ] && [ -d /run/systemd/system ]; }

remove_all() {
  if has_systemd; then
    # Before the program goes: the units would start it again and again.
    systemctl disable --now mdserver.service mdserver-dnsmasq.service mdserver-dnsmasq.target 2>/dev/null || true
  fi
  local file unit hook etc=$prefix/etc
  local of_units=("$etc/systemd/system/mdserver"{.service,-dnsmasq.service,-dnsmasq.target})
  local of_hooks=("$etc/libvirt/hooks/"{qemu,network}{,.d/mdserver})
  for file in "${of_units[@]}" "${of_hooks[@]}" "$etc"/{logrotate.d/mdserver,{sysusers,tmpfiles}.d/mdserver.conf} \
    "$prefix/usr/local/share/bash-completion/completions/mdserverctl"; do
    if exists "$file.new" && untouched "$file.new"; then rm -f -- "$file.new"; fi
    if ! exists "$file" || ! marked "$file"; then continue; fi
    if untouched "$file"; then
      rm -f -- "$file"
      say "removed $file"
    else
      warn "kept $file, which was edited: remove it yourself"
    fi
  done
  # What mdserverctl integrate has made.
  for unit in mdserver mdserver-dnsmasq; do
    rm -f -- "$etc/systemd/system/$unit.service.d/integrate.conf"
    rmdir -- "$etc/systemd/system/$unit.service.d" 2>/dev/null || true
  done
  rm -f -- "$etc/logrotate.d/00-mdserver-integrate" "$etc/mdserver/mdserver.conf.new"
  for hook in qemu network; do rmdir -- "$etc/libvirt/hooks/$hook.d" 2>/dev/null || true; done
  if has_systemd; then systemctl daemon-reload; fi
  cat <<EOF

What stays, and how to remove it:
  - configuration, templates, database and logs: rm -r $etc/mdserver $prefix/var/lib/mdserver $prefix/var/log/mdserver
  - the user: userdel mdserver
  - libvirt's network: virsh net-destroy mds; virsh net-undefine mds
  - the program: npm uninstall -g mdserver
Restart libvirt, which still calls the hooks: systemctl restart libvirtd (or virtqemud virtnetworkd)
EOF
}

case ${1:-} in
  '') ;;
  --remove)
    remove_all
    exit
    ;;
  *) fail "'$1' is not an argument of this script: the only one is --remove" ;;
esac

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

control=$here/dist/bundle/mdserverctl.js
[ -f "$control" ] || fail "$control does not exist: run 'npm ci' and 'npm run build' first"
node=$(command -v node) || fail "node is not in PATH: install Node 20.17 or newer, or add it to PATH"
[[ $node =~ ^/[A-Za-z0-9._/+-]+$ ]] ||
  fail "node is '$node': it must be an absolute path of letters, digits and . _ + -"
# From /, as systemd starts mdserver: it is where relative paths of included files start.
if ! (cd / && PREFIX=$prefix "$node" "$control" integrate --plan --config "$settings_file") >"$work/plan" 2>"$work/errors"; then
  # mdserverctl reports one line; Node prints a stack trace if it cannot load it.
  problem=$(sed -n 's/^mdserverctl: //p' "$work/errors")
  fail "${problem:-$control does not run with $node: run 'npm ci' and 'npm run build' with Node 20.17 or newer}"
fi
cat -- "$work/errors" >&2

# By SECTION.KEY: the value that mdserver uses.
declare -A settings=()
# What becomes of the parts of the Python md_server, if there is one.
fates=()
while IFS= read -r line; do
  case $line in
    plan.fate=*) fates+=("${line#*=}") ;;
    *) settings[${line%%=*}]=${line#*=} ;;
  esac
done <"$work/plan"

IFS=: read -r -a include_directories <<<"${settings[_include_.directories]}"
IFS=: read -r -a include_files <<<"${settings[_include_.files]}"

for key in mdserver.{db_file,logfile,userdata_dir} dnsmasq.{base_dir,run_dir}; do
  [[ ${settings[$key]} =~ ^/[A-Za-z0-9._/-]+$ ]] ||
    fail "$configuration: $key is '${settings[$key]}': the units need an absolute path of letters, digits and . _ -"
done

user=${settings[dnsmasq.user]}
[[ $user =~ ^[a-z_][a-z0-9_-]*$ ]] || fail "$configuration: dnsmasq.user is '$user', which is not a user name"
network=${settings[dnsmasq.net_name]}
database=${settings[mdserver.db_file]}
userdata=${settings[mdserver.userdata_dir]}
base=${settings[dnsmasq.base_dir]}
run=${settings[dnsmasq.run_dir]}
data=$(dirname -- "$database")
# Where the hook keeps what it cannot deliver, whatever the configuration says.
spool=/var/lib/mdserver/spool

if [ -n "${MDS_DNSMASQ_USER:-}" ] && [ "$user" != "$new_user" ]; then
  warn "MDS_DNSMASQ_USER is ignored: $configuration has dnsmasq.user = $user"
fi
if [ -n "${MDS_DATA_DIR:-}" ] && [ "$data" != "${new_data%/}" ]; then
  warn "MDS_DATA_DIR is ignored: $configuration has mdserver.db_file = $database"
fi

# --- the Python md_server ------------------------------------------------------------------------

# The files of the Python md_server that ours replace.
declare -A python_files=()
for line in "${fates[@]}"; do
  say "$line"
  IFS=$'\t' read -r fate file _ <<<"$line"
  if [ "$fate" = replaced ]; then python_files[$file]=yes; fi
done
if [ "${#python_files[@]}" -gt 0 ]; then
  [ "${settings[plan.migrates]}" = yes ] ||
    fail "the Python md_server is installed, and something would break: nothing is replaced. See docs/migration.md in $here"
fi

from_python() { [ -n "${python_files[$1]:-}" ]; }

# --- the programs ------------------------------------------------------------------------------

hook_source=$here/dist/hooks/qemu.js
[ -f "$hook_source" ] || fail "$hook_source does not exist: run 'npm run build' first"
# By this path: AppArmor's profile of libvirt lets it start programs of the system, which may then start node
# wherever that is.
timeout=/usr/bin/timeout
[ -x "$timeout" ] || fail "$timeout does not exist: install coreutils"

case $node in
  /usr/local/bin/node | /usr/bin/node | /bin/node) ;;
  *) warn "node is $node, but the units look for it in /usr/local/bin and /usr/bin only" ;;
esac

# By its own path: a program of this name in /usr/local/bin or /usr/bin may be the Python md_server.
program=$here/dist/bundle/mdserver.js
case $program in
  "$prefix"/*) program=${program#"$prefix"} ctl=${control#"$prefix"} ;;
  *)
    # The package is not below PREFIX: npm will install it there.
    program=/usr/local/bin/mdserver
    if [ -e "$prefix/usr/bin/mdserver" ] && ! grep -q '^#!.*node' "$prefix$program" 2>/dev/null; then
      program=/usr/bin/mdserver
    fi
    ctl=${program}ctl
    ;;
esac
[[ $program =~ ^/[A-Za-z0-9._/+@-]+$ ]] ||
  fail "the package is in $here: the units need a path of letters, digits and . _ + @ -"

if [ -z "$prefix" ] && [ ! -x /usr/sbin/dnsmasq ]; then
  warn "/usr/sbin/dnsmasq does not exist: install dnsmasq-base (the program without its own service)"
fi

# --- the user ----------------------------------------------------------------------------------

# Also beside another dnsmasq.user: the rules of log rotation name it.
if [ -z "$prefix" ] && command -v systemd-sysusers >/dev/null; then
  systemd-sysusers "$here/systemd/mdserver.sysusers" || true
fi
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

# PATH: whether only root can put something in this place. In a folder of another user, a path may
# lead anywhere by the time that it is used: root must not create files there, or change owners.
place_of_root() {
  if [ "$(id -u)" != 0 ]; then return; fi
  local folder=$1 folders=() link owner owner_group mode
  while [ "$folder" != "${prefix:-/}" ]; do
    folder=${folder%/*}
    folder=${folder:-/}
    if exists "$folder"; then folders+=("$folder"); fi
  done
  # Nothing has been made below a prefix of ours.
  if [ "${#folders[@]}" = 0 ]; then return; fi
  # Of links, those themselves, and what they lead to.
  while read -r link owner owner_group mode; do
    if [ "$owner" != 0 ]; then return 1; fi
    if [ "$link" = yes ]; then continue; fi
    if ((0$mode & 02)) || { [ "$owner_group" = "$unit_group" ] && ((0$mode & 020)); }; then return 1; fi
  done < <(stat -c 'yes %u %G %a' -- "${folders[@]}" && stat -L -c 'no %u %G %a' -- "${folders[@]}" || echo 'no - - 0')
}

# DIRECTORY MODE OWNER: creates the folder if it does not exist. OWNER is "user", "root", or "group" for
# root and the group of the user.
make_directory() {
  if exists "$1"; then return; fi
  if ! place_of_root "$1"; then
    warn "$1 does not exist, and root does not make it in a folder of another user: make it yourself"
    return
  fi
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
  temporary=$(mktemp -- "${2%/*}/.${2##*/}.XXXXXX")
  install -m "$3" ${4:+-g "$4"} -T -- "$1" "$temporary"
  mv -f -T -- "$temporary" "$2"
  installed+=("$2")
  say "installed $2"
}
installed=()

# TARGET: keeps a copy of the Python md_server's file, under a name that nothing runs.
keep_python() {
  cp --backup=numbered -- "$1" "$1.md_server"
  chmod 0644 "$1.md_server"
  say "kept the Python md_server's $1 as $1.md_server"
}

# SOURCE TARGET MODE COMMENT LINE: installs the file, with its mark as the given line.
install_ours() {
  local source=$1 target=$2 mode=$3 comment=$4 line=$5 rendered=$work/rendered
  sed "${line}i $comment $mark$(checksum "$source")" "$source" >"$rendered"
  if exists "$target"; then
    if cmp -s -- "$rendered" "$target"; then return; fi
    if [ -L "$target" ] || ! untouched "$target"; then
      if from_python "$target"; then
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

# Makes the user the owner of what root has made or the Python md_server, which ran as root, left.
# A folder comes after what is in it: then it belongs to the user, and root keeps its hands off.
own() {
  if [ -z "$group" ] || [ -L "$1" ] || [ "$(stat -c %U -- "$1")" = "$user" ]; then return; fi
  if place_of_root "$1"; then
    chown -h -- "$user:$group" "$1"
    say "changed the owner of $1 to $user"
  else
    warn "$1 does not belong to $user, which can change its folder: if you trust it, chown -h $user:$group '$1'"
  fi
}

# Folders that mdserver writes to. mdserver makes those that are in a folder of its own.
for directory in "$data" "$base"; do
  if place_of_root "$prefix$directory"; then make_directory "$prefix$directory" 0755 root; fi
done
# Where the hook keeps what mdserver does not take: it writes there as the owner. If the folder around it
# is not root's any more, mdserver makes it when it starts.
if place_of_root "$prefix$spool"; then make_directory "$prefix$spool" 0700 user; fi
case $run in
  /run/?* | /var/run/?*) outside_run='' ;;
  *)
    outside_run=$run
    if place_of_root "$prefix$run"; then make_directory "$prefix$run" 0755 user; fi
    ;;
esac
for file in "$prefix$database" "$prefix$base"/{dhcp,dns}/* "$prefix$base"/{dhcp,dns} \
  "$prefix$base/$network".{conf,opts}; do
  if [ -f "$file" ] || [ -d "$file" ]; then own "$file"; fi
done
# A folder outside mdserver's own data folders keeps its owner.
data_directory() {
  if [ ! -d "$prefix$1" ]; then return; fi
  case $1/ in
    /var/lib/mdserver/* | "${new_data%/}"/*) own "$prefix$1" ;;
    *)
      if [ -n "$group" ] && [ "$(stat -L -c %U -- "$prefix$1")" != "$user" ]; then
        warn "$prefix$1 belongs to another user: make sure that $user can write to it"
      fi
      ;;
  esac
}
case $base/ in "$data"/*) data_directory "$base" ;; esac
data_directory "$data"
case $base/ in "$data"/*) ;; *) data_directory "$base" ;; esac
if [ -n "$outside_run" ]; then data_directory "$outside_run"; fi

if place_of_root "$prefix/var/log/mdserver"; then make_directory "$prefix/var/log/mdserver" 0750 user; fi

# --- units, log rotation, hooks ----------------------------------------------------------------

# FILE: prints the unit with the paths of the programs.
fill_unit() {
  sed -e "s,^\(ExecStart\|ExecReload\)=[^ ]*/mdserver ,\1=$program ," \
    -e "s|^ExecStartPost=-[^ ]*/mdserverctl |ExecStartPost=-$ctl |" "$1"
}

units=$prefix/etc/systemd/system
is_new=yes
if exists "$units/mdserver.service" && [ "${#python_files[@]}" = 0 ]; then is_new=no; fi
install -d -m 0755 -- "$units" "$prefix/etc/logrotate.d" "$prefix/etc/libvirt/hooks"
for unit in mdserver.service mdserver-dnsmasq.service mdserver-dnsmasq.target; do
  fill_unit "$here/systemd/$unit" >"$work/$unit"
  install_ours "$work/$unit" "$units/$unit" 0644 '#' 1
done
# mdserver starts its dnsmasq. One that is enabled, as the units of before allowed, would not stop with it.
enabled=$units/multi-user.target.wants
if [ -L "$enabled/mdserver-dnsmasq.service" ] && grep -q '^StopWhenUnneeded=' "$units/mdserver-dnsmasq.service"; then
  ln -sfn -- /etc/systemd/system/mdserver.service "$enabled/mdserver.service"
  rm -- "$enabled/mdserver-dnsmasq.service"
  say "enabled mdserver.service in place of mdserver-dnsmasq.service, which it starts"
fi
# Units of the Python md_server with other names would do the same as ours, beside them.
retired=()
for path in "${!python_files[@]}"; do
  if [ "$(dirname -- "$path")" != "$units" ] || ! exists "$path" || marked "$path"; then continue; fi
  unit=$(basename -- "$path")
  keep_python "$path"
  rm -f -- "$path" "$units"/*.wants/"$unit" "$units"/*.requires/"$unit"
  retired+=("$unit")
done

install_ours "$here/etc/logrotate/mdserver" "$prefix/etc/logrotate.d/mdserver" 0644 '#' 1
for kind in sysusers tmpfiles; do
  install -d -m 0755 -- "$prefix/etc/$kind.d"
  install_ours "$here/systemd/mdserver.$kind" "$prefix/etc/$kind.d/mdserver.conf" 0644 '#' 1
done

# Drop-ins for the paths and the user of this configuration.
if [ "${settings[plan.integrates]}" = yes ]; then
  (cd / && PREFIX=$prefix "$node" "$control" integrate --config "$configuration")
fi

completions=$prefix/usr/local/share/bash-completion/completions
install -d -m 0755 -- "$completions"
install_ours "$here/etc/bash-completion/mdserverctl" "$completions/mdserverctl" 0644 '#' 1

# The same file is libvirt's hook of guests and of networks. If a hook fails, libvirt does not start the
# guest, or kills a running one, and libvirt waits for it. So a shell starts the hook, kills it after 5
# seconds, and exits with 0 even if this node no longer exists. It leaves at once when there is nothing to
# do, which costs far less than to start node. To JavaScript, the second line is a string and a comment;
# the shell does not read any further.
hook_operations="'prepare begin '* | 'migrate begin '* | 'restore begin '* | 'reconnect begin '* | 'attach begin '*"
hook_operations="$hook_operations | 'release end '* | 'port-created begin '*"
{
  printf '#!/bin/sh\n'
  # shellcheck disable=SC2016
  printf '%s case "$2 $3 $1" in %s) ;; *) exit 0 ;; esac; %s -s KILL 5 %s "$0" "$@"; exit 0\n' \
    "':' //;" "$hook_operations" "$timeout" "$node"
  sed -e 1d -e '/^\/\/# sourceMappingURL=/d' "$hook_source"
} >"$work/hook"

# DRIVER: installs the hook of libvirt's driver where it is in nobody's way: libvirt 6.5 and newer runs all
# that are in the folder, after another one that is in its place.
install_hook() {
  local old=$prefix/etc/libvirt/hooks/$1
  install -d -m 0755 -- "$old.d"
  if ! exists "$old.d/mdserver"; then new_hooks=yes; fi
  install_ours "$work/hook" "$old.d/mdserver" 0755 '//' 3
  if ! exists "$old"; then return; fi
  if from_python "$old"; then
    keep_python "$old"
    rm -f -- "$old"
  elif untouched "$old" 2>/dev/null; then
    rm -f -- "$old"
    say "removed $old, which is now $old.d/mdserver"
  elif marked "$old" 2>/dev/null; then
    warn "$old is mdserver's, and was edited: put your changes into $old.d/mdserver and remove it, because libvirt runs both"
  fi
}
new_hooks=no
install_hook qemu
install_hook network

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

if has_systemd; then
  systemctl daemon-reload
  systemd-tmpfiles --create mdserver.conf || true
fi

# PART: whether a file is new or has changed whose path contains it.
has_installed() {
  local file
  for file in "${installed[@]}"; do
    case $file in *"$1"*) return 0 ;; esac
  done
  return 1
}

printf '\nWhat to do next:\n'
if [ "${#python_files[@]}" -gt 0 ]; then
  # systemd starts none that runs already, and both servers want the same ports.
  say "  - stop what the Python md_server runs: systemctl stop mdserver mdserver-dnsmasq${retired[*]:+ ${retired[*]}}"
fi
if [ "$is_new" = yes ]; then
  cat <<EOF
  - edit $configuration: add at least a public key
  - unless libvirt already has the network $network:
      virsh net-define $here/etc/libvirt/mds-network.xml
      virsh net-autostart mds && virsh net-start mds
EOF
fi
if [ "$new_hooks" = yes ]; then
  say '  - systemctl restart libvirtd (or virtqemud virtnetworkd): libvirt finds new hooks only when it starts'
fi
if [ "$is_new" = yes ]; then
  say '  - systemctl enable mdserver && systemctl restart mdserver'
elif has_installed /mdserver.service || has_installed /mdserver-dnsmasq; then
  say '  - systemctl restart mdserver: its units have changed, and what runs is the version from before'
else
  say '  - systemctl restart mdserver, unless this version runs already: its units are as before'
fi
if has_installed .new; then say '  - compare what you have edited with the files of this version, which end in .new'; fi
say '  - mdserverctl check: says what is wrong, and whether a firewall keeps guests from mdserver'
