// Two role machines and a network that loses streams, delays and cuts, under a seeded scheduler. A
// stand-in for the daemon executes the actions as far as roles, terms and committed epochs go.
//
//   P3  no two nodes ever run the guest in one term;
//   P3  of two that run the guest the stale one ends as soon as they can talk, however often it was
//       started again;
//   P1  (automatic failover, HOLD) once a node was promoted from an epoch of some term, nothing
//   that was
//       said later in that term, or by its primary afterwards, gets out.
#ifndef ROMULUS_TESTS_UNIT_FAILOVER_TWO_NODES_H_
#define ROMULUS_TESTS_UNIT_FAILOVER_TWO_NODES_H_

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>

#include "failover/role_machine.h"

namespace romulus::failover {
using K = EventKind;
using A = ActionKind;

class World {
 public:
  World(uint64_t seed, bool automatic, bool operators, bool by_force = true, bool restarts = false,
        bool switchovers = false)
      : random_(seed),
        automatic_(automatic),
        operators_(operators),
        by_force_(by_force),
        restarts_(restarts),
        switchovers_(switchovers) {
    for (uint64_t index = 0; index < 2; ++index) {
      Policy policy{.auto_failover = automatic,
                    .on_secondary_lost = DefaultOnSecondaryLost(automatic),
                    .node_index = index};
      nodes_[index].machine.emplace(policy);
    }
    Post(0, Simple(K::kStartPrimary));
    Post(1, Simple(K::kStartSecondary));
  }

  std::string Run(int steps) {
    for (step_ = 0; step_ < steps && violation_.empty(); ++step_) {
      Step();
      CheckTerms();
      CheckHeard();
      CheckStill();
    }
    return violation_;
  }
  // No more faults: whatever is between the two is heard.
  std::string Calm() {
    partitioned_ = restarts_ = false;
    CloseStream();
    for (int node = 0; node < 2; ++node) Post(node, Simple(K::kOpProtect));
    for (int i = 0; i < 2000 && violation_.empty(); ++i) {
      const int node = static_cast<int>(Pick(2));
      while (!nodes_[node].inbox.empty()) HandleNext(node);
      if (Chance(2)) Connect(node);
      Drain(node);
      Cut(node);
      Deliver();
      FinishPromotion(node, /*works=*/true);
      CheckTerms();
      CheckStill();
    }
    if (switchovers_ && !Moves(0) && !Moves(1)) {
      Violate(0, "and node 1 both stand still: " + Described(0) + "; " + Described(1));
    }
    if (RunsGuest(State(0)) && RunsGuest(State(1))) {
      Violate(0, "and node 1 both go on: " + Described(0) + "; " + Described(1));
    }
    return violation_;
  }
  int promotions() const { return promotions_; }
  int stale_starts() const { return stale_starts_; }
  int fenced() const { return fenced_; }
  int protections() const { return protections_; }
  int handed_over() const { return handed_over_; }
  int went_on() const { return went_on_; }
  int unsure() const { return unsure_; }

 private:
  struct Stream {
    int primary = 0;
    Term term;
    uint64_t cut = 0;             // newest epoch on its way
    std::deque<uint64_t> epochs;  // to the secondary
    std::deque<uint64_t> acks;    // to the primary
    bool begun = false;           // SyncBegin is over there: what it held is given up
    bool open = true;
    bool offered = false;  // the secondary was asked to go on from the last epoch
  };
  // What a node's disks say. A primary's only: one that follows is not started as the primary here.
  struct Disk {
    bool is_protected = false;
    Term newest;
    Lineage lineage;
  };
  struct Node {
    std::optional<RoleMachine> machine;
    std::optional<Disk> disk;
    std::deque<Event> inbox;
    bool connecting = false;
    bool cutting = false;
    bool syncing = false;
    uint64_t committed = 0;  // replica
    Term committed_term;
    Term promoted_to;  // kPromote is under way
    uint64_t silent_for = 0;
    bool draining = false;  // kCutLast is under way
    bool promotes_offered = false;
  };

