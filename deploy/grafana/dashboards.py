#!/usr/bin/env python3
"""Writes the dashboards beside this file: `deploy/grafana/dashboards.py`. Change this, not the JSON.

  romulus-fleet.json      all VMs: which of them are protected, and which are slow
  romulus-vm.json         one VM: checkpoints, replication, output, disks, paths
  romulus-failover.json   what happened when a guest changed its host
"""

import json
import pathlib

import panels as p
from panels import HERE, VM, graph, row, stat, table, timeline

RATE = "[$__rate_interval]"
NODE = "{{vm}} {{node}}"
FLAT = ("Time", "Value", "__name__", "instance", "job")


def rate(metric, by="vm, node", extra=""):
    return f"sum by ({by}) (rate({metric}{{{HERE}{extra}}}{RATE}))"


def quantile(share, metric):
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', 'vm, node, le')})"


def quotient(above, below):
    """Of two expressions, and nothing where the second one is 0."""
    return f"{above} / ({below} > 0)"


def mean(metric, by="vm, node"):
    return quotient(rate(f"{metric}_sum", by), rate(f"{metric}_count", by))


def fleet():
    return p.dashboard(
        "romulus-fleet", "Romulus: fleet", "Every protected VM: is it protected, and what does that cost it?",
        [stat("VMs", "Those that Prometheus knows.", "none", f"count(count by (vm) (romulus_term{{{VM}}}))"),
         stat("Protected", "In step with a secondary, or ended.", "none",
              f"sum(vm:romulus_protected:max{{{VM}}})"),
         stat("Unprotected", "Whose guest dies with its host.", "none",
              f"count(vm:romulus_protected:max{{{VM}}}) - sum(vm:romulus_protected:max{{{VM}}})",
              steps=["green", (1, "red")]),
         stat("Without primary", "Whose guest stands still.", "none",
              f'count(sum by (vm) (romulus_role{{{VM}, role="primary"}}) == 0) or vector(0)',
              steps=["green", (1, "red")]),
         stat("Alerts", "That fire now.", "none",
              f'count(ALERTS{{{VM}, alertname=~"Romulus.+", alertstate="firing"}}) or vector(0)',
              steps=["green", (1, "orange")]),
         stat("Failovers", "Promotions within the time shown, by whatever cause.", "none",
              f"sum(increase(romulus_failovers_total{{{VM}}}[$__range]))", steps=["green", (1, "orange")]),
         timeline("Mode of each node", "Both nodes of a VM should be protected.", "romulus_mode", "mode", p.MODES,
                  h=10),
         table("Nodes", "Role, mode and version of each node.",
               f"(romulus_role{{{HERE}}} == 1) * on (vm, node) group_left (mode) (romulus_mode{{{HERE}}} == 1)"
               f" * on (vm, node) group_left (version) romulus_build_info{{{HERE}}}", FLAT),
         p.panel("bargauge", "Time protected", "Share of the time shown that each VM was protected.", "percentunit",
                 (f"avg_over_time(vm:romulus_protected:max{{{VM}}}[$__range])", "{{vm}}"), instant=True,
                 minimum=0, maximum=1, steps=["red", (0.99, "orange"), (0.999, "green")]),
         graph("Pause (p99)", "How long one checkpoint in a hundred stops the guest, at least.", "s",
               (f"vm_node:romulus_pause_seconds:p99_5m{{{HERE}}}", NODE)),
         graph("Ack latency (p99)", "How long answers of the guest wait for the secondary.", "s",
               (f"vm_node:romulus_ack_latency_seconds:p99_5m{{{HERE}}}", NODE)),
         graph("Time spent in pauses", "Share of its time that the guest stands still.", "percentunit",
               (f"vm_node:romulus_pause:share_5m{{{HERE}}}", NODE), minimum=0),
         graph("Replication traffic", "Frames sent by primaries.", "Bps", (rate("romulus_sent_bytes_total"), NODE)),
         graph("Fullest buffer", "Of all that has a cap; at 100% the guest waits.", "percentunit",
               (f"max by (vm, node) (vm_node:romulus_buffer_used:ratio{{{HERE}}})", NODE), minimum=0, maximum=1),
         graph("Heartbeat gaps", "The usual gap, with its jitter, as a share of the timeout.", "percentunit",
               (f"max by (vm, node) (vm_node_path:romulus_heartbeat_gap:ratio{{{HERE}}})", NODE), minimum=0)],
        many_vms=True)


