#!/usr/bin/python3
"""A stock Debian kernel drives every virtio device, and goes on with them at the other host.

    virtio_linux.py --build FOLDER   where romulusd and romulusctl were built

Its ticks leave by the virtio console and go to its disk; it answers pings by its network card. Exit
status 0 if all devices work before and after the first host loses power, 77 if there is nothing to
run.
"""

import re
import sys

import entry
import guest_initramfs
import images
from failover_linux import ReleasedConsole, wait_until
from romulus_node import HEARTBEAT_TIMEOUT_MS, Node, config, console_file

MODULES = ("virtio_mmio", "virtio-rng", "virtio_console", "virtio_blk", "virtio_net")
TICKS = 10  # before, and while protected; twice as many after
# virtio's device ids (virtio 1.2, 5), and who drives them.
DRIVERS = {"0x0001": "virtio_net", "0x0002": "virtio_blk", "0x0003": "virtio_console",
           "0x0004": "virtio_rng"}
GUEST_IP, HOST_IP = "10.98.0.2", "10.98.0.1"
DISK_BYTES = 1 << 20


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def expect_devices(lines):
    found = {}
    for line in lines:
        match = re.match(r"device: virtio\d+ id=(0x\w+) status=(0x\w+) driver=(\w*)$", line)
        if match:
            found[match[1]] = match[3]
            expect(int(match[2], 16) & 0xf == 0xf, f"not ready: {line}")
            expect(int(match[2], 16) & 0xc0 == 0, f"failed: {line}")
    expect(found == DRIVERS, f"{found} is not {DRIVERS}")
    irqs = [line for line in lines if re.match(r"irq: \d+: +\d+ .*IO-APIC .*virtio\d+$", line)]
    expect(len(irqs) == len(DRIVERS), f"{len(irqs)} interrupts: {irqs}")
    expect(any(line.startswith("rng: virtio_rng.0 ") for line in lines), "no virtio_rng")
    return "; ".join(line for line in lines if line.startswith(("device: ", "irq: ", "rng: ")))


def expect_devices_in_status(node):
    devices = {device["name"]: device for device in node.status()["devices"]}
    expect(set(devices) == {"virtio.block.data", "virtio.net.0", "virtio.console", "virtio.rng"},
           f"devices in the status: {sorted(devices)}")
    for device in devices.values():
        expect(not device.get("needs_reset") and not device.get("faults"), f"faults: {device}")
    counters = devices["virtio.block.data"]["counters"]  # those that are not zero
    expect("writes" in counters and "errors" not in counters, f"disk: {counters}")
    counters = devices["virtio.net.0"]["counters"]
    expect("frames_in" in counters and "frames_out" in counters, f"nic: {counters}")


def make_tap(host):
    host.run("ip tuntap add dev guest0 mode tap && "
             f"ip addr add {HOST_IP}/24 dev guest0 && ip link set guest0 up")


def ping(host):
    host.run(f"busybox ping -c 3 -W 20 {GUEST_IP}", timeout=120)


def expect_disk(image, last_tick):
    """Of the last ticks that were said, each is where it belongs: it was written before it was said."""
    data = image.read_bytes()
    for tick in range(max(1, last_tick - 100), last_tick + 1):
        found = data[tick * 512:tick * 512 + 512].rstrip(b"\0")
        expect(found == b"tick %d\n" % tick, f"sector {tick} of {image.name} has {found!r}")


def run(report, lab, binaries):
    one, two = lab.hosts
    guest_initramfs.build(lab.scratch / "guest.cpio", MODULES)
    released = ReleasedConsole(*(console_file(lab.scratch, host) for host in lab.hosts))
    for host in lab.hosts:
        with open(lab.scratch / f"{host.name}.img", "wb") as disk:
            disk.truncate(DISK_BYTES)
        make_tap(host)
    file = lab.scratch / "linux.textproto"
    file.write_text(config(
        lab.hosts, lab.scratch, images.kernel("guest"), lab.scratch / "guest.cpio",
        "console=ttyS0 panic=-1 romulus.console=hvc0 romulus.devices=1 romulus.disk=vda "
        f"romulus.ip={GUEST_IP}", 96,
        devices=f'disks {{ name: "data" path: "{lab.scratch}/{{node}}.img" }} '
                f'nics {{ tap: "guest0" mac: "52:54:00:98:00:02" announce_ip: "{GUEST_IP}" }} '
                "rng: true virtio_console: true\n"))
    primary, secondary = Node(one, binaries, file), Node(two, binaries, file)

    with report.check("the kernel finds and drives all of them", required=True) as remarks:
        primary.start("primary")
        wait_until(lambda: released.ticks() >= 1, 300, "first tick of the guest", primary)
        remarks.append(expect_devices(released.lines()))
        ping(one)
        expect_devices_in_status(primary)
    with report.check("they work while the guest is protected", required=True) as remarks:
        secondary.start("secondary")
        wait_until(primary.is_protected, 300, "state protected", primary)
        mark = released.ticks()
        wait_until(lambda: released.ticks() >= mark + TICKS, 120, "more ticks", primary)
        ping(one)
        remarks.append(f"{released.ticks()} ticks by hvc0")
    with report.check("host1 loses power, they work at host2", required=True) as remarks:
        one.kill()
        before = released.ticks()
        wait_until(secondary.failover, 60, "failover at host2", secondary)
        wait_until(lambda: released.ticks() >= before + 2 * TICKS, 120, "ticks at host2", secondary)
        ping(two)
        expect_devices_in_status(secondary)
        remarks.append(f"last tick before {before}, then {released.ticks() - before} more")
    with report.check("all ticks: no gap, no repeat, memory and disk intact") as remarks:
        ticks, faults = guest_initramfs.check(released.lines())
        faults = released.join()[1] + faults
        remarks.append(f"{ticks} ticks")
        expect(not faults, "; ".join(faults[:5]))
        expect_disk(lab.scratch / "host2.img", ticks)
    with report.check("the guest's clock knows of the failover") as remarks:
        # Nobody failed over before the primary had been silent for so long, and the guest did not run.
        times = guest_initramfs.tick_times(released.lines())
        gap = max(b - a for a, b in zip(times, times[1:]))
        remarks.append(f"{gap:.2f} s between two ticks")
        expect(gap * 1000 >= HEARTBEAT_TIMEOUT_MS, f"longest time between ticks: {gap:.2f} s")


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run))