  static Stream Closed() {
    Stream stream;
    stream.open = false;
    return stream;
  }
  static Event Simple(EventKind kind, Term term = Term(), uint64_t epoch = 0) {
    Event event{};
    event.kind = kind;
    event.term = term;
    event.epoch = EpochId(epoch);
    return event;
  }
  uint64_t Pick(uint64_t below) { return random_() % below; }
  bool Chance(uint64_t one_in) { return Pick(one_in) == 0; }
  void Post(int node, Event event) { nodes_[node].inbox.push_back(std::move(event)); }
  const RoleState& State(int node) { return nodes_[node].machine->state(); }

  void Step() {
    const int node = static_cast<int>(Pick(2));
    Node& self = nodes_[node];
    switch (Pick(switchovers_ ? 10 : 9)) {
      case 0:
      case 1:
      case 2:
        if (!self.inbox.empty()) HandleNext(node);
        return;
      case 3:
        return Connect(node);
      case 4:
        return Cut(node);
      case 5:
        return Deliver();
      case 6:
        return FinishPromotion(node, !Chance(8));
      case 7:
        if (restarts_ && Chance(12)) return Restart(node);
        return Faults(node);
      case 8:
        return Operator(node);
      default:
        return Drain(node);
    }
  }

  std::string Described(int node) {
    const RoleState& state = State(node);
    const Lineage& lineage = state.lineage;
    return std::string(ModeName(state.mode)) + ", term " + std::to_string(state.term.value()) +
           ", promoted " + std::to_string(lineage.promoted.value()) + " from " +
           std::to_string(lineage.covers.value()) + ", shared " +
           std::to_string(lineage.shared.value()) + " (" + state.reason + ")";
  }

  void HandleNext(int node) {
    Event event = std::move(nodes_[node].inbox.front());
    nodes_[node].inbox.pop_front();
    Handle(node, event);
  }

  void FinishPromotion(int node, bool works) {
    Node& self = nodes_[node];
    if (self.promoted_to == Term()) return;
    if (works && self.promotes_offered && stream_.offered && self.committed != stream_.cut) {
      Violate(node, "goes on from epoch " + std::to_string(self.committed) + " and was handed " +
                        std::to_string(stream_.cut));
    }
    self.promotes_offered = false;
    // A new full sync may have begun over what the machine still believes in.
    works = works && self.committed > 0;
    Post(node, Simple(works ? K::kPromotionDone : K::kPromotionFailed, self.committed_term));
    if (works) NotePromotion(node);
    self.promoted_to = Term();
  }

  // The daemon is killed and comes again: as the primary that its disks say it was, or, if it knew
  // that it was over, as a secondary.
  void Restart(int node) {
    Node& self = nodes_[node];
    if (!self.disk || (State(node).role == Role::kSecondary && self.promoted_to != Term())) return;
    const bool follows = State(node).mode == Mode::kFenced && Chance(2);
    if (State(node).role == Role::kSecondary) return;
    if (stream_.open) {
      stream_.open = false;
      Post(1 - node, Simple(K::kLinkClosed));
    }
    const Policy policy = self.machine->policy();
    const std::optional<Disk> disk = self.disk;
    self = Node{};
    self.machine.emplace(policy);
    self.disk = disk;
    Event start = Simple(follows ? K::kStartSecondary : K::kStartPrimary, disk->newest);
    start.lineage = disk->lineage;
    start.hold = disk->is_protected;
    if (!follows && superseded_ == node) ++stale_starts_;
    Handle(node, start);
  }

  void NoteDisk(int node) {
    const RoleState& state = State(node);
    if (state.role != Role::kPrimary || !state.guest_running || state.held_since_start) return;
    nodes_[node].disk = Disk{!state.output_open, state.term, state.lineage};
  }

  PeerHolds Holds(int node) const {
    const RoleState& state = nodes_[node].machine->state();
    if (state.role == Role::kPrimary) {
      return RunsGuest(state) ? PeerHolds::kGuest : PeerHolds::kNothing;
    }
    const bool may = state.committed || state.peer_connected || state.mode == Mode::kPromoting;
    return may ? PeerHolds::kReplica : PeerHolds::kNothing;
  }