def one_vm():
    return p.dashboard(
        "romulus-vm", "Romulus: one VM", "One guest and its two nodes: checkpoints, replication, output, disks, paths.",
        [row("State"),
         timeline("Role", "Exactly one is the primary.", "romulus_role", "role", p.ROLES, w=12),
         timeline("Mode", "What the nodes say of themselves.", "romulus_mode", "mode", p.MODES, w=12),
         stat("Term", "Fencing number: rises with each start and each change.", "none",
              f"max(romulus_term{{{HERE}}})"),
         stat("In this mode since", "Of each node.", "dateTimeFromNow",
              f"romulus_mode_timestamp_seconds{{{HERE}}} * 1000", "{{node}}", w=8),
         stat("Version", "Of each node's daemon.", "none", f"romulus_build_info{{{HERE}}}", "{{node}}: {{version}}",
              w=8, options={**p.OPTIONS["stat"], "textMode": "name"}),
         stat("Stream", "Whether the two are connected.", "none", f"min(romulus_peer_connected{{{HERE}}})",
              mappings=p.ON_OFF),
         row("Checkpoints"),
         graph("Pause", "From the request to stop the vCPUs until they are told to run.", "s",
               (quantile(0.5, "romulus_pause_seconds"), "{{node}} p50"),
               (quantile(0.99, "romulus_pause_seconds"), "{{node}} p99"), minimum=0),
         graph("Phases of the pause", "Mean time of each, stacked.", "s",
               (mean("romulus_pause_phase_seconds", "phase"), "{{phase}}"), stack=True, minimum=0),
         graph("Epochs", "By what ended them.", "ops", (rate("romulus_epochs_total", "reason"), "{{reason}}"),
               stack=True, minimum=0),
         graph("Epoch interval", "Mean time that the guest runs in an epoch.", "s",
               (mean("romulus_epoch_interval_seconds"), "{{node}}"), minimum=0),
         graph("Dirty pages", "Of an epoch, on average.", "none",
               (quotient(rate("romulus_epoch_pages_total"), rate("romulus_epochs_total")), "{{node}}"), minimum=0),
         graph("Failed checkpoints", "Their pages were put back.", "ops",
               (rate("romulus_epochs_aborted_total"), "{{node}}"), minimum=0),
         row("Replication"),
         graph("Ack latency", "From cutting an epoch until its ack.", "s",
               (quantile(0.5, "romulus_ack_latency_seconds"), "{{node}} p50"),
               (quantile(0.99, "romulus_ack_latency_seconds"), "{{node}} p99"), minimum=0),
         graph("Traffic", "Frames sent and received.", "Bps", (rate("romulus_sent_bytes_total"), "{{node}} sent"),
               (rate("romulus_received_bytes_total"), "{{node}} received"), minimum=0),
         graph("Pages by encoding", "How they travel.", "ops",
               (rate("romulus_encoded_pages_total", "encoding"), "{{encoding}}"), stack=True, minimum=0),
         graph("Bytes of a page", "On the stream, on average; raw it has 4096.", "bytes",
               (quotient(rate("romulus_encoded_bytes_total"), rate("romulus_encoded_pages_total")), "{{node}}"),
               minimum=0),
         graph("Epochs cut, acked, committed", "Per second; they should be one line.", "ops",
               (rate("romulus_epochs_total"), "{{node}} cut"), (rate("romulus_epochs_acked_total"), "{{node}} acked"),
               (rate("romulus_epochs_committed_total"), "{{node}} committed"), minimum=0),
         graph("Pages committed", "By the secondary.", "ops", (rate("romulus_committed_pages_total"), "{{node}}"),
               minimum=0),
         graph("Full sync: memory", "Pages to copy, and copied.", "none",
               (f"romulus_full_sync_pages{{{HERE}}}", "{{node}} all"),
               (f"romulus_full_sync_pages_done{{{HERE}}}", "{{node}} done"), minimum=0),
         graph("Full sync: disks", "Bytes to copy, and copied or found equal.", "bytes",
               (f"romulus_full_sync_disk_bytes{{{HERE}}}", "{{node}} all"),
               (f"romulus_full_sync_disk_bytes_done{{{HERE}}}", "{{node}} done"), minimum=0),
         graph("Full syncs", "Completed.", "none", (f"romulus_full_syncs_total{{{HERE}}}", "{{node}}"), minimum=0),
         row("Output and buffers"),
         graph("Buffers", "Share that is used; at 100% the guest waits.", "percentunit",
               (f"vm_node:romulus_buffer_used:ratio{{{HERE}}}", "{{node}} {{buffer}} {{nic}}"), w=12, minimum=0,
               maximum=1),
         graph("Unacked epochs", "Cut and not acked.", "none", (f"romulus_unacked_epochs{{{HERE}}}", "{{node}}"),
               w=6, minimum=0),
         graph("Console", "What the guest says and is let out.", "Bps",
               (f"sum by (node) (rate(romulus_console_released_bytes{{{HERE}}}{RATE}))", "{{node}}"), w=6, minimum=0),
         graph("Network: traffic", "Of the guest's cards.", "Bps",
               (rate("romulus_nic_bytes_total", "node, nic, direction"), "{{node}} {{nic}} {{direction}}")),
         graph("Network: frames", "Of the guest's cards.", "pps",
               (rate("romulus_nic_frames_total", "node, nic, direction"), "{{node}} {{nic}} {{direction}}")),
         graph("Network: held", "Frames that wait for an ack, and for the tap.", "bytes",
               (f"romulus_nic_held_bytes{{{HERE}}}", "{{node}} {{nic}} for an ack"),
               (f"romulus_nic_queued_bytes{{{HERE}}}", "{{node}} {{nic}} for the tap"), minimum=0),
         graph("Network: lost and bad frames", "Dropped, not sendable, or from a card with the same address.", "pps",
               (rate("romulus_nic_dropped_frames_total", "node, nic, direction"),
                "{{node}} {{nic}} dropped {{direction}}"),
               (rate("romulus_nic_bad_frames_total", "node, nic"), "{{node}} {{nic}} bad"),
               (rate("romulus_nic_mac_clashes_total", "node, nic"), "{{node}} {{nic}} clash"), w=24, minimum=0),
         row("Disks"),
         graph("Requests", "Of the guest.", "iops",
               (rate("romulus_disk_requests_total", "node, disk, kind"), "{{node}} {{disk}} {{kind}}"), minimum=0),
         graph("Throughput", "Of the guest.", "Bps",
               (rate("romulus_disk_bytes_total", "node, disk, kind"), "{{node}} {{disk}} {{kind}}"), minimum=0),
         graph("Committed by the secondary", "Disk writes of epochs.", "Bps",
               (rate("romulus_committed_disk_bytes_total"), "{{node}}"), minimum=0),
         graph("Disk log", "Writes of epochs that are not acked.", "bytes",
               (f"romulus_disk_log_bytes{{{HERE}}}", "{{node}}"), minimum=0),
         graph("Longest wait", "Of an operation that is under way.", "s",
               (f"romulus_disk_wait_seconds{{{HERE}}}", "{{node}}"), minimum=0),
         graph("Errors", "Requests that failed, and replicas that were given up.", "none",
               (f"increase(romulus_disk_errors_total{{{HERE}}}{RATE})", "{{node}} {{disk}}"),
               (f"increase(romulus_disk_failures_total{{{HERE}}}{RATE})", "{{node}} replica"), minimum=0),
         row("Paths, arbiter, guest"),
         graph("Silence", "How long the peer has not been heard.", "s",
               (f"romulus_path_silence_seconds{{{HERE}}}", "{{node}} {{path}}"),
               (f"min(romulus_heartbeat_timeout_seconds{{{HERE}}})", "timeout"), minimum=0),
         graph("Gaps and jitter", "Between signs of life of the peer.", "s",
               (f"romulus_path_gap_seconds{{{HERE}}}", "{{node}} {{path}} gap"),
               (f"romulus_path_jitter_seconds{{{HERE}}}", "{{node}} {{path}} jitter"), minimum=0),
         graph("Round trip", "Of heartbeats on the second path.", "s",
               (f'romulus_path_rtt_seconds{{{HERE}, path="second"}}', "{{node}}"), minimum=0),
         graph("Arbiter", "1 while it answers; and what it said to claims.", "none",
               (f"romulus_arbiter_up{{{HERE}}}", "{{node}} answers"),
               (f"increase(romulus_arbiter_answers_total{{{HERE}}}{RATE})", "{{node}} {{verdict}}"), minimum=0),
         graph("Exits", "Of vCPUs to the daemon.", "ops", (rate("romulus_exits_total", "kind"), "{{kind}}"),
               minimum=0),
         graph("Device faults", "What the guest's drivers did wrong.", "none",
               (f"sum by (node, device) (increase(romulus_device_faults_total{{{HERE}}}{RATE}))",
                "{{node}} {{device}}"), minimum=0),
         row("Audit"),
         graph("Pages compared", "Between primary and secondary.", "ops", (rate("romulus_audit_pages_total"), "{{node}}"),
               w=12, minimum=0),
         graph("Pages and blocks that differed", "There should be none.", "none",
               (f"romulus_audit_mismatches_total{{{HERE}}}", "{{node}} memory"),
               (f"romulus_audit_disk_mismatches_total{{{HERE}}}", "{{node}} disks"), w=12, minimum=0)],
        many_vms=False)


