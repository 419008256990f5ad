#!/usr/bin/env python3
"""Takes two faults out of the QEMU that emulates the lab's hosts (README.md, Traps).

    qemu_mend.py [--check] PROGRAM

1. VMRUN with an interrupt to inject delivers it at once, but leaves its vector where QEMU keeps an
exception that is still to be delivered (helper_vmrun, exception_index). When the processor's thread
is kicked before the guest's next exit, it delivers the vector again, as an exception: on the
interrupt handler's first instruction, interrupts off, before it has changed from the user's GS to
the kernel's. The store is not needed.

2. Whichever processor executes XRSTOR or FXRSTOR clears a bit of processor 0's hflags2, with neither
lock nor atomic instruction (cpu_clear_ignne: the bit is that of a maths coprocessor of 1989). What
processor 0 itself writes there meanwhile is undone: whether a guest runs on it, with nested paging,
with interrupts. After such a VM exit the host's first fetch goes through the guest's page tables, and
the host's registers are saved as the guest's.

Both stores are made no-ops: 6 and 10 bytes, looked for with the code around them, so that another build
of QEMU is either mended as well or left alone.

Exit status: 0 mended (or, with --check, it was), 1 not mended yet (--check), 3 a QEMU in which the
places were not found; it works as it always did.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import sys
import tempfile



@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    around: re.Pattern  # its group "store" is the instruction, or what it was replaced by
    nop: bytes


FAULTS = (
    # env->error_code = event_inj_err; cs->exception_index = vector; env->exception_is_int = 0;
    # env->exception_next_eip = -1. Only the interrupt's case of the four keeps the vector in %esi.
    Fault("VMRUN's injection of an interrupt", re.compile(
        rb"\x44\x89\xab..\x00\x00"  # mov %r13d,ENV(%rbx)
        rb"(?P<store>\x89\xb3..\xff\xff|\x66\x0f\x1f\x44\x00\x00)"  # mov %esi,-CPU(%rbx)
        rb"\xc7\x83..\x00\x00\x00\x00\x00\x00"  # movl $0,ENV+4(%rbx)
        rb"\x48\xc7\x83..\x00\x00\xff\xff\xff\xff", re.DOTALL),  # movq $-1,ENV+8(%rbx)
          b"\x66\x0f\x1f\x44\x00\x00"),  # nopw 0(%rax,%rax,1)
    # X86_CPU(first_cpu)->env.hflags2 &= ~HF2_IGNNE_MASK
    Fault("cpu_clear_ignne", re.compile(
        rb"\xb9.\x00\x00\x00"  # mov $LINE,%ecx
        rb"\x48\x8d\x15....\x48\x8d\x35...."  # lea __func__,%rdx; lea "x86_64-cpu",%rsi
        rb"\xe8...."  # call object_dynamic_cast_assert
        rb"(?P<store>\x81\xa0..\x00\x00\x7f\xff\xff\xff|\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00)"
        rb"\x48\x83\xc4\x08", re.DOTALL),  # andl $~0x80,HFLAGS2(%rax); add $8,%rsp
          b"\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00"),  # cs nopw 0(%rax,%rax,1)
)


class UnknownQemu(Exception):
    """One of the places is not in it, or is in it more than once."""


def mended(code):
    """The bytes of a program without the faults; the same object if it has none of them."""
    for fault in FAULTS:
        places = list(fault.around.finditer(code))
        if len(places) != 1:
            raise UnknownQemu(f"{len(places)} places look like {fault.name}")
        if places[0]["store"] != fault.nop:
            start, end = places[0].span("store")
            code = code[:start] + fault.nop + code[end:]
    return code


def replace(path, code):
    """In one step: a QEMU that runs keeps the file that it was started from."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(code)
    os.chmod(file.name, path.stat().st_mode)
    os.rename(file.name, path)


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("program", type=pathlib.Path)
    options = parser.parse_args(words)
    path = options.program.resolve()
    code = path.read_bytes()
    try:
        good = mended(code)
    except UnknownQemu as unknown:
        print(f"qemu_mend: {path} is left as it is: {unknown}", file=sys.stderr)
        return 3
    if good is code:
        return 0
    if options.check:
        return 1
    replace(path, good)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
