#!/usr/bin/python3
"""Guests that nobody of this project wrote boot under romulusd: Debian's kernels and memtest86+.

    foreign_guests.py --build FOLDER   where romulusd and romulusctl were built

  regular   linux-image-amd64, a bzImage, 2 vCPUs, 5 GiB, to its own power-off
  pvh       the vmlinux inside of linux-image-cloud-amd64, an ELF that is entered by PVH; then
            protected by a second romulusd on the same host, which goes on when the first is killed
  memtest   memtest86+, a bzImage without an initrd that is no Linux and starts its vCPUs itself

Exit status 0 if all of them do, 77 if there is nothing to run.
"""

import re
import shlex
import sys

import bzimage
import entry
import guest_initramfs
import images
from failover_linux import ReleasedConsole, wait_until
from romulus_node import Address, Node, config_of

TICKS = 12  # of the regular kernel; of the other one each before, while and after it is protected
BIG_MIB = 5120  # beyond the hole below 4 GiB; the host has less, and gives pages as they are touched
LINUX_LOADER, PVH_LOADER = 255, 176  # see guest_init.sh


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def expect_linux(lines, role, loader):
    """How many ticks a console has, which are all as they must be, of the kernel of that role."""
    release = next((images.kernel(role).parent / "lib/modules").iterdir()).name
    said = [line for line in lines if line.startswith("guest: kernel ")]
    want = f"guest: kernel {release} up, loader={loader} "
    expect(len(said) == 1 and said[0].startswith(want), f"{said} is not one {want!r}")
    ticks, faults = guest_initramfs.check(lines)
    expect(not faults, "; ".join(faults[:5]))
    return ticks


def address(name, port=7100):
    return Address(name, f"127.0.0.1:{port}", f"unix:///run/romulus/{name}.sock")


def node(lab, binaries, name, text):
    """One more romulusd on the only host, for the configuration `text` of its VM."""
    file = lab.scratch / f"{name}.textproto"
    file.write_text(text)
    return Node(lab.hosts[0], binaries, file, name, address(name).control)


def start_solo(lab, binaries, name, console_filter="", **guest):
    """A guest that nothing protects: the Job whose lines are its console. The log is NAME.log."""
    solo = node(lab, binaries, name, config_of([address(name)], "stdout { }", **guest))
    solo.host.run("mkdir -p /run/romulus")
    return solo.host.execute(
        f"{solo.command('primary')} 2>{shlex.quote(f'{lab.scratch}/{name}.log')} {console_filter}",
        follow=True)


def check_regular(report, lab, binaries):
    with report.check("Debian's regular kernel, a bzImage, to its power-off") as remarks:
        job = start_solo(lab, binaries, "regular", kernel=images.kernel("host"),
                         initrd=lab.scratch / "guest.cpio", memory_mib=BIG_MIB, vcpus=2,
                         command_line=f"console=ttyS0 panic=-1 romulus.ticks={TICKS} romulus.devices=1")
        job.wait_for("^guest: kernel ", 240)
        job.wait_for(f"^guest: done after {TICKS} ticks$", 120)
        status = job.wait(60).status
        expect(status == 0, f"romulusd ended with {status}")
        log = (lab.scratch / "regular.log").read_text()
        expect(" event=guest_stopped " in log and " reason=power_off " in log, log)
        ticks = expect_linux(job.lines.all(), "host", LINUX_LOADER)
        expect(ticks == TICKS, f"{ticks} ticks")
        expect(any("smp: Brought up 1 node, 2 CPUs" in x for x in job.lines.all()), "no 2 CPUs")
        memory = [int(x.split()[1]) >> 10 for x in job.lines.all() if x.startswith("memory: ")]
        # The kernel keeps some for itself: a few per cent.
        expect(len(memory) == 1 and memory[0] > BIG_MIB * 9 // 10, f"memory: {memory} MiB")
        remarks.append(f"{ticks} ticks, {memory[0]} MiB")


def check_pvh(report, lab, binaries):
    with report.check("Debian's cloud kernel, an ELF, boots by PVH", required=True) as remarks:
        entry = bzimage.extract_pvh(images.kernel("guest"), lab.scratch / "vmlinux")
        remarks.append(f"entry 0x{entry:x}")
        text = config_of([address("pvh-a", 7101), address("pvh-b", 7102)],
                         f'file: "{lab.scratch}/{{node}}.guest"', lab.scratch / "vmlinux",
                         lab.scratch / "guest.cpio", "console=ttyS0 panic=-1", 128)
        primary, secondary = (node(lab, binaries, name, text) for name in ("pvh-a", "pvh-b"))
        released = ReleasedConsole(*(lab.scratch / f"{n.name}.guest"
                                     for n in (primary, secondary)))
        primary.start("primary")
        wait_until(lambda: released.ticks() >= TICKS, 240, f"{TICKS} ticks", primary)
        ticks = expect_linux(released.lines(), "guest", PVH_LOADER)
        remarks.append(f"{ticks} ticks")
    with report.check("it is protected, its romulusd is killed, it goes on") as remarks:
        secondary.start("secondary")
        primary.daemon.wait_for(" event=mode .* mode=protected ", 120)
        mark = released.ticks()
        wait_until(lambda: released.ticks() >= mark + TICKS, 120, "more ticks", primary)
        primary.daemon.kill()
        primary.daemon.wait()
        before = released.ticks()
        wait_until(secondary.failover, 60, "failover", secondary)
        wait_until(lambda: released.ticks() >= before + TICKS, 240, "ticks", secondary)
        _, faults = released.join()
        expect(not faults, "; ".join(faults))
        ticks = expect_linux(released.lines(), "guest", PVH_LOADER)
        remarks.append(f"{before} ticks before, {ticks - before} after")
    for each in primary, secondary:
        each.daemon.kill()
        each.daemon.wait()


def check_memtest(report, lab, binaries):
    with report.check("memtest86+ boots, its tests 0 to 9 pass on 2 CPUs") as remarks:
        # It draws a screen: no line ends, but an escape before each row.
        job = start_solo(lab, binaries, "memtest", r"| stdbuf -o0 tr '\033' '\n'",
                         kernel=images.kernel("memtest"), initrd=None, memory_mib=16, vcpus=2,
                         command_line="console=ttyS0,115200")
        remarks.append(job.wait_for(r"Memtest86\+ v[\d.]+", 60)[0])
        job.wait_for("Memory  : +16MB ", 30)
        job.wait_for(r"SMP: 2T .* Status: Testing ", 30)
        job.wait_for(r"#10 +\[", 240)
        drawn = "\n".join(job.lines.all())
        expect("Using: All Cores " in drawn, "it did not use both CPUs")
        errors = set(re.findall(r"Errors: +(\d+)", drawn))
        expect(errors == {"0"}, f"errors: {errors}")
        job.kill()
        job.wait()


def run(report, lab, binaries):
    guest_initramfs.build(lab.scratch / "guest.cpio")
    check_regular(report, lab, binaries)
    check_memtest(report, lab, binaries)
    check_pvh(report, lab, binaries)


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run, hosts=1, memory_mib=1536))