def failover():
    when = f"romulus_failover_timestamp_seconds{{{HERE}}}"
    return p.dashboard(
        "romulus-failover", "Romulus: failover forensics", "What happened around a failover or switchover.",
        [stat("Last failover", "When a node was promoted without having been asked by the other.", "dateTimeAsIso",
              f"max({when} > 0) * 1000", w=6, no_value="none"),
         stat("Promoted", "Who has been promoted since its daemon began, and by what cause.", "none",
              f"sum by (node, cause) (romulus_failovers_total{{{HERE}}} > 0)", "{{node}} ({{cause}})", w=6,
              no_value="nobody"),
         stat("Noticed within", "From the primary's last word to the decision.", "s",
              f"romulus_failover_detect_seconds{{{HERE}}} and {when} > 0", "{{node}}", no_value="none"),
         stat("Promoted within", "From the decision until the guest ran.", "s",
              f"romulus_failover_activate_seconds{{{HERE}}} and {when} > 0", "{{node}}", no_value="none"),
         stat("Last switchover", "How long the guest stood still; 0: there was none.", "s",
              f"romulus_switchover_pause_seconds{{{HERE}}}", "{{node}}"),
         timeline("Role", "Who ran the guest.", "romulus_role", "role", p.ROLES, w=12),
         timeline("Mode", "What the nodes said of themselves.", "romulus_mode", "mode", p.MODES, w=12),
         graph("Term", "Rises with each start and each change; both nodes should come to one.", "none",
               (f"romulus_term{{{HERE}}}", NODE)),
         graph("Daemons", "1 while Prometheus is answered; a restart begins a new start time.", "none",
               (f"changes(romulus_start_timestamp_seconds{{{HERE}}}[$__rate_interval])", "{{node}} starts"),
               (f"count by (node) (romulus_term{{{HERE}}})", "{{node}} answers"), minimum=0),
         graph("Peer connected", "The replication stream.", "none", (f"romulus_peer_connected{{{HERE}}}", "{{node}}"),
               minimum=0, maximum=1),
         graph("Silence of the peer", "By path; beyond the timeout it counts as lost.", "s",
               (f"romulus_path_silence_seconds{{{HERE}}}", "{{node}} {{path}}"),
               (f"min(romulus_heartbeat_timeout_seconds{{{HERE}}})", "timeout"), minimum=0),
         graph("Peer heard", "By path.", "none", (f"romulus_path_heard{{{HERE}}}", "{{node}} {{path}}"), minimum=0,
               maximum=1),
         graph("Heartbeat gaps", "With their jitter, as a share of the timeout, before it happened.", "percentunit",
               (f"vm_node_path:romulus_heartbeat_gap:ratio{{{HERE}}}", "{{node}} {{path}}"), minimum=0),
         graph("Last epoch", "Cut and acked by a primary, held by a secondary.", "none",
               (f"romulus_epoch_cut{{{HERE}}}", "{{node}} cut"),
               (f"romulus_epoch_acked{{{HERE}}}", "{{node}} acked")),
         graph("Console offset", "Up to which the guest has been heard; it goes on where it ended.", "bytes",
               (f"romulus_console_released_bytes{{{HERE}}}", "{{node}}")),
         graph("Output that was held", "It leaves with its ack, or never.", "bytes",
               (f"romulus_held_output_bytes{{{HERE}}}", "{{node}} console"),
               (f"sum by (node) (romulus_nic_held_bytes{{{HERE}}})", "{{node}} frames"), minimum=0),
         graph("Arbiter", "Answers to claims, and whether it was there.", "none",
               (f"increase(romulus_arbiter_answers_total{{{HERE}}}{RATE})", "{{node}} {{verdict}}"),
               (f"romulus_arbiter_up{{{HERE}}}", "{{node}} answers"), minimum=0),
         graph("Refused from the peer", "Frames of the stream, and beats of the second path.", "none",
               (f"sum by (node, kind) (increase(romulus_frame_errors_total{{{HERE}}}{RATE}))", "{{node}} frame {{kind}}"),
               (f"sum by (node, kind) (increase(romulus_beats_refused_total{{{HERE}}}{RATE}))", "{{node}} beat {{kind}}"),
               minimum=0),
         graph("Full syncs", "After a change the pair is protected again once one is complete.", "none",
               (f"romulus_full_syncs_total{{{HERE}}}", "{{node}} complete"),
               (f"romulus_full_sync_pages_done{{{HERE}}}", "{{node}} pages so far"), minimum=0),
         graph("Ack latency before it", "An old secondary that slows down is often an early sign.", "s",
               (quantile(0.99, "romulus_ack_latency_seconds"), "{{node}} p99"), minimum=0),
         graph("Pause before it", "So is a primary that does.", "s",
               (quantile(0.99, "romulus_pause_seconds"), "{{node}} p99"), minimum=0),
         graph("Waiting for a disk", "And so is a disk that hangs.", "s",
               (f"romulus_disk_wait_seconds{{{HERE}}}", "{{node}}"), minimum=0)],
        many_vms=False,
        annotations=[
            p.annotation("failover", f"changes(romulus_failover_timestamp_seconds{{{VM}}}[1m]) > 0", "red"),
            p.annotation("switchover", f"changes(romulus_switchover_timestamp_seconds{{{VM}}}[1m]) > 0", "blue")])


def all_dashboards():
    return [fleet(), one_vm(), failover()]


def expressions():
    """Of every panel and annotation."""
    found = []
    for one in all_dashboards():
        found += [target["expr"] for panel in one["panels"] for target in panel.get("targets", [])]
        found += [annotation["expr"] for annotation in one["annotations"]["list"]]
    return found


def files():
    """{name: text}"""
    return {f"{one['uid']}.json": json.dumps(one, indent=2, ensure_ascii=False) + "\n" for one in all_dashboards()}


if __name__ == "__main__":
    for name, text in files().items():
        (pathlib.Path(__file__).parent / name).write_text(text)