  void Connect(int node) {
    Node& self = nodes_[node];
    const int other = 1 - node;
    if (!self.connecting || stream_.open || partitioned_) return;
    if (State(node).role != Role::kPrimary) return;
    const Term current = State(node).term;
    const Term proposed = self.machine->ProposedTerm();
    const RoleState& peer = State(other);
    const bool plays = peer.role == Role::kSecondary && peer.mode != Mode::kPromoting &&
                       peer.mode != Mode::kFenced && nodes_[other].promoted_to == Term();
    if (!plays || proposed < peer.newest_term) {
      Event refused = Simple(K::kPeerRefused, peer.newest_term);
      refused.holds = Holds(other);
      refused.lineage = peer.lineage;
      Event met = Simple(K::kOtherPrimary, current);
      met.lineage = State(node).lineage;
      Post(other, met);
      if (!Chance(4)) Post(node, refused);
      return;
    }
    // The secondary accepts; whether the primary hears of it is another matter.
    Post(other, Simple(K::kPeerConnected, proposed));
    if (Chance(3)) nodes_[other].committed = 0;  // SyncBegin came as well
    if (Chance(5)) {
      Post(other, Simple(K::kLinkClosed));
      return;
    }
    stream_ = Stream{};
    stream_.primary = node;
    stream_.term = proposed;
    self.connecting = false;
    Post(node, Simple(K::kPeerConnected, proposed));
  }

  void Cut(int node) {
    Node& self = nodes_[node];
    if (stream_.primary != node || !stream_.open) return;
    if (self.syncing && State(node).mode == Mode::kSyncing && State(node).term == stream_.term) {
      self.syncing = false;
      Post(node, Simple(K::kSyncDone, stream_.term));
      return;
    }
    if (self.draining || stream_.offered) return;
    if (self.cutting && stream_.epochs.size() < 4) stream_.epochs.push_back(++stream_.cut);
  }

  // All that was cut is acked, and the guest stands still: that was its last epoch.
  void Drain(int node) {
    Node& self = nodes_[node];
    if (!self.draining) return;
    const bool stands = stream_.open && stream_.primary == node && self.cutting;
    if (stands && (!stream_.epochs.empty() || !stream_.acks.empty()) && !Chance(20)) return;
    self.draining = false;
    const bool done = stands && stream_.epochs.empty() && stream_.acks.empty() && stream_.cut > 0;
    Post(node, done && !Chance(8) ? Simple(K::kFinalEpoch, stream_.term, stream_.cut)
                                  : Simple(K::kFinalEpochFailed));
  }

  void Deliver() {
    if (!stream_.open || partitioned_) return;
    const int secondary = 1 - stream_.primary;
    if (State(secondary).role == Role::kPrimary) return CloseStream();  // its replica is sealed
    if (!stream_.begun && nodes_[secondary].promoted_to == Term() &&
        State(secondary).role == Role::kSecondary && State(secondary).mode != Mode::kPromoting) {
      if (Chance(2)) nodes_[secondary].committed = 0;
      stream_.begun = nodes_[secondary].committed == 0;
      return;
    }
    if (!stream_.begun) return;
    if (!stream_.epochs.empty() && Chance(2)) {
      const uint64_t epoch = stream_.epochs.front();
      stream_.epochs.pop_front();
      Node& replica = nodes_[secondary];
      // Sealed: promotion was asked for, or has happened.
      if (replica.promoted_to != Term() || State(secondary).role == Role::kPrimary ||
          State(secondary).newest_term > stream_.term) {
        return;
      }
      replica.committed = epoch;
      replica.committed_term = stream_.term;
      Post(secondary, Simple(K::kEpochCommitted, stream_.term, epoch));
      stream_.acks.push_back(epoch);
    } else if (!stream_.acks.empty()) {
      const uint64_t epoch = stream_.acks.front();
      stream_.acks.pop_front();
      Release(stream_.primary, stream_.term, epoch);
      Post(stream_.primary, Simple(K::kEpochCommitted, stream_.term, epoch));
    }
  }

  void CloseStream() {
    if (!stream_.open) return;
    stream_.open = false;
    for (int node = 0; node < 2; ++node) Post(node, Simple(K::kLinkClosed));
  }

