#!/bin/bash
#
# Sets up the file system of a virtual machine host: host.sh NAME SPACE PREFIX, run in mount, network
# and UTS namespaces of its own. /etc, /var and /usr/local are overlays on this machine's, which keep
# changes in SPACE; PREFIX is laid over /usr/local; /run is empty.
# The script does not exit, because the namespaces end with it.

set -euo pipefail

name=$1 space=$2 prefix=$3

hostname "$name"
# /sys shows the interfaces of the network namespace in which it is mounted.
mount -t sysfs sysfs /sys
ip link set lo up

lay_over() {
  mkdir -p "$space/$2/upper" "$space/$2/work"
  mount -t overlay -o "lowerdir=$3,upperdir=$space/$2/upper,workdir=$space/$2/work" overlay "$1"
}
lay_over /etc etc /etc
lay_over /var var /var
lay_over /usr/local local "$prefix:/usr/local"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /var/lib/libvirt/dnsmasq

# The test must not see this machine's own guests, networks and hooks.
rm -rf /etc/libvirt/qemu /etc/libvirt/hooks /var/lib/libvirt/qemu /etc/mdserver /var/lib/mdserver /var/log/mdserver
mkdir -p /etc/libvirt/qemu /var/lib/libvirt/qemu

echo ready
exec sleep infinity
