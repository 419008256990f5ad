"""All that the lab knows about the command lines and the configuration of romulusd and romulusctl.

When these change, this is the file to change. Its counterpart is proto/romulus/v1/config.proto.
"""

import json
import os
import pathlib

SOCKET = "unix:///run/romulus/vm.sock"  # each lab host has a /run of its own
_UUID = "5c3f9a52-7a0e-4f0b-9d0c-2f6b1c7f1e11"


class Binaries:
    """Where romulusd and romulusctl were built: a CMake build folder."""

    def __init__(self, build):
        self.romulusd = pathlib.Path(build).resolve() / "daemon" / "romulusd"
        self.romulusctl = self.romulusd.with_name("romulusctl")

    def present(self):
        return all(os.access(path, os.X_OK) for path in (self.romulusd, self.romulusctl))


def console_file(folder, host):
    """Where the node on a host writes the guest's console, byte k of the stream as byte k."""
    return folder / f"{host.name}.guest"


def config(hosts, folder, kernel, initrd, command_line, memory_mib):
    """The textproto that both nodes read, with timeouts that suit an emulated host."""
    nodes = "".join(f"""\
nodes {{
  name: "{host.name}"
  replication_address: "{host.address}:7100"
  control_address: "{SOCKET}"
}}
""" for host in hosts)
    return f"""\
name: "linux"
uuid: "{_UUID}"
{nodes}guest {{
  kernel: "{kernel}"
  initrd: "{initrd}"
  command_line: "{command_line}"
  memory_mib: {memory_mib}
}}
console {{ file: "{folder}/{{node}}.guest" }}
failover {{ heartbeat_interval_ms: 500 heartbeat_timeout_ms: 5000 }}
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
            [self._binaries.romulusd, "run", "--config", self._config_file,
             "--node", self.host.name, "--role", role],
            follow=True)

    def status(self):
        """GetStatusResponse of proto/romulus/v1/control.proto; empty while nobody answers yet."""
        result = self.host.run([self._binaries.romulusctl, "--address", SOCKET, "status", "--json"],
                               check=False)
        return json.loads(result.out) if result.status == 0 else {}

    def is_protected(self):
        return self.status().get("mode") == "MODE_PROTECTED"

    def failover(self):
        """Whether the node promoted itself: it refuses as long as it may still hear the primary."""
        return self.host.run([self._binaries.romulusctl, "--address", SOCKET, "failover"],
                             check=False).status == 0
