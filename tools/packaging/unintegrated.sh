# Removes what mdserverctl integrate has made.
for unit in mdserver mdserver-dnsmasq; do
  rm -f "/etc/systemd/system/$unit.service.d/integrate.conf"
  rmdir "/etc/systemd/system/$unit.service.d" 2>/dev/null || true
done
rm -f /etc/logrotate.d/00-mdserver-integrate
