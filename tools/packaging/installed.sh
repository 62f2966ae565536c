# What the packages run after their files are in place. $1 is "new" or "upgrade".

# Before the files get their group.
systemd-sysusers mdserver.conf || true
systemd-tmpfiles --create mdserver.conf || true

if [ "$1" = new ]; then
  # The configuration may have a password. Another group is that of the dnsmasq.user of an earlier installation.
  for path in /etc/mdserver /etc/mdserver/conf.d /etc/mdserver/userdata /etc/mdserver/mdserver.conf; do
    if [ "$(stat -c %G "$path")" != root ]; then continue; fi
    chgrp mdserver "$path"
    if [ -d "$path" ]; then chmod 0750 "$path"; else chmod 0640 "$path"; fi
  done
fi

# Of an installation from npm or from source: units in /etc would hide those of the package.
unmarked /etc/systemd/system/mdserver.service /etc/systemd/system/mdserver-dnsmasq.service \
  /etc/systemd/system/mdserver-dnsmasq.target /etc/libvirt/hooks/qemu /etc/libvirt/hooks/network \
  /etc/sysusers.d/mdserver.conf /etc/tmpfiles.d/mdserver.conf \
  /usr/local/share/bash-completion/completions/mdserverctl

# Of the Python md_server: what ours replaces is kept under a name that nothing runs.
if fates=$(mdserverctl migrate 2>/dev/null); then
  printf '%s\n' "$fates" | sed -n 's/^replaced\t\([^\t]*\)\t.*/\1/p' | while IFS= read -r file; do
    case $file in
      /etc/systemd/system/* | /etc/libvirt/hooks/*) ;;
      *) continue ;;
    esac
    if ! [ -e "$file" ]; then continue; fi
    cp --backup=numbered -- "$file" "$file.md_server"
    chmod 0644 "$file.md_server"
    rm -f -- "$file" /etc/systemd/system/*.wants/"${file##*/}"
    echo "mdserver: kept the Python md_server's $file as $file.md_server; restart what ran with it"
  done
elif printf '%s\n' "$fates" | grep -q '^replaced'; then
  echo 'mdserver: the Python md_server is installed, and something would break: run "mdserverctl migrate", then install this package again' >&2
fi

# Drop-ins, if the configuration of an earlier installation has paths of its own.
mdserverctl integrate || true

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  if [ "$1" = upgrade ]; then
    # dnsmasq goes on, unless mdserver finds that its configuration has changed.
    systemctl try-restart mdserver.service || true
  fi
  for unit in libvirtd virtqemud; do
    if [ "$1" = new ] && systemctl --quiet is-active "$unit.service"; then
      echo "mdserver: run 'systemctl restart $unit' once: libvirt looks for hooks when it starts"
    fi
  done
fi
