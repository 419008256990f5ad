#!/usr/bin/env python3
"""qemu_mend.py changes the one place that it is for, and no other program."""

import pathlib
import tempfile
import unittest

import qemu_mend

ERROR = bytes.fromhex("4489abe0330000")  # mov %r13d,0x33e0(%rbx)
STORE = bytes.fromhex("89b310d7ffff")  # mov %esi,-0x28f0(%rbx)
REST = bytes.fromhex("c783e433000000000000" "48c783e8330000ffffffff")
PLACE = ERROR + STORE + REST
EXCEPTION = ERROR + bytes.fromhex("4489a310d7ffff") + REST  # mov %r12d: that one is needed
NOP = bytes.fromhex("660f1f440000")


class QemuMendTest(unittest.TestCase):
    def test_the_store_and_nothing_else(self):
        code = b"\x90" * 100 + EXCEPTION + b"\n" + PLACE + EXCEPTION
        self.assertEqual(qemu_mend.mended(code),
                         b"\x90" * 100 + EXCEPTION + b"\n" + ERROR + NOP + REST + EXCEPTION)

    def test_offsets_may_be_others(self):
        code = PLACE.replace(b"\xe0\x33", b"\x0a\x34").replace(b"\x10\xd7", b"\x0a\xd6")
        self.assertEqual(qemu_mend.mended(code), code.replace(b"\x89\xb3\x0a\xd6\xff\xff", NOP))

    def test_twice_is_once(self):
        once = qemu_mend.mended(PLACE)
        self.assertIs(qemu_mend.mended(once), once)

    def test_unknown_programs_are_left(self):
        for code in (b"", EXCEPTION, PLACE + PLACE, PLACE[:-1]):
            with self.assertRaises(qemu_mend.UnknownQemu):
                qemu_mend.mended(code)

    def test_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "qemu")
            path.write_bytes(PLACE)
            path.chmod(0o755)
            self.assertEqual(qemu_mend.main(["--check", str(path)]), 1)
            self.assertEqual(path.read_bytes(), PLACE)
            self.assertEqual(qemu_mend.main([str(path)]), 0)
            self.assertEqual(path.read_bytes(), ERROR + NOP + REST)
            self.assertEqual(path.stat().st_mode & 0o777, 0o755)
            self.assertEqual(qemu_mend.main(["--check", str(path)]), 0)
            self.assertEqual([path], list(path.parent.iterdir()))
            path.write_bytes(b"another")
            self.assertEqual(qemu_mend.main([str(path)]), 3)
            self.assertEqual(path.read_bytes(), b"another")


if __name__ == "__main__":
    unittest.main()
