# Before the files go: the units would start a program that is missing, again and again.
if [ -d /run/systemd/system ]; then
  systemctl --quiet disable --now mdserver.service || true
  systemctl --quiet stop mdserver-dnsmasq.target mdserver-dnsmasq.service || true
fi
