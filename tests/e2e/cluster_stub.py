"""Pacemaker's commands as far as deploy/pacemaker/romulus uses them, for tests: `cluster_stub.py COMMAND ...`.

What the cluster knows lies in the folder $ROMULUS_STUB_CLUSTER; the caller's node is $ROMULUS_STUB_NODE.
"""

import argparse
import fcntl
import json
import os
import pathlib
import sys

COMMANDS = ("crm_attribute", "crm_node", "crm_mon", "crm_resource")
NO_SUCH = 105  # CRM_EX_NOSUCH


class Cluster:
    """The same folder, seen by the test. Nodes: name -> {"online", "unclean", "runs"}."""

    def __init__(self, folder, nodes=()):
        self.folder = pathlib.Path(folder)
        self._file = self.folder / "cluster.json"
        if nodes:
            self.folder.mkdir(exist_ok=True)
            self._file.write_text(json.dumps({
                "properties": {}, "scores": {}, "quorum": True, "stonith": True,
                "nodes": {name: {"online": True, "unclean": False, "runs": True} for name in nodes}}))
            for name in COMMANDS:  # not by `env python3`, which may be a slow script itself
                command = self.folder / name
                command.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {pathlib.Path(__file__).resolve()} {name} "$@"\n')
                command.chmod(0o755)

    def get(self, *path):
        found = json.loads(self._file.read_text())
        for name in path:
            found = found.get(name, {}) if name != path[-1] else found.get(name)
        return found

    def put(self, value, *path):
        """None deletes."""
        with open(self._file, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            state = at = json.load(file)
            for name in path[:-1]:
                at = at[name]
            at.pop(path[-1], None)
            if value is not None:
                at[path[-1]] = value
            fresh = self._file.with_suffix(f".{os.getpid()}")  # a reader sees the old one or the new one
            fresh.write_text(json.dumps(state))
            fresh.rename(self._file)


def crm_attribute(cluster, node, words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in "-D", "-p", "--query", "--quiet":
        parser.add_argument(option, action="store_true")
    for option in "-v", "--type", "--set-name", "--name", "--update":
        parser.add_argument(option)
    asked = parser.parse_args(words)
    if asked.p:
        cluster.put(None if asked.D else int(asked.v), "scores", node)
        return 0
    if (asked.type, asked.set_name) != ("crm_config", "romulus"):
        return 64
    if asked.update:
        cluster.put(asked.update, "properties", asked.name)
        return 0
    value = cluster.get("properties", asked.name)
    if value is None:
        return NO_SUCH
    print(value)
    return 0


def crm_mon(cluster, _, words):
    assert words == ["--one-shot", "--output-as=xml"], words
    state = cluster.get()

    def text(flag):
        return str(flag).lower()

    print('<pacemaker-result api-version="2.25" request="crm_mon --one-shot --output-as=xml">\n  <summary>\n'
          f'    <current_dc present="true" with_quorum="{text(state["quorum"])}"/>\n'
          f'    <cluster_options stonith-enabled="{text(state["stonith"])}" no-quorum-policy="stop"/>\n  </summary>\n'
          "  <nodes>")
    for name, node in state["nodes"].items():
        print(f'    <node name="{name}" id="1" online="{text(node["online"])}" standby="false" standby_onfail="false"'
              f' maintenance="false" pending="false" unclean="{text(node["unclean"])}" health="green"/>')
    print("  </nodes>\n</pacemaker-result>")
    return 0


def crm_resource(cluster, _, words):
    assert words[0] == "--resource" and words[2:] == ["--locate"], words
    for name, node in cluster.get("nodes").items():
        if node["runs"]:
            print(f"resource {words[1]} is running on: {name}")
    return 0


def crm_node(_, node, words):
    assert words == ["--name"], words
    print(node)
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](
        Cluster(os.environ["ROMULUS_STUB_CLUSTER"]), os.environ["ROMULUS_STUB_NODE"], sys.argv[2:]))