  void Faults(int node) {
    if (switchovers_ && !Chance(4)) return;  // most come as far as that
    if (Chance(6)) CloseStream();
    if (Chance(6)) partitioned_ = !partitioned_;
    // Silence as the detector would find it; without a partition it may be wrong, too.
    if (Chance(partitioned_ ? 2 : 12)) Post(node, Simple(K::kPeerSilent));
    if (Chance(6)) Post(node, Simple(K::kPeerHeard));
    if (Chance(20)) Post(node, Simple(K::kStreamBroken));
    if (Chance(40)) Post(node, Simple(K::kProtectionFailed));
  }

  void Operator(int node) {
    if (switchovers_) {
      if (Chance(2)) Post(node, Simple(Chance(8) ? K::kHandOverLate : K::kOpSwitchover));
      return;
    }
    if (!operators_ || !Chance(6)) return;
    constexpr std::array<EventKind, 5> kAsked = {K::kOpFailover, K::kOpPause, K::kOpResume,
                                                 K::kOpUnprotect, K::kOpProtect};
    Event event = Simple(kAsked[Pick(kAsked.size())]);
    event.force = by_force_ && Chance(2);
    Post(node, event);
  }

  void Handle(int node, const Event& event) {
    Node& self = nodes_[node];
    bool begins_anew = false;
    const Mode before = State(node).mode;
    const HandOver handing = State(node).hand_over;
    const std::vector<Action> actions = self.machine->Handle(event, static_cast<uint64_t>(step_));
    NoteDisk(node);
    if (State(node).mode == Mode::kFenced && before != Mode::kFenced) ++fenced_;
    if (State(node).hand_over != handing) {
      unsure_ += State(node).hand_over == HandOver::kUnsure;
      went_on_ += State(node).hand_over == HandOver::kNone && State(node).guest_running;
    }
    if (event.kind == K::kSyncDone && State(node).sync_done) self.cutting = true;
    if (State(node).mode == Mode::kProtected && before != Mode::kProtected) ++protections_;
    for (const Action& action : actions) {
      switch (action.kind) {
        case A::kConnect:
          self.connecting = true;
          break;
        case A::kStopConnecting:
          self.connecting = false;
          break;
        case A::kStartSync:
          self.syncing = true;
          self.cutting = false;
          break;
        case A::kStopEpochs:
          self.syncing = self.cutting = false;
          break;
        case A::kOpenOutput:
          OpenedOutput(node);
          break;
        case A::kPromote:
          self.promoted_to = action.term;
          self.promotes_offered = event.kind == K::kHandOver;
          break;
        case A::kCutLast:
          self.draining = true;
          break;
        case A::kOfferHandOver:
          if (!stream_.open) break;
          stream_.offered = true;
          if (!partitioned_) Post(1 - node, Simple(K::kHandOver, stream_.term, stream_.cut));
          break;
        case A::kResumeEpochs:
          stream_.offered = false;
          break;
        case A::kRefuseHandOver:
          if (stream_.open && !partitioned_) Post(1 - node, Simple(K::kHandOverRefused));
          break;
        case A::kBeginAnew:
          begins_anew = true;
          break;
        case A::kDropReplica:
          self.committed = 0;
          break;
        case A::kAskUnprotect:
          AskUnprotect(node);
          break;
        case A::kCloseLink: {
          if (!stream_.open) break;
          const bool heard = action.say_goodbye && !partitioned_;
          if (heard) {
            Event goodbye = Simple(K::kGoodbye, State(node).newest_term);
            goodbye.goodbye = action.goodbye;
            Post(1 - node, goodbye);
          }
          CloseStream();
          break;
        }
        default:
          break;
      }
    }
    if (begins_anew) BeginAnew(node);
  }

  // As romulusd does: the same node, with its disks, as a secondary.
  void BeginAnew(int node) {
    ++handed_over_;
    const Policy policy = nodes_[node].machine->policy();
    const std::optional<Disk> disk = nodes_[node].disk;
    nodes_[node] = Node{};
    nodes_[node].machine.emplace(policy);
    nodes_[node].disk = disk;
    Event start = Simple(K::kStartSecondary);
    if (disk) start.lineage = disk->lineage;
    Handle(node, start);
  }

