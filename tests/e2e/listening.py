#!/usr/bin/env python3
"""What a daemon listens on, with each configuration of config/: the addresses that the configuration names, and none else.

The namespace has the addresses of the examples, so that these are used as they are; only files are replaced. What
listens is read from /proc, for the descriptors that the process really has, whatever it says. Needs /dev/kvm.
"""

import argparse
import ipaddress
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import unittest

import arbitration
import netns
import pair as pairlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = None
CONFIGS = sorted((ROOT / "config").glob("*.textproto"))
# Which fields of a node are addresses that its daemon listens on. docs/security.md has the same table.
LISTENED_ON = ("replication_address", "heartbeat_address", "control_address", "metrics_address",
               "remote_control_address")
TCP_LISTEN = "0A"


def table(pid, name):
    lines = pathlib.Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    return [line.split() for line in lines]


def address(words):
    """"ADDRESS:PORT" of /proc/net/tcp and its kin: 32-bit words in host order."""
    packed, port = words.split(":")
    raw = b"".join(bytes.fromhex(packed[k:k + 8])[::-1] for k in range(0, len(packed), 8))
    ip = ipaddress.ip_address(raw)
    mapped = getattr(ip, "ipv4_mapped", None)
    return f"{mapped or ip}:{int(port, 16)}"


def inodes(pid):
    found = set()
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
        if match:
            found.add(match[1])
    return found


def listening(pid):
    """All that the process would take a connection or a datagram on: {"ADDRESS:PORT", "unix://PATH", "udp ..."}."""
    own, found = inodes(pid), set()
    for name in "tcp", "tcp6":
        found |= {address(line[1]) for line in table(pid, name) if line[3] == TCP_LISTEN and line[9] in own}
    for name in "udp", "udp6", "raw", "raw6":
        # A datagram socket that is connected to somebody takes from nobody else.
        found |= {f"{name} {address(line[1])}" for line in table(pid, name)
                  if line[9] in own and int(line[2].split(":")[1], 16) == 0}
    for line in table(pid, "unix"):
        if int(line[3], 16) & 0x10000 and line[6] in own:  # __SO_ACCEPTCON
            found.add("unix://" + (line[7] if len(line) > 7 else "unnamed"))
    return found


def node_sections(text):
    """{node: {field: value}}, of the configuration's text."""
    sections = {}
    for body in re.findall(r"(?ms)^nodes \{$(.*?)^\}$", text):
        fields = dict(re.findall(r'(?m)^  (\w+): "([^"]*)"$', body))
        sections[fields.pop("name")] = fields
    return sections


def documented(text, node):
    """What the configuration says that its daemon listens on."""
    sections = node_sections(text)
    fields = sections[node]
    assert set(fields) <= set(LISTENED_ON), fields
    if node == next(iter(sections)):  # of the second path the node that is listed first is the client
        fields.pop("heartbeat_address", None)
    found = set(fields.values())
    console = re.search(r'console \{ unix_socket: "([^"]*)" \}', text)
    return found | ({f"unix://{console[1].replace('{node}', node)}"} if console else set())


