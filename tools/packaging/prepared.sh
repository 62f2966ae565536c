# What the packages run at a first installation: the .deb before its files are in place, the .rpm after. Later, a
# file of /etc that is missing counts as one that the operator has removed.

# Of an installation from npm or from source: dpkg would ask about each, and rpm keeps it.
unmarked /etc/libvirt/hooks/qemu.d/mdserver /etc/libvirt/hooks/network.d/mdserver /etc/logrotate.d/mdserver
