#!/usr/bin/env python3
"""A real Prometheus watches two daemons, over a failover: every rule and every panel in deploy/ finds its data.

The pair has all that can be measured: a disk, a network card, a second path and an etcd. In a network namespace of
its own. Needs /dev/kvm, etcd-server, prometheus, and root or user namespaces.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import yaml

import arbitration
import netns
import pair as pairlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/grafana"), str(ROOT / "tests/deploy")]
import dashboards  # noqa: E402
import promql  # noqa: E402

BUILD = None
# What Grafana puts in before it asks.
VARIABLES = {"$vm": "ledger", "$node": ".+", "$__rate_interval": "10s", "$__range": "5m"}
NEEDED = ("prometheus", "promtool", "etcd", "etcdctl")


def get(url):
    with urllib.request.urlopen(url, timeout=pairlib.PATIENCE_S) as page:
        return page.read().decode()


class Prometheus:
    """On loopback, with the example's configuration but for addresses and times; ended by its own pid."""

    def __init__(self, targets):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="romulus-prometheus-"))
        config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(ROOT / "deploy/prometheus/romulus.rules.yml")]
        config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
        del config["alerting"]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{pairlib.free_ports(1)[0]}"
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
                 f"--web.listen-address={self.address}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=pairlib.die_with_parent)

    def end(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)

    def api(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            if error.code >= 500:  # it is about to start
                raise
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def values(self, expression):
        """The numbers that it gives now."""
        found = [float(one["value"][1]) for one in self.api("query", query=expression)["result"]]
        return [value for value in found if not math.isnan(value)]

    def await_true(self, expression):
        """Until it has a value that is not 0."""
        deadline = time.monotonic() + pairlib.PATIENCE_S
        values = None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                values = self.values(expression)
                if any(values):
                    return
            time.sleep(0.1)  # between two questions
        raise AssertionError(f"in vain: {expression}: {values}\n" + (self.folder / "log").read_text()[-2000:])


def new_pair(endpoint):
    pair = pairlib.Pair(
        BUILD, kernel=BUILD / "guests/disk.elf", memory_mib=16, disks={"data": 8},
        command_line="seed=1 depth=4 block=4096 blocks=200 flush=8 zeroes=13 discard=17 sweep=16 rate=100",
        devices='nics { tap: "tap-{node}" mac: "52:54:00:52:4f:03" }',
        failover="auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000 "
                 f'arbiter {{ etcd {{ endpoints: "{endpoint}" timeout_ms: 1000 }} }}',
        limits="reconnect_max_ms: 300")
    text = pair.config.read_text()
    beats = [port for port in pairlib.free_ports(6) if port not in pair.ports]
    for port, beat in zip(pair.ports[:2], beats):
        line = f'  replication_address: "127.0.0.1:{port}"\n'
        text = text.replace(line, f'{line}  heartbeat_address: "127.0.0.1:{beat}"\n')
    pair.config.write_text(text)
    return pair


def all_questions():
    """{expression as it stands: as it is asked here}. What only speaks when something is wrong is asked what it
    looks at."""
    asked = {}
    for group in yaml.safe_load((ROOT / "deploy/prometheus/romulus.rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            asked[rule["expr"]] = promql.without_filters(rule["expr"]) if "alert" in rule else rule["expr"]
    for dashboard in dashboards.all_dashboards():
        for one in dashboard["annotations"]["list"]:
            asked[one["expr"]] = promql.without_filters(one["expr"])
    for expression in dashboards.expressions():
        asked.setdefault(expression, expression)
    for expression, question in asked.items():
        for name, value in VARIABLES.items():
            question = question.replace(name, value)
        if "$" in question:
            raise AssertionError(f"a variable that this test does not know: {expression}")
        asked[expression] = question
    return asked


class Monitoring(unittest.TestCase):
    def setUp(self):
        netns.make_switch(pairlib.NODES)
        self.etcd = arbitration.Etcd()
        self.addCleanup(self.etcd.end)
        self.pair = new_pair(self.etcd.endpoint)
        self.enterContext(self.pair)
        self.beta = self.pair.start_node("beta", None)
        self.beta.await_mode("standby")
        self.alpha = self.pair.start_node("alpha", "primary")
        self.alpha.await_mode("protected")
        self.prometheus = Prometheus([f"127.0.0.1:{port}" for port in self.pair.ports[2:]])
        self.addCleanup(self.prometheus.end)

    def page(self, node):
        return get(f"http://127.0.0.1:{self.pair.ports[2 + pairlib.NODES.index(node)]}/metrics")

    def check_names(self):
        for node in pairlib.NODES:
            page = self.page(node)
            done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True,
                                  timeout=pairlib.PATIENCE_S)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), node)
            unnamed = [line for line in page.splitlines() if re.search(r'^romulus_.*=""', line)]
            self.assertEqual(unnamed, [], "a label without a value is none")

    def check_questions(self):
        asked = all_questions()
        self.assertGreater(len(asked), 100)
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while asked and time.monotonic() < deadline:  # rates need a while after the failover
            asked = {one: question for one, question in asked.items() if not self.prometheus.values(question)}
        self.assertEqual(list(asked.values()), [], "no data")

    def check_rules_of_the_server(self):
        rules = [rule for group in self.prometheus.api("rules")["groups"] for rule in group["rules"]]
        self.assertEqual([(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"], [])

    def check_the_arbiter_is_watched(self):
        ask = self.prometheus.await_true
        ask('count(romulus_arbiter_up{arbiter="etcd"} == 1) == bool 2')
        self.etcd.freeze()
        ask("count(romulus_arbiter_up == 0) == bool 2")  # the secondary's, too, although it asks for nothing
        self.etcd.thaw()
        ask("count(romulus_arbiter_up == 1) == bool 2")

    def test_every_rule_and_every_panel_finds_its_data(self):
        ask = self.prometheus.await_true
        ask('count(up{job="romulus"} == 1) == bool 2')
        ask("count(count_over_time(romulus_failovers_total[1m]) > 2) > bool 1")
        self.alpha.kill()
        self.beta.await_status("a promotion", lambda s: "last_failover" in s)
        self.alpha = self.pair.start_node("alpha", None)
        self.beta.await_mode("protected")
        self.alpha.await_mode("protected")
        ask('romulus_failovers_total{node="beta", cause="heartbeat"} == bool 1')
        ask('romulus_mode{node="alpha", mode="protected"} and on (vm) romulus_role{node="beta", role="primary"} == 1')
        ask('ALERTS{alertname="RomulusFailover", alertstate="firing", node="beta"}')
        # No sync is under way.
        ask("count(romulus_full_sync_disk_bytes + romulus_full_sync_pages == 0) == bool 2")
        self.check_names()
        self.check_questions()
        self.check_rules_of_the_server()
        self.check_the_arbiter_is_watched()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path)
    known, rest = parser.parse_known_args()
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing or not os.path.exists("/dev/kvm"):
        print(f"skipped: needs /dev/kvm, {', '.join(NEEDED)}; missing: {missing}")
        sys.exit(netns.SKIPPED)
    netns.enter()
    BUILD = known.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
