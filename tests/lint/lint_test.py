#!/usr/bin/env python3
"""The lint finds what it is for, and nothing in good code."""

import pathlib
import tempfile
import unittest

import lint

README = """
| folder | may use |
|---|---|
| base | absl |
| metrics, memory | base |
| kvm | base |
| vmm | base, memory, kvm |
| epoch | base, memory, vmm/guest.h, metrics |
| codec | base, proto |
| wire | base, codec, proto |
"""


class LintTest(unittest.TestCase):
    def setUp(self):
        with tempfile.NamedTemporaryFile("w", suffix=".md") as file:
            file.write(README)
            file.flush()
            self.table = lint.read_table(pathlib.Path(file.name))

    def rules(self, path, text):
        checker = lint.Lint(pathlib.Path("."), self.table)
        checker.check(path, text)
        return [error.split(": ")[1] for error in checker.errors]

    def test_table(self):
        self.assertEqual(self.table["memory"], ["base"])
        self.assertIn("vmm/guest.h", self.table["epoch"])

    def test_includes(self):
        self.assertEqual(self.rules("lib/epoch/a.cc", '#include "vmm/guest.h"\n'), [])
        self.assertEqual(self.rules("lib/epoch/a.cc", '#include "vmm/machine.h"\n'), ["includes"])
        self.assertEqual(self.rules("lib/memory/a.cc", '#include "kvm/vm.h"\n'), ["includes"])
        self.assertEqual(self.rules("lib/memory/a.cc", '#include "memory/b.h"\n'), [])
        self.assertEqual(self.rules("lib/base/a.cc", '#include "absl/status/status.h"\n'), [])
        self.assertEqual(self.rules("lib/base/a.cc", '#include "daemon/log.h"\n'), ["includes"])
        self.assertEqual(self.rules("lib/base/a.cc", "#include <memory>\n"), [])
        self.assertEqual(self.rules("lib/new/a.cc", '#include "base/a.h"\n'), ["includes"])

    def test_proto(self):
        self.assertEqual(self.rules("lib/codec/a.cc", '#include "romulus/v1/x.pb.h"\n'), [])
        self.assertEqual(self.rules("lib/memory/a.cc", '#include "romulus/v1/x.pb.h"\n'), ["includes"])

    def test_kvm_header(self):
        self.assertEqual(self.rules("lib/vmm/a.cc", "#include <linux/kvm.h>\n"), ["kvm"])
        self.assertEqual(self.rules("lib/kvm/a.cc", "#include <linux/kvm.h>\n"), [])
        self.assertEqual(self.rules("lib/vmm/a.cc", "// #include <linux/kvm.h>\n"), [])

    def test_grpc_and_prometheus(self):
        self.assertEqual(self.rules("lib/codec/a.cc", "#include <grpcpp/grpcpp.h>\n"), ["grpc"])
        self.assertEqual(self.rules("lib/wire/grpc_link.cc", "#include <grpcpp/grpcpp.h>\n"), [])
        self.assertEqual(self.rules("lib/arbiter/etcd_grpc.cc", "#include <grpcpp/grpcpp.h>\n"), [])
        self.assertEqual(self.rules("lib/arbiter/record.cc", "#include <grpcpp/grpcpp.h>\n"), ["grpc"])
        self.assertEqual(self.rules("daemon/a.cc", "#include <prometheus/gauge.h>\n"), ["prometheus"])

    def test_ioctl(self):
        self.assertEqual(self.rules("lib/vmm/a.cc", "  if (::ioctl(fd, X) < 0) {\n"), ["ioctl"])
        self.assertEqual(self.rules("lib/vmm/a.cc", "  // ioctl(fd) is for others\n"), [])
        self.assertEqual(self.rules("lib/kvm/a.cc", "  ::ioctl(fd, X);\n"), [])

    def test_safety(self):
        cast = "  auto* p = reinterpret_cast<char*>(q);\n"
        self.assertEqual(self.rules("lib/vmm/a.cc", cast), ["safety"])
        self.assertEqual(self.rules("lib/vmm/a.cc", "  // SAFETY: char may alias.\n" + cast), [])
        self.assertEqual(self.rules("lib/vmm/a.cc", "  // SAFETY: x\n" + "  a();\n" * 20 + cast),
                         ["safety"])

    def test_length(self):
        self.assertEqual(self.rules("tests/a.py", "x = 1\n" * 601), ["length"])
        self.assertEqual(self.rules("tests/a.py", "x = 1\n" * 600), [])


if __name__ == "__main__":
    unittest.main()
