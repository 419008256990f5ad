#include "sim/oracle.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace romulus::sim {
namespace {

using failover::Mode;
using failover::Role;

std::string Name(const replica::EpochKey& key) {
  return absl::StrCat("epoch ", key.epoch.value(), " of term ", key.term.value());
}

// More than this of the past is never asked for.
constexpr size_t kMaxEpochs = 64;

}  // namespace

void Oracle::Violate(absl::string_view promise, int node, const std::string& what) {
  if (!violation_.empty()) return;
  violation_ = absl::StrCat(promise, ": node ", node, " ", what, " (at ",
                            scheduler_->now_ns() / kMicrosecond, " us)");
}

void Oracle::Cut(const replica::EpochKey& key, const Cpu& cpu, const memory::GuestMemory& memory) {
  ++tally_->epochs_cut;
  epochs_[key] = {.snapshot = TakeSnapshot(cpu, memory)};
  order_.push_back(key);
  if (order_.size() <= kMaxEpochs) return;
  const replica::EpochKey oldest = order_.front();
  order_.pop_front();
  // A term may come again when all that knew of it is gone.
  if (std::find(order_.begin(), order_.end(), oldest) == order_.end()) epochs_.erase(oldest);
}

void Oracle::Committed(int node, const replica::EpochKey& key, const memory::GuestMemory& memory) {
  const auto it = epochs_.find(key);
  if (it == epochs_.end())
    return Violate("P5", node, absl::StrCat("commits ", Name(key), ", which nobody cut"));
  // Several of one message are told by the newest.
  for (auto one = it; one->first.term == key.term && !one->second.committed; --one) {
    one->second.committed = true;
    if (one == epochs_.begin()) break;
  }
  const std::string different =
      Difference(it->second.snapshot, memory, /*whole=*/scheduler_->Chance(8));
  if (!different.empty()) {
    Violate("P5", node, absl::StrCat("commits ", Name(key), ", and ", different));
  }
}

void Oracle::Acked(int node, const replica::EpochKey& key) {
  ++tally_->epochs_acked;
  const auto it = epochs_.find(key);
  if (it == epochs_.end()) {
    return Violate("P1", node, absl::StrCat("takes an ack of ", Name(key), ", which nobody cut"));
  }
  replica::EpochKey& newest = newest_acked_[it->second.snapshot.cpu.life];
  newest = std::max(newest, key);
}

void Oracle::Promoted(int node, const replica::PromotableEpoch& taken, const Cpu& cpu,
                      bool solo_allowed) {
  ++tally_->promotions;
  const auto it = epochs_.find(taken.key);
  if (it == epochs_.end())
    return Violate("P2", node, absl::StrCat("promotes ", Name(taken.key), ", which nobody cut"));
  const Snapshot& want = it->second.snapshot;
  const replica::EpochKey newest_acked = newest_acked_[want.cpu.life];
  if (taken.key < newest_acked) {
    Violate("P2", node,
            absl::StrCat("promotes ", Name(taken.key), ", and ", Name(newest_acked), " is acked"));
  }
  const std::string different = Difference(want, *taken.memory, /*whole=*/true);
  if (!different.empty())
    Violate("P2", node, absl::StrCat("promotes ", Name(taken.key), ", and ", different));
  if (!(cpu == want.cpu))
    Violate("P2", node, absl::StrCat("promotes another machine than that of ", Name(taken.key)));
  if (taken.console_end != want.cpu.said ||
      taken.console_offset + taken.console_tail.size() != taken.console_end) {
    Violate("P2", node,
            absl::StrCat("goes on at byte ", taken.console_end, ", the guest has said ",
                         want.cpu.said));
  }
  const size_t heard = heard_[cpu.life].size();
  if (heard < taken.console_offset && !risk_taken_) {
    Violate("P1", node,
            absl::StrCat("leaves out bytes from ", heard, " to ", taken.console_offset));
  }
  if (heard <= want.cpu.said) return;
  if (solo_allowed) return SetRiskTaken(true);
  if (risk_taken_) return;
  Violate("P1", node,
          absl::StrCat("promotes ", Name(taken.key), ", which ends at byte ", want.cpu.said,
                       ", and the client has seen ", heard));
}

void Oracle::Said(int node, uint64_t life, uint64_t offset, absl::string_view bytes,
                  std::optional<replica::EpochKey> with) {
  if (with) {
    const auto it = epochs_.find(*with);
    if (it == epochs_.end() || !it->second.committed) {
      Violate("P1", node,
              absl::StrCat("lets out ", Name(*with), ", which no secondary has committed"));
    }
  }
  std::string& heard = heard_[life];
  if (risk_taken_) return;
  if (offset > heard.size()) {
    return Violate("P1", node,
                   absl::StrCat("speaks from byte ", offset, " on, ", heard.size(), " are known"));
  }
  const size_t known = std::min(heard.size() - offset, bytes.size());
  tally_->said_again += known;
  if (absl::string_view(heard).substr(offset, known) != bytes.substr(0, known)) {
    return Violate("P1", node,
                   absl::StrCat("contradicts what the client has seen, from byte ", offset, " on"));
  }
  heard.append(bytes.data() + known, bytes.size() - known);
  tally_->console_bytes += bytes.size() - known;
}

void Oracle::Entered(int node, const failover::RoleState& before, const failover::RoleState& now) {
  if (before.mode == now.mode && before.role == now.role) return;
  if (now.mode == Mode::kFenced) ++tally_->fenced;
  if (now.mode != Mode::kProtected || now.role != Role::kPrimary) return;
  ++tally_->protections;
  const auto it = epochs_.find({now.term, now.committed_epoch});
  if (it == epochs_.end() || !it->second.committed) {
    Violate("P8", node,
            absl::StrCat("calls itself protected by ", Name({now.term, now.committed_epoch}),
                         ", which nobody holds"));
  }
}

void Oracle::TwoNodes(const failover::RoleState* a, const failover::RoleState* b) {
  const failover::RoleState* const states[] = {a, b};
  for (int node = 0; node < 2; ++node) {
    if (states[node] == nullptr || !failover::RunsGuest(*states[node])) continue;
    const auto [it, fresh] = ran_.emplace(states[node]->term.value(), node);
    if (!fresh && it->second != node) {
      Violate("P3", node,
              absl::StrCat("runs the guest in term ", it->first, ", which is the other's"));
    }
  }
  if (a == nullptr || b == nullptr || risk_taken_) return;
  if (a->guest_running && a->output_open && b->guest_running && b->output_open) {
    Violate("P3", 0,
            absl::StrCat("and node 1 are both heard, in terms ", a->term.value(), " and ",
                         b->term.value()));
  }
}

}  // namespace romulus::sim