  // The secondary's session gives the replica up before it answers, and before its role machine
  // hears; a sealed replica is not given up, and says so.
  void AskUnprotect(int node) {
    Node& other = nodes_[1 - node];
    if (!stream_.open || partitioned_ || Chance(4)) {
      return Post(node, Simple(K::kUnprotectUnanswered));
    }
    Event answer = Simple(K::kGoodbye, State(1 - node).newest_term);
    if (superseded_ == node) {
      answer.goodbye = GoodbyeReason::kPromoted;
      return Post(node, answer);
    }
    other.committed = 0;
    answer.goodbye = GoodbyeReason::kUnprotect;
    Post(1 - node, answer);
    if (!Chance(4)) Post(node, answer);
    CloseStream();
  }

  // --- promises

  void Violate(int node, const std::string& what) {
    if (!violation_.empty()) return;
    violation_ = "step " + std::to_string(step_) + ": node " + std::to_string(node) + " " + what +
                 " (" + std::string(ModeName(State(node).mode)) + ", term " +
                 std::to_string(State(node).term.value()) + ")";
  }

  void CheckTerms() {
    if (RunsGuest(State(0)) && RunsGuest(State(1)) && State(0).term == State(1).term) {
      Violate(0, "and node 1 run the guest in the same term");
    }
    for (int node = 0; node < 2; ++node) {
      if (!RunsGuest(State(node))) continue;
      const auto [it, fresh] = runner_.emplace(State(node).term.value(), node);
      if (!fresh && it->second != node) Violate(node, "runs the guest in the other's term");
    }
  }

  // Nobody promotes but whom the guest was handed to, so of two nodes one stands still.
  bool Moves(int node) {
    const HandOver handing = State(node).hand_over;
    return RunsGuest(State(node)) && handing != HandOver::kOffered && handing != HandOver::kUnsure;
  }
  void CheckStill() {
    if (switchovers_ && Moves(0) && Moves(1)) {
      Violate(0, "and node 1 both go on: " + Described(0) + "; " + Described(1));
    }
  }

  // With disks a start does not open what a promotion has ended.
  void CheckHeard() {
    if (!automatic_ || !restarts_ || (operators_ && by_force_)) return;
    for (int node = 0; node < 2; ++node) {
      if (superseded_ == node && State(node).role == Role::kPrimary && State(node).output_open) {
        Violate(node, "is heard after the other was promoted");
      }
    }
  }

  void NotePromotion(int node) {
    ++promotions_;
    promoted_from_[nodes_[node].committed_term.value()] = nodes_[node].committed;
    const Term from = nodes_[node].committed_term;
    nodes_[node].disk =
        Disk{false, nodes_[node].promoted_to, {nodes_[node].promoted_to, from, from}};
    superseded_ = 1 - node;
  }
  void Release(int primary, Term term, uint64_t epoch) {
    if (!automatic_ && !switchovers_) return;
    if (auto it = promoted_from_.find(term.value());
        it != promoted_from_.end() && epoch > it->second) {
      Violate(primary, "releases epoch " + std::to_string(epoch) + ", the promoted one is " +
                           std::to_string(it->second));
    }
  }
  // Only automatic failover without operators who use force promises that nobody opens its output
  // while another node runs the guest from before it.
  void OpenedOutput(int node) {
    if (!automatic_ || (operators_ && by_force_)) return;
    // With disks the promoted one's are there even when it is not.
    const bool other_is_there = RunsGuest(State(1 - node)) || restarts_;
    if (superseded_ == node && State(node).role == Role::kPrimary && other_is_there) {
      Violate(node, "opens its output after the other was promoted");
    }
  }

  std::mt19937_64 random_;
  const bool automatic_;
  const bool operators_;
  const bool by_force_;
  bool restarts_;
  const bool switchovers_;
  std::array<Node, 2> nodes_;
  Stream stream_ = Closed();
  bool partitioned_ = false;
  int step_ = 0;
  int promotions_ = 0;
  int protections_ = 0;
  int stale_starts_ = 0;
  int fenced_ = 0;
  int handed_over_ = 0;
  int went_on_ = 0;
  int unsure_ = 0;
  std::optional<int> superseded_;
  std::map<uint64_t, int> runner_;              // term -> who ran the guest in it
  std::map<uint64_t, uint64_t> promoted_from_;  // term -> epoch
  std::string violation_;
};

}  // namespace romulus::failover

#endif  // ROMULUS_TESTS_UNIT_FAILOVER_TWO_NODES_H_
