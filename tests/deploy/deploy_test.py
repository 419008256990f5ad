#!/usr/bin/env python3
"""The texts in deploy/: rules, their tests and runbook, dashboards. Needs Debian's prometheus (for promtool)."""

import copy
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

import promql

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"
SEVERITIES = {"critical", "warning", "info"}
# Every subject of a section of the runbook.
PARTS = ("**Meaning.**", "**Check.**", "**Remedy.**")
sys.path.insert(0, str(GRAFANA))
import dashboards  # noqa: E402


def rules():
    groups = yaml.safe_load((PROMETHEUS / "romulus.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def rule_tests():
    return yaml.safe_load((PROMETHEUS / "romulus.rules.test.yml").read_text())


def promtool(*arguments):
    """Its exit code and what it says."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def exported():
    """Names of the series that a daemon has, as lib/metrics makes them."""
    text = (ROOT / "lib/metrics/instruments.cc").read_text()
    names = set(re.findall(r'"(romulus_\w+)"', text))
    histograms = set(re.findall(r'Histograms?\(\s*"(romulus_\w+)"', text))
    return names | {name + end for name in histograms for end in ("_bucket", "_sum", "_count")}


class Rules(unittest.TestCase):
    def test_promtool_takes_rules_and_configuration(self):
        for what, name in ("rules", "romulus.rules.yml"), ("config", "prometheus.yml"):
            code, said = promtool("check", what, PROMETHEUS / name)
            self.assertEqual(code, 0, said)

    def test_the_rules_pass_their_tests(self):
        code, said = promtool("test", "rules", PROMETHEUS / "romulus.rules.test.yml")
        self.assertEqual(code, 0, said)

    def passes(self, subject, changed, name):
        """Whether the tests that speak of `name` pass, with `changed` in place of `subject` among the rules."""
        kept = [changed if rule == subject else rule for rule in rules() if "record" in rule or rule == subject]
        tests = rule_tests()
        tests["tests"] = [one for one in tests["tests"] if name in str(one["promql_expr_test"])]
        self.assertTrue(tests["tests"], f"no test speaks of {name}")
        # Of the alerts only this one is there, and of the others' samples nothing is asked.
        for one in tests["tests"]:
            one["promql_expr_test"] = [ask for ask in one["promql_expr_test"] if name in ask["expr"]]
        groups = [{"name": "romulus_recording", "rules": [rule for rule in kept if "record" in rule]},
                  {"name": "romulus_alerts", "rules": [rule for rule in kept if "alert" in rule]}]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "romulus.rules.yml").write_text(
                yaml.safe_dump({"groups": [group for group in groups if group["rules"]]}))
            tests["group_eval_order"] = [group["name"] for group in groups if group["rules"]]
            (folder / "test.yml").write_text(yaml.safe_dump(tests))
            code, said = promtool("test", "rules", folder / "test.yml")
        self.assertIn(code, (0, 1), said)
        return code == 0

    def test_every_rule_has_a_test_that_notices_when_it_is_broken(self):
        for subject in rules():
            name = subject.get("alert") or subject["record"]
            breakages = {"never": {"expr": promql.never(subject["expr"])}}
            if "alert" in subject:
                breakages["always"] = {"expr": promql.without_filters(subject["expr"])}
                if "for" in subject:
                    breakages["at once"] = {"for": "0s"}
            else:
                breakages["twice"] = {"expr": f"2 * ({subject['expr']})"}
            with self.subTest(name=name, broken="not"):
                self.assertTrue(self.passes(subject, subject, name))
            for how, change in breakages.items():
                with self.subTest(name=name, broken=how):
                    self.assertFalse(self.passes(subject, {**copy.deepcopy(subject), **change}, name))

    def test_every_alert_says_what_to_do(self):
        runbook = (PROMETHEUS / "README.md").read_text()
        sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", runbook, re.M | re.S))
        for rule in alerts():
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], SEVERITIES)
                for text in "summary", "description":
                    self.assertTrue(rule["annotations"][text].endswith("."))
                path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
                self.assertTrue((ROOT / path).samefile(PROMETHEUS / "README.md"))
                self.assertEqual(anchor, rule["alert"].lower())
                for part in PARTS:
                    self.assertIn(part, sections[rule["alert"]])
        self.assertEqual(list(sections), [rule["alert"] for rule in alerts()], "as ordered as the rules")

    def test_texts_name_labels_that_a_firing_alert_has(self):
        fired = {}
        for one in rule_tests()["tests"]:
            for ask in one["promql_expr_test"]:
                for sample in ask.get("exp_samples", []):
                    if sample["labels"].startswith("ALERTS{"):
                        labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                        fired.setdefault(labels["alertname"], set()).update(labels)
        for rule in alerts():
            named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
            self.assertLessEqual(named, fired[rule["alert"]], rule["alert"])


class Dashboards(unittest.TestCase):
    def test_the_files_are_what_the_generator_makes(self):
        made = dashboards.files()
        self.assertEqual({path.name for path in GRAFANA.glob("*.json")}, set(made))
        for name, text in made.items():
            self.assertEqual((GRAFANA / name).read_text(), text,
                             f"{name} is not up to date: run deploy/grafana/dashboards.py")

    def test_the_generators_form(self):
        uids = set()
        for dashboard in dashboards.all_dashboards():
            uids.add(dashboard["uid"])
            variables = {one["name"]: one for one in dashboard["templating"]["list"]}
            self.assertEqual(list(variables), ["datasource", "vm", "node"])
            ids = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(ids), len(set(ids)))
            for panel in dashboard["panels"]:
                if panel["type"] == "row":
                    continue
                with self.subTest(dashboard=dashboard["title"], panel=panel["title"]):
                    self.assertTrue(panel["description"])
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])
                    self.assertEqual(panel["datasource"]["uid"], "${datasource}")
                    place = panel["gridPos"]
                    self.assertLessEqual(place["x"] + place["w"], 24)
                    for target in panel["targets"]:
                        self.assertIn('vm=~"$vm"', target["expr"])
        self.assertEqual(len(uids), 3)

    def test_no_host_is_hard_coded(self):
        for text in dashboards.files().values():
            self.assertIsNone(re.search(r"\d+\.\d+\.\d+\.\d+|localhost|host-[ab]", text))


class Names(unittest.TestCase):
    def test_what_is_asked_for_is_there(self):
        there = exported() | {rule["record"] for rule in rules() if "record" in rule}
        expressions = [rule["expr"] for rule in rules()] + dashboards.expressions()
        asked = set().union(*map(promql.metrics, expressions))
        self.assertGreater(len(asked), 40)
        self.assertEqual(asked - there, set())

    def test_every_recorded_series_is_used(self):
        expressions = [rule["expr"] for rule in alerts()] + dashboards.expressions()
        asked = set().union(*map(promql.metrics, expressions))
        self.assertEqual({rule["record"] for rule in rules() if "record" in rule} - asked, set())


if __name__ == "__main__":
    if not shutil.which("promtool"):
        print("skipped: no promtool (Debian package prometheus)")
        sys.exit(77)
    unittest.main()
