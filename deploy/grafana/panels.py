"""Grafana's JSON (schema 36: Grafana 9 and later) for what dashboards.py says in a few words."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # of a dashboard, in Grafana's columns
# Of one VM, and those of its nodes that are chosen.
HERE = 'vm=~"$vm", node=~"$node"'
VM = 'vm=~"$vm"'

# For timelines, which want numbers: each state's is its place here, from 1.
MODES = [("solo", "orange"), ("syncing", "blue"), ("protected", "green"), ("degraded", "red"),
         ("standby", "super-light-blue"), ("promoting", "purple"), ("fenced", "dark-red"),
         ("finished", "text")]
ROLES = [("primary", "green"), ("secondary", "blue")]


def state_set(metric, label, states):
    """One number per node out of a set of series of which one is 1: the state's place in `states`, from 1."""
    each = " or ".join(f'{metric}{{{HERE}, {label}="{name}"}} * {number}'
                       for number, (name, _) in enumerate(states, 1))
    return f"max by (vm, node) ({each})"


def state_mappings(states):
    return [{"type": "value",
             "options": {str(number): {"text": name, "color": color, "index": number}
                         for number, (name, color) in enumerate(states, 1)}}]


ON_OFF = [{"type": "value", "options": {"0": {"text": "no", "color": "red", "index": 0},
                                        "1": {"text": "yes", "color": "green", "index": 1}}}]


def thresholds(*steps):
    """(value, color) from the second on; the first is a color alone."""
    first, *rest = steps
    return {"mode": "absolute",
            "steps": [{"color": first, "value": None}] + [{"color": c, "value": v} for v, c in rest]}


def panel(kind, title, description, unit, *targets, w=8, h=8, instant=False, stack=False,
          mappings=None, steps=None, minimum=None, maximum=None, no_value=None, options=None,
          transformations=None):
    """targets: (expression, legend). Placed by dashboard()."""
    defaults = {"unit": unit, "color": {"mode": "thresholds" if steps else "palette-classic"},
                "mappings": mappings or [],
                "thresholds": thresholds(*(steps or ["green"])), "custom": {}}
    if kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 20 if stack else 5, "showPoints": "never",
                              "spanNulls": False, "stacking": {"mode": "normal" if stack else "none"}}
    if kind == "state-timeline":
        defaults["custom"] = {"fillOpacity": 80, "lineWidth": 0}
    for name, value in ("min", minimum), ("max", maximum), ("noValue", no_value):
        if value is not None:
            defaults[name] = value
    made = {"id": 0, "type": kind, "title": title, "description": description,
            "datasource": DATASOURCE, "gridPos": {"x": 0, "y": 0, "w": w, "h": h},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options or OPTIONS.get(kind, {}),
            "targets": [{"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": expression,
                         "legendFormat": legend, "instant": instant, "range": not instant,
                         "format": "table" if kind == "table" else "time_series"}
                        for place, (expression, legend) in enumerate(targets)]}
    if transformations:
        made["transformations"] = transformations
    return made


OPTIONS = {
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "calcs": []},
                   "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {"colorMode": "value", "graphMode": "none", "textMode": "auto", "justifyMode": "auto",
             "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    "bargauge": {"displayMode": "basic", "orientation": "horizontal", "showUnfilled": True,
                 "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    "state-timeline": {"mergeValues": True, "showValue": "auto", "rowHeight": 0.8,
                       "legend": {"displayMode": "list", "placement": "bottom"},
                       "tooltip": {"mode": "single"}},
    "table": {"showHeader": True},
}


def graph(title, description, unit, *targets, **more):
    return panel("timeseries", title, description, unit, *targets, **more)


def stat(title, description, unit, expression, legend="", **more):
    return panel("stat", title, description, unit, (expression, legend),
                 **{"w": 4, "h": 4, "instant": True, **more})


def timeline(title, description, metric, label, states, **more):
    return panel("state-timeline", title, description, "none",
                 (state_set(metric, label, states), "{{vm}} {{node}}"),
                 mappings=state_mappings(states), **{"w": 24, "h": 6, **more})


def table(title, description, expression, hidden, **more):
    return panel("table", title, description, "none", (expression, ""), instant=True,
                 transformations=[{"id": "organize",
                                   "options": {"excludeByName": {name: True for name in hidden}}}],
                 **{"w": 24, "h": 8, **more})


def row(title):
    return {"id": 0, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": 0, "w": WIDTH, "h": 1}}


def place(panels):
    """From left to right, a new line where the width is used up."""
    x = y = height = 0
    for number, one in enumerate(panels, 1):
        spot = one["gridPos"]
        if x + spot["w"] > WIDTH:
            x, y, height = 0, y + height, 0
        spot["x"], spot["y"], one["id"] = x, y, number
        x, height = x + spot["w"], max(height, spot["h"])
    return panels


def variable(name, label, query, many):
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE,
            "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1,
            "multi": many, "includeAll": many, "allValue": ".+" if many else None,
            "current": {"text": "All", "value": "$__all"} if many else {}}


def annotation(name, expression, color):
    return {"name": name, "enable": True, "datasource": DATASOURCE, "expr": expression,
            "titleFormat": name, "textFormat": "{{vm}} {{node}}", "iconColor": color, "step": "10s"}


def dashboard(uid, title, description, panels, many_vms, annotations=()):
    return {
        "uid": uid, "title": title, "description": description, "tags": ["romulus"],
        "schemaVersion": 36, "version": 1, "editable": True, "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"}, "refresh": "10s", "timezone": "",
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource",
             "query": "prometheus", "current": {}},
            variable("vm", "VM", "label_values(romulus_term, vm)", many_vms),
            variable("node", "Node", 'label_values(romulus_term{vm=~"$vm"}, node)', True),
        ]},
        "annotations": {"list": list(annotations)},
        "links": [{"type": "dashboards", "tags": ["romulus"], "title": "Romulus", "asDropdown": True,
                   "includeVars": True, "keepTime": True}],
        "panels": place(panels),
    }
