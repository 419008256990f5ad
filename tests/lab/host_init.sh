#!/bin/busybox sh
# First process of a lab host. Loads modules, mounts the machine's files over 9p, starts agent.sh.
# Kernel command line: lab.name=NAME, lab.scratch=PATH (shared writable folder, same everywhere), and
# lab.init=systemd for a host whose first process systemd becomes (host_systemd.sh).

/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /root /host /tmp /etc
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "/dev/${n#*:}"; done
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm

die() { echo "lab: host cannot start: $*"; poweroff -f; }

name=host scratch= init=
for word in $(cat /proc/cmdline); do
  case "$word" in
    lab.name=*) name="${word#lab.name=}" ;;
    lab.scratch=*) scratch="${word#lab.scratch=}" ;;
    lab.init=*) init="${word#lab.init=}" ;;
  esac
done
hostname "$name"
echo 4 >/proc/sys/kernel/printk # warnings and worse stay on the console

while read -r module; do
  insmod "/modules/$module" || die "insmod $module"
done </modules/order

# The machine's root is read-only and does not change under us, so the host may cache it. The
# scratch folder is written from all sides: no cache.
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,$options,cache=loose" root /host || die "mount root"
[ "$init" != systemd ] || . /host_systemd.sh # which does not come back
mount -t tmpfs -o mode=755 tmpfs /host/run || die "mount run"
mkdir -p /host/run/lock /host/run/tmp /host/run/lab /host/run/busybox
busybox --install -s /host/run/busybox # last in the PATH of commands
for point in dev proc sys; do
  mount --rbind "/$point" "/host/$point" || die "mount $point"
done
mount -t 9p -o "rw,$options,cache=none" scratch "/host$scratch" || die "mount scratch $scratch"
ip link set lo up

/bin/sh /agent.sh &
wait # for ever; also reaps what killed commands leave to process 1
die "the agent ended"
