#!/usr/bin/env python3
"""Takes one fault out of the QEMU that emulates the lab's hosts (README.md, Traps).

    qemu_mend.py [--check] PROGRAM

VMRUN with an interrupt to inject delivers it at once, but leaves its vector where QEMU keeps an
exception that is still to be delivered (helper_vmrun, exception_index). When the processor's thread
is kicked before the guest's next exit, it delivers the vector again, as an exception: on the
interrupt handler's first instruction, interrupts off, before it has changed from the user's GS to
the kernel's. The store is not needed, and is made a no-op: 6 bytes, looked for with the stores
around it, so that another build of QEMU is either mended as well or left alone.

Exit status: 0 mended (or, with --check, it was), 1 not mended yet (--check), 3 a QEMU in which the
place was not found; it works as it always did.
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile

# env->error_code = event_inj_err; cs->exception_index = vector; env->exception_is_int = 0;
# env->exception_next_eip = -1. Only the interrupt's case of the four keeps the vector in %esi.
_STORES = re.compile(
    rb"\x44\x89\xab..\x00\x00"  # mov %r13d,ENV(%rbx)
    rb"(?P<store>\x89\xb3..\xff\xff|\x66\x0f\x1f\x44\x00\x00)"  # mov %esi,-CPU(%rbx), or mended
    rb"\xc7\x83..\x00\x00\x00\x00\x00\x00"  # movl $0,ENV+4(%rbx)
    rb"\x48\xc7\x83..\x00\x00\xff\xff\xff\xff", re.DOTALL)  # movq $-1,ENV+8(%rbx)
_NOP = b"\x66\x0f\x1f\x44\x00\x00"  # nopw 0(%rax,%rax,1)


class UnknownQemu(Exception):
    """The place is not in it, or is in it more than once."""


def mended(code):
    """The bytes of a program without the fault; the same object if it has not got it."""
    places = list(_STORES.finditer(code))
    if len(places) != 1:
        raise UnknownQemu(f"{len(places)} places look like VMRUN's injection of an interrupt")
    if places[0]["store"] == _NOP:
        return code
    start, end = places[0].span("store")
    return code[:start] + _NOP + code[end:]


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
