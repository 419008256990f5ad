"""All that the lab knows about the command lines and the configuration of romulusd and romulusctl.

When these change, this is the file to change. Its counterpart is proto/romulus/v1/config.proto.
"""

import json
import os
import pathlib

SOCKET = "unix:///run/romulus/vm.sock"  # each lab host has a /run of its own


class Binaries:
    """Where romulusd and romulusctl were built: a CMake build folder."""

    def __init__(self, build):
        self.romulusd = pathlib.Path(build).resolve() / "daemon" / "romulusd"
        self.romulusctl = self.romulusd.with_name("romulusctl")

    def present(self):
        return all(os.access(path, os.X_OK) for path in (self.romulusd, self.romulusctl))


def config(host, peer, kernel, initrd, command_line, memory_mib, console):
    """The textproto for the node on a host. PROVISIONAL: field names follow once they are settled."""
    return f"""\
vm {{
  name: "linux"
  kernel: "{kernel}"
  initrd: "{initrd}"
  command_line: "{command_line}"
  memory_mib: {memory_mib}
  vcpus: 1
  console {{ file: "{console}" }}
}}
node {{ name: "{host.name}" replication_address: "{host.address}:7100" }}
peer {{ name: "{peer.name}" replication_address: "{peer.address}:7100" }}
control_address: "{SOCKET}"
"""


class Node:
    """romulusd on one lab host."""

    def __init__(self, host, binaries, config_file):
        self.host = host
        self._binaries = binaries
        self._config_file = config_file
        self.daemon = None  # the Job

    def start(self, role):
        self.host.run("mkdir -p /run/romulus")
        self.daemon = self.host.execute(
            [self._binaries.romulusd, "run", "--config", self._config_file, "--role", role],
            follow=True)

    def control(self, *words, timeout=60):
        """Standard output of romulusctl."""
        return self.host.run([self._binaries.romulusctl, "--address", SOCKET, *words], timeout).out

    def status(self):
        return json.loads(self.control("status", "--json"))

    def is_protected(self):
        return self.status().get("state") == "protected"

    def failover(self):
        self.control("failover")
