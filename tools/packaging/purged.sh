# What mdserver and its packages have made, beside their files. What the operator made stays:
# templates, more configuration, and data elsewhere.
user=mdserver
# Files elsewhere belong to it: another user must not get its number.
if [ -e /etc/systemd/system/mdserver.service.d/integrate.conf ]; then user=; fi
rm -rf /var/lib/mdserver /var/log/mdserver /run/mdserver
unintegrated
for folder in /etc/mdserver/conf.d /etc/mdserver/userdata /etc/mdserver /etc/libvirt/hooks/qemu.d \
  /etc/libvirt/hooks/network.d; do
  rmdir "$folder" 2>/dev/null || true
done
if [ -n "$user" ] && getent passwd "$user" >/dev/null; then
  userdel "$user" 2>/dev/null || true
fi
