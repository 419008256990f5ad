#!/usr/bin/env python3
"""An interrupt that a hypervisor in a lab host injects is handled once, however its CPU is kicked.

That is so in the QEMU that scripts/lab-setup leaves (qemu_mend.py); in Debian's own the first stop
that comes while the handler runs makes it run twice, and is itself forgotten: it is late.
"""

import pathlib
import re
import socket
import subprocess
import sys
import tempfile

import images
import process
from lines import Lines, read_lines
from qmp import Qmp, QmpError
from report import Report

STOPS = 20
LIMIT_S = 60  # for each wait, on a busy machine


def build(folder):
    program = folder / "vmrun.elf"
    subprocess.run(
        ["gcc", "-m32", "-march=i686", "-O1", "-ffreestanding", "-fno-pic", "-no-pie", "-static",
         "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables",
         "-nostdlib", "-Wl,--no-warn-rwx-segments", "-Wall", "-Wextra", "-Werror", "-Wl,-Ttext=0x100000,-n,--build-id=none",
         "-o", program, images.HERE / "vmrun.c"], check=True, timeout=LIMIT_S)
    return program


def stop_and_count(qmp, said):
    """What the hypervisor said last, after STOPS stops, each when it has said something new."""
    seen = said.count()
    for _ in range(STOPS):
        said.wait_for(r"^exit ", LIMIT_S, seen)
        seen = said.count()
        qmp.command("stop")
        qmp.command("cont")
    lines = said.all()
    for line in lines:
        code, injected, handled = map(int, re.fullmatch(
            r"exit (\d+) injected (\d+) handled (\d+)", line).groups())
        assert code == 0x81 and injected == handled, line
    return lines[-1]


def main():
    report = Report()
    with report.check("each injected interrupt was handled once") as remarks, \
            tempfile.TemporaryDirectory() as folder:
        ours, theirs = socket.socketpair()
        port, its_port = socket.socketpair()
        qemu = process.launch(
            [*images.qemu(), "-nodefaults", "-display", "none", "-accel", "tcg,thread=multi",
             "-cpu", "max,+svm,+npt", "-m", "16", "-kernel", build(pathlib.Path(folder)),
             "-chardev", f"socket,id=said,fd={its_port.fileno()}",
             "-device", "isa-debugcon,chardev=said",
             "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"],
            [theirs.fileno(), its_port.fileno()])
        theirs.close()
        its_port.close()
        said = Lines()
        read_lines(port, said.add, said.end)
        try:
            remarks.append(stop_and_count(Qmp(ours, LIMIT_S), said))
        except (OSError, QmpError) as late:
            raise AssertionError(f"a stop was late: {late}; last said: {said.all()[-1:]}") from None
        finally:
            process.end(qemu)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
