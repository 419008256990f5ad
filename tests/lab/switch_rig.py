"""Two hosts for romulusd with a bridge each for a guest's tap, and a third one that joins them.

    host1, host2   a bridge br0 of tap0 and the cable to host3: 10.99.1.11, 10.99.1.12
    host3          a bridge br0 of both cables: 10.99.1.1, where clients and others run

The cable between host1 and host2 is left to romulusd. The lab needs hosts=3.
"""

import time

from lab import LabError
from romulus_node import Node

GUEST_IP, SWITCH_IP = "10.99.1.2", "10.99.1.1"
GUEST_MAC = "52:54:00:99:fe:01"


def wait_until(condition, timeout, what, host, job=None):
    """For states that only asking reveals; each question takes its time, so it does not spin."""
    deadline = time.monotonic() + timeout * host.slowness
    while not condition():
        if job and not job.running():
            raise host.error(f"ended before: {what}", job)
        if time.monotonic() > deadline:
            raise host.error(f"not within {timeout} s: {what}", job)
        time.sleep(0.1)


def join_consoles(files):
    """(bytes, faults): what the nodes let out. Each wrote byte k of the guest's stream as byte k of its
    file, with holes where it was not the one; where two say a byte they must say the same."""
    contents = [file.read_bytes() if file.exists() else b"" for file in files]
    whole, faults = bytearray(max(map(len, contents))), []
    for content in contents:
        for at, byte in enumerate(content):
            if byte and whole[at] and byte != whole[at] and not faults:
                faults.append(f"the nodes let out different bytes at {at}")
            whole[at] |= byte
    if 0 in whole:
        faults.append(f"byte {whole.index(0)} was let out by nobody")
    return bytes(whole), faults


def state_of(nodes):
    """What nodes say of themselves, and said last: for an error's text."""
    texts = []
    for node in nodes:
        if not node.host.alive():
            texts.append(f"{node.name} is off")
            continue
        lines = "\n".join(node.daemon.lines.all()[-30:]) if node.daemon else ""
        try:
            status = node.status()
        except LabError as error:
            status = error
        texts.append(f"{node.name}: {status}\n{lines}")
    return "\n".join(texts)


class SwitchRig:
    """The hosts and what joins them. What runs on them is a subclass's."""

    def __init__(self, lab, binaries, config):
        self.lab, self.binaries = lab, binaries
        self.hosts, self.switch = lab.hosts[:2], lab.hosts[2]
        self._config = config  # a file, written before the first node starts

    def node(self, host):
        return Node(host, self.binaries, self._config)

    def set_up_switch(self):
        script = "ip link add br0 type bridge forward_delay 0\n"
        for host in self.hosts:
            script += self._enslave(self.switch, host)
        self.switch.run(script + f"ip addr add {SWITCH_IP}/24 dev br0\nip link set br0 up\n")

    def set_up_network(self, host):
        """After each boot."""
        host.run("ip link add br0 type bridge forward_delay 0\nip tuntap add tap0 mode tap\n"
                 "ip link set tap0 master br0\nip link set tap0 up\n"
                 + self._enslave(host, self.switch)
                 + f"ip addr add 10.99.1.1{self.hosts.index(host) + 1}/24 dev br0\n"
                 "ip link set br0 up\nmkdir -p /run/romulus\n")

    @staticmethod
    def _enslave(host, peer):
        name = host.interface_to(peer)
        return f"ip addr flush dev {name}\nip link set {name} master br0\nip link set {name} up\n"