class Listening(unittest.TestCase):
    def setUp(self):
        self.pair = pairlib.Pair(BUILD)
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(*sys.exc_info()))

    def adapted(self, config):
        """The example with its files in the pair's folder, and a guest that every host can run."""
        folder, text = self.pair.folder, config.read_text()
        text = re.sub(r'(unix://|")(/(?:etc|run|var/lib|var/log)/romulus|/dev/vg0|/tmp)\b', rf"\1{folder}", text)
        text = re.sub(r'(?m)^  initrd: .*\n', "", text)
        text = re.sub(r'(?m)^  kernel: .*$', f'  kernel: "{BUILD}/guests/ledger.elf"', text)
        text = re.sub(r'(?m)^  command_line: .*$',
                      '  command_line: "vcpus=1 workload=uniform pages=64 report_ms=100"', text)
        text = re.sub(r'(?m)^  vcpus: .*$', "  vcpus: 1", text)
        text = re.sub(r'(?m)^  memory_mib: .*$', "  memory_mib: 32", text)
        text = re.sub(r'(?m)^  cpu_model: .*\n', "", text)
        nodes = list(node_sections(text))
        for path in re.findall(r'path: "([^"]*)"', text):
            image = pathlib.Path(path)
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
            os.truncate(image, 1 << 20)
        # Both nodes are on this host: an image and a socket for each.
        text = re.sub(r'path: "([^"]*)"', r'path: "\1.{node}"', text)
        for path in re.findall(r'path: "([^"]*)\.\{node\}"', text):
            for node in nodes:
                shutil.copy(path, f"{path}.{node}")
        for node in nodes:
            section = re.search(rf'(?ms)^nodes \{{\n  name: "{node}"$.*?^\}}$', text)[0]
            text = text.replace(section, section.replace('.sock"', f'.{node}.sock"'))
        text = text.replace('.console"', '.{node}.console"')
        for tap in re.findall(r'tap: "([^"]*)"', text):
            for node in nodes:
                netns.ip("tuntap", "add", tap.replace("{node}", node), "mode", "tap")
        fence = folder / "fence"
        fence.write_text("#!/bin/sh\nexit 2\n")
        fence.chmod(0o755)
        (folder / "etcd-password").write_text("secret\n")
        (folder / "etcd-password").chmod(0o600)
        subprocess.run([ROOT / "scripts/certs", folder / "tls", *nodes], check=True, timeout=pairlib.PATIENCE_S)
        for node in nodes:
            for end in "pem", "key":
                shutil.copy(folder / f"tls/{node}.{end}", folder)
        shutil.copy(folder / "tls/ca.pem", folder / "etcd-ca.pem")
        return text

    def start(self, text, node, role):
        daemon = self.pair.start_node(node, role)
        daemon.address = node_sections(text)[node]["control_address"]
        return daemon

    def check(self, config):
        text = self.adapted(config)
        self.pair.config.write_text(text)
        first, second = node_sections(text)
        if "etcd {" in text:  # one of the test's own, which asks for neither certificate nor password
            etcd = arbitration.Etcd()
            self.addCleanup(etcd.end)
            text = re.sub(r"(?ms)^    etcd \{$.*?^    \}$", f'    etcd {{ endpoints: "{etcd.endpoint}" }}', text)
            self.pair.config.write_text(text)
        self.start(text, second, "secondary").await_status("an answer", lambda s: True)
        one = self.start(text, first, "primary")
        one.await_status("it protects", lambda s: s["mode"] == "MODE_PROTECTED")
        for node in first, second:
            pid = self.pair.daemons[node].pid
            self.assertEqual(listening(pid), documented(text, node), f"{config.name}, {node}")

    def test_what_is_found_is_what_there_is(self):
        """Not vacuous: a process that listens on everything is seen to."""
        folder = self.pair.folder
        with socket.create_server(("0.0.0.0", 0)) as tcp, socket.create_server(("::1", 0), family=socket.AF_INET6) as six, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_UNIX) as local:
            udp.bind(("127.0.0.1", 0))
            local.bind(f"{folder}/here")
            before = listening(os.getpid())
            local.listen()
            wanted = {f"0.0.0.0:{tcp.getsockname()[1]}", f"::1:{six.getsockname()[1]}",
                      f"udp 127.0.0.1:{udp.getsockname()[1]}"}
            self.assertEqual(before, wanted)
            self.assertEqual(listening(os.getpid()), wanted | {f"unix://{folder}/here"})

    def test_nothing_of_the_examples_is_every_address(self):
        self.assertGreater(len(CONFIGS), 3)
        for config in CONFIGS:
            for node, fields in node_sections(config.read_text()).items():
                for field, value in fields.items():
                    self.assertFalse(value.startswith(("0.0.0.0", "[::]", ":")), f"{config.name}: {node} {field}")


def add(config):
    name = "test_" + config.stem.replace("-", "_")
    setattr(Listening, name, lambda self: self.check(config))


if __name__ == "__main__":
    netns.enter()
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    known, rest = parser.parse_known_args()
    BUILD = known.build.resolve()
    netns.ip("link", "set", "lo", "up")
    for host in sorted({ip for config in CONFIGS for ip in re.findall(r'"(\d+\.\d+\.\d+\.\d+):\d+"', config.read_text())}):
        if not host.startswith("127."):
            netns.ip("addr", "add", f"{host}/32", "dev", "lo")
    for one in CONFIGS:
        add(one)
    unittest.main(argv=[sys.argv[0], *rest])
