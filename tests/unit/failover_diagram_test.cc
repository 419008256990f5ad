// The role machine's diagram in lib/failover/README.md is what the machine does: every state that
// can be reached is visited, under every kind of policy, and each way from one role and mode to
// another is drawn with the events that take it.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "failover/role_machine.h"

namespace romulus::failover {
namespace {

constexpr absl::string_view kBegin = "<!-- diagram: begin -->\n```mermaid\n";
constexpr absl::string_view kEnd = "```\n<!-- diagram: end -->";

// Terms only matter by their order: states that differ in nothing else are one.
std::string KeyOf(const RoleState& state) {
  const ArbiterClaim claim = state.claim.value_or(ArbiterClaim{});
  const std::array<Term, 11> terms = {
      state.term,           state.newest_term,    state.promotion_term, state.confirmed,
      claim.expected,       claim.wanted,         claim.promoted_term,  state.lineage.promoted,
      state.lineage.covers, state.lineage.shared, state.overruled};
  std::array<Term, terms.size()> order = terms;
  std::sort(order.begin(), order.end());
  const auto* const end = std::unique(order.begin(), order.end());
  std::string key;
  for (const Term term : terms) {
    key += static_cast<char>('a' + (std::lower_bound(order.cbegin(), end, term) - order.cbegin()));
  }
  for (const bool flag :
       {state.guest_running, state.output_open, state.protect_wanted, state.peer_connected,
        state.peer_silent, state.peer_left, state.unprotecting, state.sync_done, state.committed,
        state.held_since_start, state.claim.has_value(), state.withdrawing, state.second_heard,
        state.held_back, state.releasing, state.replica_wrong}) {
    key += flag ? '1' : '0';
  }
  return absl::StrCat(key, static_cast<int>(claim.action), static_cast<int>(state.role),
                      static_cast<int>(state.mode), static_cast<int>(state.hand_over));
}

// Nothing but what happened says what becomes of these.
const std::set<EventKind> kSimple = {
    EventKind::kLinkClosed,          EventKind::kPeerSilent,       EventKind::kPeerHeard,
    EventKind::kSecondHeard,         EventKind::kSecondSilent,     EventKind::kStreamBroken,
    EventKind::kGuestStopped,        EventKind::kProtectionFailed, EventKind::kReplicaLost,
    EventKind::kReplicaWrong,        EventKind::kOpProtect,        EventKind::kOpSwitchover,
    EventKind::kFinalEpochFailed,    EventKind::kHandOverRefused,  EventKind::kHandOverLate,
    EventKind::kUnprotectUnanswered, EventKind::kShutdown};

// What can happen in `state`, as far as it can make a difference.
std::vector<Event> EventsIn(const RoleState& state) {
  std::vector<Event> events;
  const Term newer(state.newest_term.value() + 1);
  for (size_t k = 0; k < kEventKindCount; ++k) {
    const auto kind = static_cast<EventKind>(k);
    if (kind == EventKind::kStartPrimary || kind == EventKind::kStartSecondary ||
        kind == EventKind::kOpPause || kind == EventKind::kOpResume) {
      continue;  // the first two come once; an operator's pause changes no mode
    }
    Event event{};
    event.kind = kind;
    event.epoch = EpochId(1);
    event.term = state.claim ? state.claim->wanted : state.term;
    events.push_back(event);
    if (kSimple.contains(kind)) continue;
    event.force = event.intact = event.ours = true;
    event.record.term = newer;
    events.push_back(event);
    event.ours = false;
    event.term = newer;
    event.lineage = {newer, state.lineage.shared, state.lineage.shared};
    events.push_back(event);
    event.force = false;
    for (const PeerHolds holds : {PeerHolds::kNothing, PeerHolds::kReplica, PeerHolds::kGuest}) {
      if (kind != EventKind::kPeerRefused) break;
      event.holds = holds;
      events.push_back(event);
      event.lineage = {};
      events.push_back(event);
    }
    if (kind == EventKind::kHandOver) {
      event.epoch = state.committed_epoch;
      event.term = state.term;
      events.push_back(event);
    }
    for (int reason = 0;
         kind == EventKind::kGoodbye && reason <= static_cast<int>(GoodbyeReason::kReplicaWrong);
         ++reason) {
      event.goodbye = static_cast<GoodbyeReason>(reason);
      events.push_back(event);
    }
  }
  return events;
}

std::string NameOf(const RoleState& state) {
  return absl::StrCat(RoleName(state.role), "_", ModeName(state.mode));
}

using Edges = std::map<std::pair<std::string, std::string>, std::set<std::string>>;

// Adds every way that `policy` has. Returns how many states there are.
size_t Explore(const Policy& policy, Edges& edges) {
  absl::flat_hash_set<std::string> seen;
  std::deque<RoleState> open;
  const auto take = [&](const std::string& from, const RoleState& before, const Event& event) {
    const RoleState after = Next(policy, before, event).state;
    if (from != NameOf(after)) {
      edges[{from, NameOf(after)}].insert(std::string(EventName(event.kind)));
    }
    if (seen.insert(KeyOf(after)).second) open.push_back(after);
  };
  for (const bool hold : {false, true}) {
    Event start{};
    start.kind = EventKind::kStartPrimary;
    start.hold = hold;
    take("[*]", RoleState{}, start);
    start.kind = EventKind::kStartSecondary;
    take("[*]", RoleState{}, start);
  }
  for (; !open.empty() && seen.size() < 100'000; open.pop_front()) {
    const RoleState state = open.front();
    for (const Event& event : EventsIn(state)) take(NameOf(state), state, event);
  }
  EXPECT_TRUE(open.empty()) << "not all states were visited";
  return seen.size();
}

std::string Diagram() {
  Edges edges;
  for (const bool automatic : {false, true}) {
    for (const int arbiter : {0, 1, 2}) {
      Policy policy{.auto_failover = automatic,
                    .on_secondary_lost = DefaultOnSecondaryLost(automatic),
                    .arbiter = arbiter > 0,
                    .arbiter_keeps_record = arbiter > 1};
      const size_t states = Explore(policy, edges);
      EXPECT_GT(states, 20u);
    }
  }
  std::string text = "stateDiagram-v2\n";
  for (const auto& [ends, events] : edges) {
    absl::StrAppend(&text, "    ", ends.first, " --> ", ends.second, ": ",
                    absl::StrJoin(events, ", "), "\n");
  }
  return text;
}

TEST(RoleDiagramTest, TheDocumentedDiagramIsTheMachine) {
  std::ifstream file(ROMULUS_SOURCE_DIR "/lib/failover/README.md");
  std::stringstream read;
  read << file.rdbuf();
  const std::string document = read.str();
  const std::string diagram = Diagram();
  const size_t begin = document.find(std::string(kBegin));
  const size_t end = document.find(std::string(kEnd));
  const bool found = begin != std::string::npos && end != std::string::npos && begin < end;
  EXPECT_TRUE(found &&
              document.substr(begin + kBegin.size(), end - begin - kBegin.size()) == diagram)
      << "put this between the marks in lib/failover/README.md:\n"
      << kBegin << diagram << kEnd;
}

}  // namespace
}  // namespace romulus::failover
