#!/bin/bash
#
# Creates the image of the test guests from a Debian release: image.sh CACHE SUITE
#
#   CACHE/SUITE/disk.qcow2, kernel, initrd   to boot without a boot loader, root=/dev/vda
#   CACHE/SUITE/key                          root's ssh key, for guests whose cloud-init does nothing
#   CACHE/packages                           Debian packages, for the next image
#
# cloud-init has its default configuration and finds out by itself which datasource to use.

set -euo pipefail
umask 022
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

cache=$(realpath -- "$1")
suite=$2

# debootstrap's mounts and processes end with these namespaces.
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

# python3-cffi-backend is only recommended, but cloud-init fails without it.
packages=linux-image-cloud-amd64,systemd-sysv,udev,dbus,netplan.io,systemd-resolved
packages+=,cloud-init,cloud-guest-utils,python3-cffi-backend,openssh-server,sudo,locales
packages+=,iproute2,iputils-ping,curl
debootstrap --variant=minbase --cache-dir="$cache/packages" --include="$packages" \
  "$suite" "$root" "$mirror"

echo 'en_US.UTF-8 UTF-8' >"$root/etc/locale.gen"
chroot "$root" locale-gen
# cloud-init's default locale: generating it at the first boot would take half a minute.
echo 'LANG=en_US.UTF-8' >"$root/etc/default/locale"
# The default initrd has drivers for every machine; loading it takes a while under TCG.
drivers=(virtio_pci virtio_blk virtio_net ext4)
if [ -d "$root/etc/initramfs-tools" ]; then
  sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
  printf '%s\n' "${drivers[@]}" >>"$root/etc/initramfs-tools/modules"
  chroot "$root" update-initramfs -u -k all
else
  # Debian 14 and later.
  printf 'hostonly=no\ndrivers="%s"\n' "${drivers[*]}" >"$root/etc/dracut.conf.d/guest.conf"
  chroot "$root" dracut --force --regenerate-all
fi

echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
echo guest-image >"$root/etc/hostname"
: >"$root/etc/machine-id"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
chroot "$root" systemctl enable systemd-networkd systemd-resolved
# For guests whose network cloud-init does not configure; netplan's files have priority over this.
cat >"$root/etc/systemd/network/90-any.network" <<'END'
[Match]
Name=en* eth*

[Network]
DHCP=ipv4
END

ssh-keygen -q -t ed25519 -N '' -C test-image -f "$folder/key"
install -m 0644 "$folder/key.pub" "$root/etc/ssh/image_keys"
echo 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/image_keys' \
  >"$root/etc/ssh/sshd_config.d/image.conf"

cp -L -- "$root/vmlinuz" "$folder/kernel"
cp -L -- "$root/initrd.img" "$folder/initrd"
rm -rf -- "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb
truncate -s 2G "$folder/disk.raw"
mkfs.ext4 -q -F -d "$root" "$folder/disk.raw"
qemu-img convert -O qcow2 "$folder/disk.raw" "$folder/disk.qcow2"
rm -rf --one-file-system -- "$root" "$folder/disk.raw"
mv -- "$folder" "$cache/$suite"
