# Sourced by host_init.sh for a host with systemd: the machine's root becomes the lower layer of an overlay that can be
# written, and systemd its first process. What is written survives a loss of power, as far as it was flushed, if the
# host has a disk. Of what is installed on the machine nothing runs here but what a test starts: the units that the
# machine has enabled, and what a boot without hardware can do without, are masked.

masked="
  apt-daily.timer apt-daily-upgrade.timer dbus.service dbus.socket dev-hugepages.mount dev-mqueue.mount getty.target
  kmod-static-nodes.service proc-sys-fs-binfmt_misc.automount remote-fs.target sys-fs-fuse-connections.mount
  sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-ask-password-console.path
  systemd-ask-password-wall.path systemd-binfmt.service systemd-firstboot.service systemd-initctl.socket
  systemd-journal-flush.service systemd-logind.service systemd-machine-id-commit.service
  systemd-modules-load.service systemd-pcrphase-sysinit.service systemd-pcrphase.service systemd-pstore.service
  systemd-random-seed.service systemd-remount-fs.service systemd-repart.service systemd-sysctl.service
  systemd-tmpfiles-clean.timer systemd-udev-settle.service systemd-udev-trigger.service systemd-udevd.service
  systemd-update-utmp.service systemd-update-utmp-runlevel.service tmp.mount"

layer() { # mounts what is written at /layer
  mkdir -p /layer
  [ -b /dev/vda ] || { mount -t tmpfs tmpfs /layer && return; }
  mount -t ext4 /dev/vda /layer 2>/dev/null && return
  mount --bind /dev /host/dev
  chroot /host /sbin/mkfs.ext4 -q -E nodiscard /dev/vda && mount -t ext4 /dev/vda /layer
  umount /host/dev
}

furnish() { # once in the life of a host; its root is /new
  local units=/new/etc/systemd/system unit path
  rm -rf /new/etc/systemd/system/*.wants /new/etc/systemd/system-generators /new/var/log/journal
  mkdir -p $units/sysinit.target.wants /new/etc/systemd/system-generators /new/etc/tmpfiles.d
  for unit in $masked; do ln -sf /dev/null "$units/$unit"; done
  for path in /new/usr/lib/systemd/system-generators/*; do # each runs with every daemon-reload
    ln -sf /dev/null "/new/etc/systemd/system-generators/${path##*/}"
  done
  rm -f /new/.dockerenv # the machine may be a container, the host is none
  ln -sf /dev/null /new/etc/tmpfiles.d/tmp.conf # it would empty /tmp, where the scratch folder may be
  ln -sf /lib/systemd/system/multi-user.target $units/default.target
  : >/new/etc/fstab
  echo "$name" >/new/etc/hostname
  echo "lab $name" | md5sum | cut -c1-32 >/new/etc/machine-id
  cat >$units/lab-agent.service <<END
[Unit]
Description=Runs commands for the lab
DefaultDependencies=no

[Service]
Environment=LAB_ROOT=/ PATH=/run/busybox:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/run/lab/busybox sh /run/lab/agent.sh
KillMode=process
TasksMax=infinity
OOMScoreAdjust=-1000
END
  ln -sf ../lab-agent.service $units/sysinit.target.wants/lab-agent.service
  : >/layer/furnished
}

mkdir -p /new
layer || die "no file system for what is written"
mkdir -p /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /new || die "mount overlay"
[ -e /layer/furnished ] || furnish
mount -t tmpfs -o mode=755 tmpfs /new/run || die "mount run"
mkdir -p /new/run/lock /new/run/tmp /new/run/lab /new/run/busybox
cp /bin/busybox /agent.sh /new/run/lab/
/bin/busybox --list | while read -r applet; do ln -s /run/lab/busybox "/new/run/busybox/$applet"; done
mount -t 9p -o "rw,$options,cache=none" scratch "/new$scratch" || die "mount scratch $scratch"
ip link set lo up
# Before systemd starts anything: services bind to these addresses.
[ ! -e "/new$scratch/$name.network" ] || sh "/new$scratch/$name.network" || die "network"
for point in dev proc sys; do
  mount --move "/$point" "/new/$point" || die "move $point"
done
exec switch_root /new /lib/systemd/systemd
