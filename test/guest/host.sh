#!/bin/bash
#
# What a host of virtual machines sees of this machine: host.sh NAME SPACE PREFIX, run in mount,
# network and UTS namespaces of its own. Its /etc, /var and /usr/local are this machine's with
# what is written to them kept in SPACE; PREFIX is laid over /usr/local; /run is empty.
# It stays, so that the namespaces do.

set -euo pipefail

name=$1 space=$2 prefix=$3

hostname "$name"
# Interfaces in /sys are those of the network namespace that it is mounted in.
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

# This machine's own guests, networks and hooks are not the test's.
rm -rf /etc/libvirt/qemu /etc/libvirt/hooks /var/lib/libvirt/qemu /etc/mdserver /var/lib/mdserver
mkdir -p /etc/libvirt/qemu /var/lib/libvirt/qemu

echo ready
exec sleep infinity
