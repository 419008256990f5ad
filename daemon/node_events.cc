// What the node is told by its parts, turned into events of the role machine.
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/clean_text.h"
#include "daemon/node.h"
#include "replica/fault.h"
#include "wire/handshake.h"

namespace romulus::daemon {

using failover::Event;
using failover::EventKind;

namespace {

constexpr size_t kMaxBuildBytes = 100;

Event WithTerm(EventKind kind, Term term, EpochId epoch = EpochId()) {
  Event event{};
  event.kind = kind;
  event.term = term;
  event.epoch = epoch;
  return event;
}

Event GoodbyeEvent(const romulus::v1::Goodbye& goodbye) {
  Event event = EventOf(EventKind::kGoodbye, goodbye.detail());
  event.term = Term(goodbye.term());
  using v1 = romulus::v1::Goodbye;
  switch (goodbye.reason()) {
    case v1::REASON_SHUTDOWN:
      event.goodbye = failover::GoodbyeReason::kShutdown;
      break;
    case v1::REASON_GUEST_FINISHED:
      event.goodbye = failover::GoodbyeReason::kGuestFinished;
      break;
    case v1::REASON_PROMOTED:
      event.goodbye = failover::GoodbyeReason::kPromoted;
      break;
    case v1::REASON_UNPROTECT:
      event.goodbye = failover::GoodbyeReason::kUnprotect;
      break;
    case v1::REASON_CAP:
      event.goodbye = failover::GoodbyeReason::kCap;
      break;
    case v1::REASON_DISK:
      event.goodbye = failover::GoodbyeReason::kDisk;
      break;
    case v1::REASON_HAND_OVER_FAILED:
      event.goodbye = failover::GoodbyeReason::kHandOverFailed;
      break;
    case v1::REASON_REPLICA_WRONG:
      event.goodbye = failover::GoodbyeReason::kReplicaWrong;
      break;
    default:
      event.goodbye = failover::GoodbyeReason::kProtocol;
      break;
  }
  return event;
}

failover::PeerHolds HoldsFrom(romulus::v1::Holds holds) {
  switch (holds) {
    case romulus::v1::HOLDS_NOTHING:
      return failover::PeerHolds::kNothing;
    case romulus::v1::HOLDS_REPLICA:
      return failover::PeerHolds::kReplica;
    case romulus::v1::HOLDS_GUEST:
      return failover::PeerHolds::kGuest;
    default:
      return failover::PeerHolds::kUnknown;
  }
}

absl::string_view StopName(vmm::GuestStop reason) {
  switch (reason) {
    case vmm::GuestStop::kPowerOff:
      return "power_off";
    case vmm::GuestStop::kReset:
      return "reset";
    case vmm::GuestStop::kTripleFault:
      return "triple_fault";
    case vmm::GuestStop::kError:
      return "error";
  }
  return "error";
}

}  // namespace

void Node::OnGuestStopped(vmm::GuestStop reason, const absl::Status& detail) {
  control_.Post([this, reason, detail] {
    const std::string text(StopName(reason));
    log_.Info("guest_stopped", {{"reason", text}, {"detail", detail}});
    if (reason == vmm::GuestStop::kError || reason == vmm::GuestStop::kTripleFault) {
      exit_status_ = absl::AbortedError(absl::StrCat("the guest stopped: ", text));
    }
    const Event event = EventOf(EventKind::kGuestStopped,
                                detail.ok() ? text : absl::StrCat(text, ": ", detail.message()));
    GuestStopped(event);
  });
}

void Node::GuestStopped(const Event& event) {
  const failover::RoleState& state = role_.state();
  if (state.hand_over != failover::HandOver::kNone) {
    // It may be the other node's by now: told if it stays here.
    stopped_meanwhile_ = event;
    return;
  }
  if (!state.sync_done) {
    Handle(event).IgnoreError();
    return;
  }
  // Epochs are cut: its last words leave as all others do, with the ack of theirs (P1).
  AfterLastEpoch(/*make_stand_still=*/false, [this, event] { Handle(event).IgnoreError(); });
}

void Node::OnCheckpointFailed(EpochId epoch, const absl::Status& why) {
  control_.Post([this, epoch, why] {
    ++epochs_aborted_;
    metrics_.EpochAborted();
    log_.Warning("checkpoint_failed", {{"epoch", epoch.value()}, {"why", why}});
  });
}

void Node::OnProtectionGaveUp(const absl::Status& why) {
  control_.Post([this, why] {
    log_.Error("protection_gave_up", {{"why", why}});
    Handle(EventOf(EventKind::kProtectionFailed, why.ToString())).IgnoreError();
  });
}

void Node::OnMacClash(const std::string& device) {
  log_.Error("mac_clash", {{"device", device},
                           {"what", "another card on this network has the same MAC address"}});
}

void Node::OnTapFailure(const std::string& device, const absl::Status& why) {
  if (why.ok()) {
    log_.Info("tap_goes_on", {{"device", device}});
  } else {
    log_.Error("tap_failed", {{"device", device}, {"why", why}});
  }
}

// --- as a primary

void Node::OnStreamAccepted(Term stream_term, const romulus::v1::HelloReply& reply) {
  connecting_ = false;
  overwrite_peer_ = false;
  peer_detail_.clear();
  ResetDetector();
  metrics_.SetPeerConnected(true);
  NoteAgreed(reply.build(), reply);
  log_.Info("peer_accepted", {{"stream_term", stream_term.value()},
                              {"peer_build", reply.build()},
                              {"protocol", reply.protocol_version()}});
  Event event = WithTerm(EventKind::kPeerConnected, stream_term);
  event.started_again = reply.instance() != peer_instance_;
  if (role_.state().hand_over == failover::HandOver::kNone) peer_instance_ = reply.instance();
  Handle(std::move(event)).IgnoreError();
}

void Node::NoteAgreed(const std::string& build, const romulus::v1::HelloReply& reply) {
  peer_build_ = CleanText(build, kMaxBuildBytes);
  peer_protocol_ = reply.protocol_version();
}

void Node::OnStreamRefused(const romulus::v1::HelloReply& reply) {
  const std::string reason(wire::RefusalReasonName(reply.reason()));
  peer_detail_ = absl::StrCat("refused (", reason, "): ", reply.detail());
  log_.Warning("peer_refused",
               {{"reason", reason}, {"detail", reply.detail()}, {"term", reply.term()}});
  Event event = EventOf(EventKind::kPeerRefused, peer_detail_);
  event.term = Term(reply.term());
  event.holds = HoldsFrom(reply.holds());
  event.started_again = reply.instance() != peer_instance_;
  event.lineage = wire::LineageFrom(reply.lineage());
  if (reply.reason() == romulus::v1::REFUSAL_REASON_TWO_PRIMARIES) {
    log_.Error("two_primaries", {{"peer_node", reply.node_name()}, {"detail", reply.detail()}});
  }
  Handle(std::move(event)).IgnoreError();
  RetryConnect();
}

void Node::OnConnectFailed(const absl::Status& why) {
  if (peer_detail_ != why.message()) log_.Info("connect_failed", {{"why", why}});
  peer_detail_ = std::string(why.message());
  RetryConnect();
}

void Node::OnSyncProgress(const wire::SyncProgress& progress) {
  sync_.set_pages_done(progress.pages_done);
  sync_.set_pages_total(progress.pages_total);
  sync_.set_pages_sent(progress.pages_sent);
  sync_.set_round(static_cast<uint32_t>(progress.round));
  NoteDiskProgress(progress);
  server_->NotifyChanged();
  metrics_.SetSyncProgress(progress.pages_done, progress.pages_total);
}

void Node::OnSyncDone(Term term) {
  sync_.set_active(false);
  sync_.set_completed(sync_.completed() + 1);
  metrics_.FullSyncCompleted();
  ShowNoSync();
  log_.Info("full_sync_done", {{"rounds", sync_.round()},
                               {"pages", sync_.pages_sent()},
                               {"disk_bytes_sent", sync_.disk_bytes_sent()},
                               {"disk_bytes_equal", sync_.disk_bytes_equal()}});
  Handle(WithTerm(EventKind::kSyncDone, term)).IgnoreError();
}

void Node::ShowNoSync() {
  metrics_.SetSyncProgress(0, 0);
  metrics_.SetDiskSyncProgress(0, 0);
}

void Node::OnAcked(Term term, EpochId epoch) {
  protect_backoff_ms_ = 0;
  Handle(WithTerm(EventKind::kEpochCommitted, term, epoch)).IgnoreError();
}

void Node::OnPrimaryGoodbye(const romulus::v1::Goodbye& goodbye) {
  log_.Info("peer_goodbye", {{"reason", romulus::v1::Goodbye::Reason_Name(goodbye.reason())},
                             {"detail", goodbye.detail()}});
  Handle(GoodbyeEvent(goodbye)).IgnoreError();
}

void Node::OnStreamBroken(const absl::Status& why) {
  NoteStreamEnd(why);
  Handle(EventOf(EventKind::kStreamBroken, peer_detail_)).IgnoreError();
}

void Node::OnStreamClosed(const absl::Status& why) {
  NoteStreamEnd(why);
  Handle(EventOf(EventKind::kLinkClosed, peer_detail_)).IgnoreError();
}

void Node::NoteStreamEnd(const absl::Status& why) {
  peer_detail_ = std::string(why.message());
  metrics_.SetPeerConnected(false);
  ShowNoSync();
  sync_.set_active(false);
  log_.Warning("stream_closed", {{"why", why}});
}

// --- as a secondary

void Node::OnHello(const romulus::v1::Hello& hello, const romulus::v1::HelloReply& reply,
                   const std::string& peer) {
  log_.Info("hello", {{"from", peer},
                      {"peer_node", hello.node_name()},
                      {"peer_build", hello.build()},
                      {"term", hello.term()},
                      {"accepted", reply.accepted()},
                      {"protocol", reply.accepted() ? reply.protocol_version() : 0},
                      {"detail", reply.detail()}});
  if (reply.accepted()) {
    ResetDetector();
    peer_detail_.clear();
    NoteAgreed(hello.build(), reply);
    metrics_.SetPeerConnected(true);
    Handle(WithTerm(EventKind::kPeerConnected, Term(hello.term()))).IgnoreError();
    return;
  }
  peer_detail_ = absl::StrCat("refused: ", reply.detail());
  // A primary, which looks for its secondary here: this node's own guest may be over. What another
  // VM's says, or what another protocol means, proves nothing.
  if (reply.holds() == romulus::v1::HOLDS_UNSPECIFIED) return;
  if (reply.reason() == romulus::v1::REFUSAL_REASON_TWO_PRIMARIES) {
    log_.Error("two_primaries", {{"peer_node", hello.node_name()}});
  }
  Event event =
      EventOf(EventKind::kOtherPrimary,
              absl::StrCat(hello.node_name(), " runs the guest in term ", hello.current_term()));
  event.term = Term(hello.current_term());
  event.lineage = wire::LineageFrom(hello.lineage());
  Handle(std::move(event)).IgnoreError();
}

void Node::OnReplicaSync(uint64_t pages_done, uint64_t pages_total, bool complete) {
  sync_.set_active(!complete);
  sync_.set_pages_done(pages_done);
  sync_.set_pages_total(pages_total);
  metrics_.SetSyncProgress(complete ? 0 : pages_done, complete ? 0 : pages_total);
  server_->NotifyChanged();
  if (!complete) return;
  sync_.set_completed(sync_.completed() + 1);
  metrics_.FullSyncCompleted();
  log_.Info("full_sync_received", {{"pages", pages_total}});
}

void Node::OnCommitted(Term term, EpochId epoch) {
  Handle(WithTerm(EventKind::kEpochCommitted, term, epoch)).IgnoreError();
}

void Node::OnSecondaryGoodbye(const romulus::v1::Goodbye& goodbye) { OnPrimaryGoodbye(goodbye); }

void Node::OnInboundClosed(const absl::Status& why) {
  NoteStreamEnd(why);
  if (replica::FaultOf(why) == replica::Fault::kDiskIo) {
    log_.Error("replica_given_up", {{"why", why}});
    return Handle(EventOf(EventKind::kReplicaLost, peer_detail_)).IgnoreError();
  }
  // Frames that were refused here say that the primary lives: the stream starts over.
  const bool refused = replica::FaultOf(why) != replica::Fault::kNone;
  Handle(EventOf(refused ? EventKind::kStreamBroken : EventKind::kLinkClosed, peer_detail_))
      .IgnoreError();
}

void Node::OnCrowded(const absl::Status& why, uint64_t ended) {
  log_.Warning("connections_crowded", {{"why", why}, {"ended", ended}});
}

void Node::OnPrepareFailed(const absl::Status& why) {
  log_.Error("prepare_failed", {{"why", why}});
  // Whoever cannot promote protects nothing, and must not let the primary believe that it does.
  Handle(EventOf(EventKind::kStreamBroken,
                 absl::StrCat("cannot make the guest's machine: ", why.message())))
      .IgnoreError();
}

void Node::OnPromotion(absl::StatusOr<PromotedGuest> promoted, bool replica_intact) {
  if (!promoted.ok()) {
    log_.Error("promotion_failed", {{"why", promoted.status()}});
    Event event = EventOf(EventKind::kPromotionFailed, std::string(promoted.status().message()));
    event.intact = replica_intact;
    Handle(std::move(event)).IgnoreError();
    AnswerFailovers(promoted.status());
    return;
  }
  host_ = promoted->host;
  WatchGuest();
  const failover::Promotion& promotion = promoted->promotion;
  const uint64_t detect_ns = promotion_by_operator_ || decided_ns_ < last_sign_at_decision_ns_
                                 ? 0
                                 : decided_ns_ - last_sign_at_decision_ns_;
  if (role_.state().hand_over == failover::HandOver::kNone) RecordFailover(promotion, detect_ns);
  log_.Info("promoted", {{"term", role_.state().promotion_term.value()},
                         {"from_term", promotion.from_term.value()},
                         {"epoch", promotion.epoch.value()},
                         {"detect_ns", detect_ns},
                         {"activate_ns", promotion.times.total_ns},
                         {"seal_ns", promotion.times.seal_ns},
                         {"restore_ns", promotion.times.restore_ns},
                         {"start_ns", promotion.times.start_ns},
                         {"console_offset", promoted->console_offset}});
  for (const std::string& note : host_->machine().restore_notes()) {
    log_.Warning("restore_note", {{"what", note}});
  }
  host_->AnnounceNics();
  // The console may have made room while nobody knew whose it was.
  host_->OnConsoleRoom();
  Handle(WithTerm(EventKind::kPromotionDone, promotion.from_term)).IgnoreError();
  AnswerFailovers(absl::OkStatus());
}

}  // namespace romulus::daemon
