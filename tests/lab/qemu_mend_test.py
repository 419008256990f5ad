#!/usr/bin/env python3
"""qemu_mend.py changes the two places that it is for, and no other program."""

import pathlib
import tempfile
import unittest

import qemu_mend

ERROR = bytes.fromhex("4489abe0330000")  # mov %r13d,0x33e0(%rbx)
STORE = bytes.fromhex("89b310d7ffff")  # mov %esi,-0x28f0(%rbx)
REST = bytes.fromhex("c783e433000000000000" "48c783e8330000ffffffff")
NOP = bytes.fromhex("660f1f440000")
VMRUN = ERROR + STORE + REST
MENDED_VMRUN = ERROR + NOP + REST
EXCEPTION = ERROR + bytes.fromhex("4489a310d7ffff") + REST  # mov %r12d: that one is needed

CAST = bytes.fromhex("b92b000000" "488d1591bc4800" "488d35aabc4800" "e8e1123300")  # X86_CPU()
CLEAR = bytes.fromhex("81a0742c00007fffffff")  # andl $~0x80,0x2c74(%rax)
RETURN = bytes.fromhex("4883c408" "31c0")
LONG_NOP = bytes.fromhex("662e0f1f840000000000")
IGNNE = CAST + CLEAR + RETURN
MENDED_IGNNE = CAST + LONG_NOP + RETURN
SET = CAST + bytes.fromhex("8188742c000080000000") + RETURN  # orl $0x80: that one is on port F0h


class QemuMendTest(unittest.TestCase):
    def test_the_stores_and_nothing_else(self):
        code = b"\x90" * 100 + EXCEPTION + SET + IGNNE + b"\n" + VMRUN + EXCEPTION + CLEAR
        self.assertEqual(qemu_mend.mended(code), b"\x90" * 100 + EXCEPTION + SET + MENDED_IGNNE + b"\n" +
                         MENDED_VMRUN + EXCEPTION + CLEAR)

    def test_one_that_has_one_of_them(self):
        for code in MENDED_VMRUN + IGNNE, VMRUN + MENDED_IGNNE:
            self.assertEqual(qemu_mend.mended(code), MENDED_VMRUN + MENDED_IGNNE)

    def test_offsets_may_be_others(self):
        code = (VMRUN.replace(b"\xe0\x33", b"\x0a\x34").replace(b"\x10\xd7", b"\x0a\xd6") +
                IGNNE.replace(b"\x74\x2c", b"\x0a\x2d"))
        self.assertEqual(qemu_mend.mended(code), code.replace(b"\x89\xb3\x0a\xd6\xff\xff", NOP).replace(
            CLEAR.replace(b"\x74\x2c", b"\x0a\x2d"), LONG_NOP))

    def test_twice_is_once(self):
        once = qemu_mend.mended(VMRUN + IGNNE)
        self.assertIs(qemu_mend.mended(once), once)

    def test_unknown_programs_are_left(self):
        for code in (b"", EXCEPTION + IGNNE, VMRUN + VMRUN + IGNNE, VMRUN[:-1] + IGNNE, VMRUN,
                     VMRUN + SET, VMRUN + CLEAR, VMRUN + IGNNE + IGNNE, IGNNE):
            with self.assertRaises(qemu_mend.UnknownQemu):
                qemu_mend.mended(code)

    def test_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "qemu")
            path.write_bytes(VMRUN + IGNNE)
            path.chmod(0o755)
            self.assertEqual(qemu_mend.main(["--check", str(path)]), 1)
            self.assertEqual(path.read_bytes(), VMRUN + IGNNE)
            self.assertEqual(qemu_mend.main([str(path)]), 0)
            self.assertEqual(path.read_bytes(), MENDED_VMRUN + MENDED_IGNNE)
            self.assertEqual(path.stat().st_mode & 0o777, 0o755)
            self.assertEqual(qemu_mend.main(["--check", str(path)]), 0)
            self.assertEqual([path], list(path.parent.iterdir()))
            path.write_bytes(b"another")
            self.assertEqual(qemu_mend.main([str(path)]), 3)
            self.assertEqual(path.read_bytes(), b"another")


if __name__ == "__main__":
    unittest.main()
