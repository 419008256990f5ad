#!/bin/busybox sh
# First process of a guest that make-guest built: loads modules, checks the root disk, goes there.
# Kernel command line: root=DEVICE (default /dev/vda).
#
# Says on the console "guest: fsck STATUS TEXT", STATUS being e2fsck's exit status: 0 clean (a journal
# that was replayed included), 1 mended; the guest does not start with more.

/bin/busybox mkdir -p /bin /proc /sys /dev /run /root
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=755 tmpfs /run

root=/dev/vda
for word in $(cat /proc/cmdline); do
  case "$word" in root=*) root="${word#root=}" ;; esac
done
while read -r module; do
  insmod "/modules/$module" || echo "guest: insmod $module failed"
done </modules/order

# A virtio device is found a moment after its driver is loaded.
tries=0
while [ ! -b "$root" ]; do
  tries=$((tries + 1))
  [ $tries -lt 300 ] || { echo "guest: no root disk $root"; poweroff -f; }
  usleep 100000
done

text=$(LD_LIBRARY_PATH=/fsck /fsck/ld.so /fsck/e2fsck -p "$root" 2>&1)
status=$?
echo "guest: fsck $status $(echo "$text" | tr '\n' ' ')"
[ $status -le 1 ] || poweroff -f
echo "$status" >/run/fsck

mount -t ext4 "$root" /root || { echo "guest: cannot mount $root"; poweroff -f; }
for point in proc sys dev run; do
  mount --move "/$point" "/root/$point"
done
exec switch_root /root /sbin/init
