#!/bin/bash
#
# Creates the image of the test host, a Debian release with systemd as process 1, libvirt and
# AppArmor: image.sh CACHE SUITE
#
#   CACHE/SUITE/disk.qcow2, kernel, initrd   to boot without a boot loader, root=/dev/vda
#   CACHE/SUITE/key                          root's ssh key
#   CACHE/packages                           Debian packages, for the next image
#
# It has everything that mdserver's package depends on, because the host runs without a network.

set -euo pipefail
umask 022
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

cache=$(realpath -- "$1")
suite=$2

# The mounts and processes of the installation end with these namespaces.
if [ -z "${MDSERVER_IMAGE_INSIDE:-}" ]; then
  MDSERVER_IMAGE_INSIDE=1 exec unshare --mount --propagation private --pid --fork --kill-child \
    --mount-proc -- bash "$0" "$cache" "$suite"
fi

# The mirror of this machine's own release also has the other releases.
# shellcheck disable=SC1091,SC2016
mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(SITE)' |
  awk -v own="$(. /etc/os-release && echo "$VERSION_CODENAME")" \
    '$1 == own && $2 == "main" { print $3; exit }')
[ -n "$mirror" ] || { echo "image.sh: apt has no source for Debian main" >&2; exit 1; }

# The folder gets its final name when it is complete.
folder=$cache/$suite.new
root=$folder/root
rm -rf --one-file-system -- "$folder" "${cache:?}/$suite"
mkdir -p -- "$root" "$cache/packages"

debootstrap --variant=minbase --cache-dir="$cache/packages" "$suite" "$root" "$mirror"

# The file system of an image need not survive a power failure while it is made.
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/image"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/etc/initramfs-tools/conf.d"
# The default initrd has drivers for every machine; loading it takes a while under TCG.
echo 'MODULES=list' >"$root/etc/initramfs-tools/conf.d/image"
printf '%s\n' virtio_pci virtio_blk virtio_net ext4 >"$root/etc/initramfs-tools/modules"
mount --bind "$cache/packages" "$root/var/cache/apt/archives"
mount -t proc proc "$root/proc"
for file in /etc/apt/apt.conf.d/*proxy* /etc/resolv.conf; do
  [ ! -e "$file" ] || cp -L -- "$file" "$root$file"
done
chroot "$root" apt-get install -y -qq --no-install-recommends -o APT::Keep-Downloaded-Packages=true \
  linux-image-cloud-amd64 initramfs-tools systemd-sysv udev dbus openssh-server apparmor \
  libvirt-daemon-system libvirt-clients qemu-system-x86 dnsmasq-base nodejs logrotate curl \
  iproute2 procps udhcpc bind9-dnsutils nftables
umount "$root/var/cache/apt/archives" "$root/proc"

rm -f -- "$root/usr/sbin/policy-rc.d" "$root/etc/resolv.conf" "$root"/etc/apt/apt.conf.d/*proxy*
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
echo host >"$root/etc/hostname"
echo '127.0.0.1 localhost host' >"$root/etc/hosts"
: >"$root/etc/machine-id"
# The user-mode network of QEMU. A fixed address is there sooner than one by DHCP.
cat >"$root/etc/systemd/network/10-qemu.network" <<'UNIT'
[Match]
Name=en* eth*

[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
IPv6AcceptRA=no
UNIT
chroot "$root" systemctl enable systemd-networkd
# Debian's hundred other profiles would be compiled at the first boot, for 40 s under TCG.
find "$root/etc/apparmor.d" -maxdepth 1 -type f ! -name '*libvirt*' -delete
# A profile for each guest, and a session for each ssh connection, take seconds under TCG, too.
echo 'security_driver = "none"' >>"$root/etc/libvirt/qemu.conf"
echo 'UsePAM no' >"$root/etc/ssh/sshd_config.d/image.conf"
# What runs by itself on a new host would only take CPU from the test.
chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
  e2scrub_reap.service fstrim.timer dpkg-db-backup.timer libvirt-guests.service \
  systemd-networkd-wait-online.service getty.target serial-getty@ttyS0.service

ssh-keygen -q -t ed25519 -N '' -C test-image -f "$folder/key"
install -m 0600 -D "$folder/key.pub" "$root/root/.ssh/authorized_keys"

cp -L -- "$root"/boot/vmlinuz-* "$folder/kernel"
cp -L -- "$root"/boot/initrd.img-* "$folder/initrd"
rm -rf -- "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
truncate -s 4G "$folder/disk.raw"
mkfs.ext4 -q -F -d "$root" "$folder/disk.raw"
qemu-img convert -O qcow2 "$folder/disk.raw" "$folder/disk.qcow2"
rm -rf --one-file-system -- "$root" "$folder/disk.raw"
mv -- "$folder" "$cache/$suite"
