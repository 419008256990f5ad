#!/usr/bin/python3
"""Shows that the lab does what its README says. Needs nothing built; about two minutes.

    selftest.py [--ledger FILE]   FILE is ledger.elf of tests/guests, booted too when given
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile

import guest_initramfs
import images
from lab import Lab, LabError
from report import Report


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def ping(host, peer, count=3, interval=1.0):
    """How many of the pings were answered."""
    result = host.run(f"ping -c {count} -i {interval} -W 1 {peer.address}", check=False)
    found = re.search(r"(\d+) packets received", result.out)
    return int(found[1]) if found else 0


def echo_requests_seen(host):
    rows = [line.split() for line in host.run("grep ^Icmp: /proc/net/snmp").out.splitlines()]
    return int(dict(zip(*rows))["InEchos"])


def must_fail(call, *words):
    """The text of the LabError that the call must raise, which must hold all the words."""
    try:
        call()
    except LabError as error:
        for word in words:
            expect(word in str(error), f"error does not say {word!r}: {error}")
        return str(error)
    raise AssertionError("no error")


def check_hosts(report, lab):
    one, two = lab.hosts
    for host in lab.hosts:
        with report.check(f"{host.name} has KVM with dirty rings") as remarks:
            out = host.run(["/usr/bin/python3", images.HERE / "kvm_check.py"]).out
            remarks += out.split()
    with report.check("a command gives status, output and errors apart"):
        result = one.run("echo out; echo err >&2; exit 7", check=False)
        expect((result.status, result.out, result.err) == (7, "out\n", "err\n"), result)
        must_fail(lambda: one.run("echo why >&2; exit 7"), "host1 (on)", "exit status 7", "why")
    with report.check("a large output arrives whole"):
        out = one.run("head -c 3000000 /dev/zero | tr '\\0' x").out
        expect(out == "x" * 3000000, f"{len(out)} bytes")
    with report.check("commands run side by side"):
        # Neither ends without the other.
        one.run("mkfifo /run/a /run/b")
        pair = [one.execute("echo to-b >/run/a; cat /run/b", follow=True),
                one.execute("cat /run/a; echo to-a >/run/b", follow=True)]
        pair[0].wait_for("to-a")
        pair[1].wait_for("to-b")
        expect([job.wait().status for job in pair] == [0, 0], "status")
    with report.check("output can be followed, ports are used again"):
        for n in range(12):  # more often than there are ports
            job = one.execute(f"echo line {n}; exit {n}", follow=True)
            job.wait_for(f"^line {n}$")
            expect(job.wait().status == n, "status")
    with report.check("a late command is killed, and its error says so"):
        must_fail(lambda: one.run("sleep 1000 & sleep 1001", timeout=2), "took more than",
                  "last console lines of host1")
        one.run("while pgrep -x sleep; do :; done", timeout=20)  # its whole process group went
    with report.check("the machine's files are there, read-only"):
        expect(two.run(["sha256sum", __file__]).out.split()[0]
               == subprocess.run(["sha256sum", __file__], capture_output=True, text=True,
                                 check=True).stdout.split()[0], "sha256")
        expect(two.run("touch /lab-was-here", check=False).status != 0, "root is writable")
        expect(not os.path.exists("/lab-was-here"), "root was written to")
    with report.check("the scratch folder is shared by all"):
        one.run("echo from host1 >note")
        expect(two.run("cat note; echo from host2 >>note").out == "from host1\n", "host2 read")
        expect((lab.scratch / "note").read_text() == "from host1\nfrom host2\n", "machine read")


def check_cables(report, lab):
    one, two = lab.hosts
    with report.check("ping across") as remarks:
        expect(ping(one, two) == 3 and ping(two, one) == 3, "lost")
    with report.check("cut: nothing passes, restore: all does"):
        lab.cut(one, two)
        expect(ping(one, two, 2) == 0, "passed")
        lab.restore(one, two)
        expect(ping(one, two, 2) == 2, "lost")
    with report.check("cut one way: requests pass, replies do not"):
        lab.cut(one, two, one_way=True)
        before = echo_requests_seen(one)
        expect(ping(two, one, 3) == 0, "a reply passed")
        expect(echo_requests_seen(one) - before == 3, "requests did not pass")
        lab.restore(one, two)
    with report.check("lose half of the frames") as remarks:
        lab.lose(one, two, 0.5, one_way=True)
        answered = ping(one, two, 40, 0.05)
        remarks.append(f"{answered} of 40 answered")
        expect(0 < answered < 40, answered)  # by chance once in 2^39
        lab.restore(one, two)
    with report.check("unplug: the kernel sees the carrier go"):
        carrier = "cat /sys/class/net/eth0/carrier"
        lab.unplug(one, two)
        expect([h.run(carrier).out for h in lab.hosts] == ["0\n", "0\n"], "carrier")
        lab.restore(one, two)
        expect([h.run(carrier).out for h in lab.hosts] == ["1\n", "1\n"], "carrier")
        expect(ping(one, two) > 0, "lost after plugging in")
        lab.unplug(one, two)
        one.kill()  # an unplugged host may die, and comes back plugged in
        lab.boot(one)
        lab.restore(one, two)
        expect(ping(one, two) > 0, "lost after a boot")
    with report.check("TCP across") as remarks:
        size = 20_000_000
        server = two.execute(
            ["/usr/bin/python3", "-c",
             "import hashlib, socket; s = socket.create_server(('10.99.0.2', 7000));"
             "print('listening', flush=True); f = s.accept()[0].makefile('rb');"
             "print(hashlib.md5(f.read()).hexdigest())"], follow=True)
        server.wait_for("listening")
        one.run(["/usr/bin/python3", "-c", "import socket; socket.create_connection("
                 f"('10.99.0.2', 7000)).sendall(bytes({size}))"], timeout=120)
        found = server.wait_for("^[0-9a-f]{32}$")[0]
        server.wait()
        remarks.append(f"{size} bytes")
        expect(found == hashlib.md5(bytes(size)).hexdigest(), "damaged")


def boot_guest(host, scratch, ticks):
    """The console lines of the Linux guest under QEMU with KVM in a host."""
    guest_initramfs.build(scratch / "guest.cpio")
    job = host.execute(
        ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "128", "-nodefaults",
         "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", images.kernel("guest"),
         "-initrd", scratch / "guest.cpio",
         "-append", f"console=ttyS0 panic=-1 romulus.ticks={ticks}"], follow=True)
    expect(job.wait(240).status == 0, "QEMU failed: " + "\n".join(job.lines.all()[-5:]))
    return job.lines.all()


def check_guests(report, lab, ledger):
    host = lab.hosts[0]
    with report.check("a Linux guest runs under KVM in host1") as remarks:
        lines = boot_guest(host, lab.scratch, 20)
        ticks, faults = guest_initramfs.check(lines)
        remarks.append(f"{ticks} ticks")
        expect(ticks == 20 and not faults, faults)
    with report.check("a console with a gap, a repeat or damage is found"):
        ticked = [line for line in lines if line.startswith("tick ")]
        for bad in (ticked[:5] + ticked[6:], ticked[:5] + ticked[4:],
                    [line.replace(" ok ", " BAD ") for line in ticked],
                    ticked[:-1] + [ticked[-1].replace(" sum ", " sum 0")],
                    ticked[:-1] + [re.sub("sum [0-9a-f]{4}", "sum 0000", ticked[-1])]):
            expect(guest_initramfs.check(bad)[1], "not found")
    if not ledger:
        report.skip("the ledger guest runs under KVM in host1", "no --ledger FILE")
        return
    with report.check("the ledger guest runs under KVM in host1") as remarks:
        job = host.execute(
            ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "128", "-smp", "2",
             "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
             "-kernel", ledger, "-append", "vcpus=2 workload=hotcold steps=5 reset_at_end=1"],
            follow=True)
        found = job.wait_for(r"^ledger: done steps 5 .* vcpus 2 ok", 120)
        remarks.append(found[0])
        expect(job.wait().status == 0, "QEMU failed")


def check_failures(report, lab):
    one, two = lab.hosts
    with report.check("freeze: host1 stands still, thaw: it goes on"):
        one.freeze()
        lab.cut(one, two)
        lab.restore(one, two)
        expect(ping(two, one, 2) == 0, "a frozen host answered")
        must_fail(lambda: one.run("true", timeout=1), "host1 (frozen)", "took more than")
        one.thaw()
        expect(ping(two, one, 3) > 0, "lost after thaw")
        one.run("true")
    with report.check("kill: host2 notices, errors name host1"):
        boot_id = one.run("cat /proc/sys/kernel/random/boot_id").out
        running = one.execute("sleep 1000")
        one.kill()
        expect(ping(two, one, 2) == 0, "a dead host answered")
        must_fail(running.wait, "host1 (off)", "ended during")
        must_fail(lambda: one.run("true"), "host1 (off)")
    with report.check("a killed host boots again"):
        lab.boot(one)
        expect(one.run("cat /proc/sys/kernel/random/boot_id").out != boot_id, "same boot")
        expect(ping(one, two) > 0 and ping(two, one) > 0, "lost")


def children(pid):
    try:
        return [int(word) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
                for word in (task / "children").read_text().split()]
    except OSError:
        return []


def check_leftovers(report):
    """Kills a whole lab and looks for its QEMU and its scratch folder."""
    for number in signal.SIGKILL, signal.SIGTERM:
        with report.check(f"a lab that gets {number.name} leaves no process"), \
                tempfile.TemporaryDirectory() as folder:
            lab = subprocess.Popen(
                [sys.executable, "-c", "from lab import Lab\nwith Lab(hosts=2) as lab:\n"
                 " print('up', *(h.pid for h in lab.hosts), flush=True)\n"
                 " lab.hosts[0].run('sleep 999', 999)"],
                cwd=images.HERE, env={**os.environ, "TMPDIR": folder}, stdout=subprocess.PIPE,
                text=True)
            try:
                words = lab.stdout.readline().split()
                expect(words[:1] == ["up"], "it did not start")
                handles = [os.pidfd_open(int(word)) for word in words[1:]]
                lab.send_signal(number)
                lab.wait(30)
                for handle in handles:
                    expect(select.select([handle], [], [], 10)[0], "a QEMU lives on")
                    os.close(handle)
                left = list(pathlib.Path(folder).iterdir())
                if number == signal.SIGTERM:
                    expect(not left, f"left behind: {left}")
                    expect(lab.returncode == 128 + number, lab.returncode)
            finally:
                lab.kill()
                lab.wait()
                lab.stdout.close()


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ledger", type=pathlib.Path, help="ledger.elf of tests/guests")
    options = parser.parse_args(words)
    ledger = options.ledger and options.ledger.resolve(strict=True)
    report = Report()
    try:
        with contextlib.ExitStack() as stack:
            with report.check("two hosts boot", required=True):
                lab = stack.enter_context(Lab())
            check_hosts(report, lab)
            check_cables(report, lab)
            check_guests(report, lab, ledger)
            check_failures(report, lab)
            lab.keep = report.failed > 0
    except (LabError, images.ImageError):
        pass  # the table has it
    else:
        check_leftovers(report)
    return report.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
