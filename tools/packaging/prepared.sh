# What the packages run before the files of a first installation are in place. Later, a file of /etc that is
# missing counts as one that the operator has removed.

# Of an installation from npm or from source: dpkg would ask about each, and rpm would keep it.
unmarked /etc/libvirt/hooks/qemu.d/mdserver /etc/libvirt/hooks/network.d/mdserver /etc/logrotate.d/mdserver
