#include "daemon/event_kinds.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace romulus::daemon {
namespace {

struct Kind {
  absl::string_view word;
  absl::string_view text;  // {field} stands for a field's value
};

// Sorted by word.
constexpr Kind kKinds[] = {
    {"arbiter_answered", "the arbiter, asked to {action}, says {verdict}: {detail}"},
    {"arbiter_record",
     "the arbiter's record, of '{holder}' in term {term}, says: start as {start}"},
    {"arbiter_record_is_anothers", "the arbiter's record is that of '{holder}', in term {term}"},
    {"arbiter_record_lost", "the arbiter had lost its record, which is put there again"},
    {"arbiter_record_unusable", "the arbiter's record is of no use: {detail}"},
    {"arbiter_silent", "the arbiter does not answer: {detail}"},
    {"audit_mismatch", "{pages} pages differed on the two nodes, the first {gfn}: {then}"},
    {"begins_anew", "this node begins anew, as {as}"},
    {"checkpoint_failed", "the checkpoint of epoch {epoch} failed: {why}"},
    {"claim_left_behind", "a claim was left at the arbiter: {what}"},
    {"claim_taken_back", "the claim to term {wanted} is withdrawn: {why}"},
    {"config_refused", "the configuration was refused, no daemon started: {why}"},
    {"connections_crowded", "too many connections: {why}"},
    {"console_failed", "the console cannot be written: {why}"},
    {"console_goes_on", "the console can be written again"},
    {"device_needs_reset", "the guest's driver of {device} broke a rule: {faults}"},
    {"disk_audit_mismatch",
     "{blocks} blocks of disk {disk} differed on the two nodes, the first at {offset_bytes}: "
     "{then}"},
    {"disk_goes_on", "the disk works again, after {waited_ms} ms"},
    {"disk_unusable", "this node's copy of disk {disk} cannot be promoted as it is: {why}"},
    {"disk_waits", "a disk takes long: {operation} of {file}, since {wait_ms} ms"},
    {"disks_not_closed", "the disks were not closed: {why}"},
    {"ended", "the daemon ended: {status}"},
    {"events_not_written", "events are in memory only: {why}"},
    {"events_unreadable", "{lines} lines of the event journal could not be read, and were skipped"},
    {"fenced", "this node lost the term, its guest was stopped: {why}"},
    {"full_sync_begins", "a full sync begins"},
    {"full_sync_done",
     "the full sync is done: {pages} pages, {rounds} rounds, {disk_bytes_sent} bytes of disks"},
    {"full_sync_received", "the full sync is here: {pages} pages"},
    {"guest_started", "the guest runs"},
    {"guest_stopped", "the guest stopped by itself: {reason}"},
    {"hand_over", "the guest is offered to the other node, from epoch {epoch}"},
    {"hello",
     "'{peer_node}' at {from} asks this node to be its secondary, accepted: {accepted} {detail}"},
    {"journal_tail_dropped", "the torn end of {file} was dropped"},
    {"left", "{what}"},
    {"mac_clash", "another card on the network of {device} has its MAC address"},
    {"mode", "{role}, {mode} (was {was}): {reason}"},
    {"output_held", "output is held: {why}"},
    {"pause_failed", "the guest could not be paused: {why}"},
    {"peer_accepted", "the other node is this one's secondary"},
    {"peer_goodbye", "the other node leaves: {reason} {detail}"},
    {"peer_heard", "the other node is heard again"},
    {"peer_refused", "the other node refuses to be the secondary ({reason}): {detail}"},
    {"peer_silent", "nothing is heard of the other node for {silence_ms} ms"},
    {"peer_stalled", "the other node is heard, but gets nowhere: {what}"},
    {"prepare_failed", "this node could not make the guest's machine: {why}"},
    {"promoted",
     "the guest runs here in term {term}, from epoch {epoch} of term {from_term}, after "
     "{activate_ms} ms"},
    {"promoting", "this node promotes itself, in term {term}"},
    {"promotion_failed", "the promotion failed: {why}"},
    {"protection_gave_up", "protection gave up: {why}"},
    {"replica_failed", "there is no new replica: {why}"},
    {"replica_given_up", "this node gave its replica up: {why}"},
    {"restore_note", "{what}"},
    {"second_path_heard", "the other node is heard on the second path"},
    {"second_path_silent", "the second path is silent for {silence_ms} ms"},
    {"shutdown_forced", "told to stop a second time: at once"},
    {"signal", "told to stop by signal {number}"},
    {"stamp_failed", "the disks' side files cannot be written: {why}"},
    {"start_failed", "the daemon could not start: {why}"},
    {"started", "the daemon started, {build}"},
    {"stream_closed", "the stream between the nodes ended: {why}"},
    {"switchover", "switchover to {to_node}: {result} {detail}"},
    {"switchover_begins", "a switchover begins, in term {term}"},
    {"tap_failed", "the tap of {device} fails: {why}"},
    {"tap_goes_on", "the tap of {device} works again"},
    {"term", "term {term} (was {was})"},
    {"term_left_behind", "a term was left at the arbiter: {what}"},
    {"tls_refused", "a connection from {from} was refused ({reason}): {why}"},
    {"tls_reload_failed", "the TLS files cannot be taken over: {why}"},
    {"tls_reloaded", "the TLS files were taken over"},
    {"tunables", "tunables: {max_dirty_pages} pages, {min_interval_us} to {max_interval_us} us"},
    {"two_primaries", "there are two primaries: '{peer_node}' is another"},
};

const Kind* Find(absl::string_view word) {
  const Kind* const found = std::lower_bound(
      std::begin(kKinds), std::end(kKinds), word,
      [](const Kind& kind, absl::string_view wanted) { return kind.word < wanted; });
  return found != std::end(kKinds) && found->word == word ? found : nullptr;
}

}  // namespace

std::optional<std::string> EventText(absl::string_view kind, const EventFields& fields) {
  const Kind* const found = Find(kind);
  if (found == nullptr) return std::nullopt;
  // All at once, so that a value with braces in it is not looked at again.
  std::vector<std::pair<std::string, std::string>> values;
  for (const auto& [key, value] : fields) {
    values.emplace_back(absl::StrCat("{", key, "}"), value);
    double ns = 0;
    absl::string_view stem = key;
    if (absl::ConsumeSuffix(&stem, "_ns") && absl::SimpleAtod(value, &ns)) {
      values.emplace_back(absl::StrCat("{", stem, "_ms}"), absl::StrFormat("%.1f", ns / 1e6));
    }
  }
  std::string text = absl::StrReplaceAll(found->text, values);
  // An empty detail leaves its separator.
  absl::string_view trimmed = text;
  while (absl::ConsumeSuffix(&trimmed, " ") || absl::ConsumeSuffix(&trimmed, ":")) {
  }
  return std::string(trimmed);
}

}  // namespace romulus::daemon
