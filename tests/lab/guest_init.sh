#!/bin/busybox sh
# First process of the Linux guest. Its console shows whether it is the machine it believes to be:
#
#   tick 000017 sum <md5> ok t=12.34
#
# A tree of files in tmpfs holds the state. Tick n first verifies every file against the sum noted
# when it was written, then rewrites file n mod FILES with the text "n <sum of tick n-1>" again and
# again; the sum of tick n is the md5 over the whole tree. So each sum depends on all of memory
# since the boot, and whoever reads the console can compute what it must be (guest_initramfs.py). A
# verification that fails turns "ok" into "BAD". t is the guest's own uptime.
#
# Kernel command line (from 'romulus.' on):
#   romulus.period_cs=N  centiseconds of guest time from tick to tick (default 20)
#   romulus.ticks=N      ends after tick N (default 0: never)
#   romulus.end=poweroff|reboot|halt  how it ends (default poweroff)
#   romulus.files=N romulus.kib=N     the tree (default 8 files of 16 KiB)
#   romulus.console=NAME  ticks go to /dev/NAME (default: where the kernel's console is)
#   romulus.devices=1    says first which virtio devices it found: "device: ...", "irq: ...", "rng: ...";
#                        and how much memory: "memory: N kB"
#   romulus.ip=A.B.C.D   the address of eth0, in a network of 24 bits
#   romulus.disk=NAME    tick n is also written to /dev/NAME, as "tick n" at sector n mod 2048, and the
#                        one before it, which went to the disk itself, is read again and compared
#
# Modules that the image has are loaded first, in the order of /modules/order.

/bin/busybox mkdir -p /bin /proc /sys /dev /tree
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tree

period_cs=20 ticks=0 end=poweroff files=8 kib=16 console='' devices='' ip='' disk=''
for word in $(cat /proc/cmdline); do
  case "$word" in romulus.*=*[!a-z0-9.]*) ;; romulus.*=*) eval "${word#romulus.}" ;; esac
done
echo 4 >/proc/sys/kernel/printk # the console is for ticks

now_cs() { # guest uptime in centiseconds, into $now; no fork
  read -r up _ </proc/uptime
  whole=${up%.*} part=${up#*.}
  now=$((whole * 100 + 1$part - 100))
}

say_devices() { # what the kernel's drivers made of the machine's virtio devices
  for device in /sys/bus/virtio/devices/*; do
    [ -e "$device/device" ] || continue
    driver=$(readlink "$device/driver")
    echo "device: ${device##*/} id=$(cat "$device/device") status=$(cat "$device/status")" \
      "driver=${driver##*/}"
  done
  echo "memory: $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
  while read -r irq rest; do
    case "$rest" in *virtio*) echo "irq: $irq $rest" ;; esac
  done </proc/interrupts
  [ -e /dev/hwrng ] && echo "rng: $(cat /sys/class/misc/hw_random/rng_current)" \
    "$(head -c 32 /dev/hwrng | md5sum)"
}

write_file() { # write_file INDEX TEXT
  yes "$2" | head -c $((kib * 1024)) >"/tree/$1"
  set -- "$1" $(md5sum "/tree/$1")
  eval "noted$1=$2"
}

if [ -f /modules/order ]; then
  while read -r module; do
    insmod "/modules/$module" || echo "guest: insmod $module failed"
  done </modules/order
fi
[ -z "$console" ] || exec >"/dev/$console" 2>&1
[ -z "$devices" ] || say_devices

[ -z "$ip" ] || ifconfig eth0 "$ip" netmask 255.255.255.0 up || echo "guest: no eth0"

write_disk() { # write_disk TICK: durably; turns the verdict if the last one is not there
  if [ "$1" -gt 1 ]; then
    found=$(dd if="/dev/$disk" bs=512 skip=$((($1 - 1) % 2048)) count=1 iflag=direct 2>/dev/null | head -n 1)
    [ "$found" = "tick $(($1 - 1))" ] || verdict=BAD
  fi
  printf 'tick %d\n' "$1" | dd of="/dev/$disk" bs=512 seek=$(($1 % 2048)) conv=sync,fsync,notrunc \
    2>/dev/null || verdict=BAD
}

cd /tree
list=
i=0
while [ $i -lt "$files" ]; do
  write_file $i "0 start"
  list="$list $i"
  i=$((i + 1))
done
sum=start
tick=0
now_cs
due=$now
# How the kernel was entered: 255 by the Linux boot protocol from a loader without a number, which
# romulusd is; 176 by PVH, which the kernel notes itself (arch/x86/platform/pvh/enlighten.c).
loader=$(cat /proc/sys/kernel/bootloader_type)
echo "guest: kernel $(uname -r) up, loader=$loader files=$files kib=$kib period_cs=$period_cs" \
  "ticks=$ticks"

while [ "$ticks" = 0 ] || [ $tick -lt "$ticks" ]; do
  tick=$((tick + 1))
  verdict=ok
  md5sum $list >/sums
  while read -r found name; do
    eval "[ \$noted$name = $found ]" || verdict=BAD
  done </sums
  [ -z "$disk" ] || write_disk $tick
  write_file $((tick % files)) "$tick $sum"
  set -- $(cat $list | md5sum)
  sum=$1
  due=$((due + period_cs))
  now_cs
  if [ $now -lt $due ]; then
    usleep $(((due - now) * 10000))
  else
    due=$now # late: the next one is a period from now, so no burst of ticks follows a pause
  fi
  now_cs
  printf 'tick %06d sum %s %s t=%d.%02d\n' $tick "$sum" $verdict $((now / 100)) $((now % 100))
done

echo "guest: done after $tick ticks"
sleep 0.2 # the serial driver sends from its own buffer
case "$end" in
  reboot) reboot -f ;;
  halt) halt -f ;;
  *) poweroff -f ;;
esac
