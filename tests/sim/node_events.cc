// What a node is told by its parts, turned into events of the role machine: daemon/node_events.cc.
#include <utility>

#include "absl/strings/str_cat.h"
#include "replica/fault.h"
#include "sim/node.h"

namespace romulus::sim {
namespace {

using failover::Event;
using failover::EventKind;

Event EventOf(EventKind kind, std::string detail = "") {
  Event event{};
  event.kind = kind;
  event.detail = std::move(detail);
  return event;
}

Event WithTerm(EventKind kind, Term term, EpochId epoch = EpochId()) {
  Event event{};
  event.kind = kind;
  event.term = term;
  event.epoch = epoch;
  return event;
}

Event GoodbyeEvent(const v1::Goodbye& goodbye) {
  Event event = EventOf(EventKind::kGoodbye, goodbye.detail());
  event.term = Term(goodbye.term());
  switch (goodbye.reason()) {
    case v1::Goodbye::REASON_SHUTDOWN:
      event.goodbye = failover::GoodbyeReason::kShutdown;
      break;
    case v1::Goodbye::REASON_GUEST_FINISHED:
      event.goodbye = failover::GoodbyeReason::kGuestFinished;
      break;
    case v1::Goodbye::REASON_PROMOTED:
      event.goodbye = failover::GoodbyeReason::kPromoted;
      break;
    case v1::Goodbye::REASON_UNPROTECT:
      event.goodbye = failover::GoodbyeReason::kUnprotect;
      break;
    case v1::Goodbye::REASON_CAP:
      event.goodbye = failover::GoodbyeReason::kCap;
      break;
    case v1::Goodbye::REASON_HAND_OVER_FAILED:
      event.goodbye = failover::GoodbyeReason::kHandOverFailed;
      break;
    case v1::Goodbye::REASON_DISK:
      event.goodbye = failover::GoodbyeReason::kDisk;
      break;
    default:
      event.goodbye = failover::GoodbyeReason::kProtocol;
      break;
  }
  return event;
}

failover::PeerHolds HoldsFrom(v1::Holds holds) {
  switch (holds) {
    case v1::HOLDS_NOTHING:
      return failover::PeerHolds::kNothing;
    case v1::HOLDS_REPLICA:
      return failover::PeerHolds::kReplica;
    case v1::HOLDS_GUEST:
      return failover::PeerHolds::kGuest;
    default:
      return failover::PeerHolds::kUnknown;
  }
}

}  // namespace

// --- as a primary

void Node::OnStreamAccepted(Term stream_term, const v1::HelloReply& reply) {
  connecting_ = false;
  ResetDetector();
  Event event = WithTerm(EventKind::kPeerConnected, stream_term);
  event.started_again = reply.instance() != peer_instance_;
  if (role_.state().hand_over == failover::HandOver::kNone) peer_instance_ = reply.instance();
  Handle(std::move(event)).IgnoreError();
}

void Node::OnStreamRefused(const v1::HelloReply& reply) {
  Event event = EventOf(
      EventKind::kPeerRefused,
      absl::StrCat("refused (", wire::RefusalReasonName(reply.reason()), "): ", reply.detail()));
  event.term = Term(reply.term());
  event.holds = HoldsFrom(reply.holds());
  event.started_again = reply.instance() != peer_instance_;
  event.lineage = wire::LineageFrom(reply.lineage());
  Handle(std::move(event)).IgnoreError();
  RetryConnect();
}

void Node::OnConnectFailed(const absl::Status&) { RetryConnect(); }

void Node::OnSyncDone(Term term) { Handle(WithTerm(EventKind::kSyncDone, term)).IgnoreError(); }

void Node::OnAcked(Term term, EpochId epoch) {
  Handle(WithTerm(EventKind::kEpochCommitted, term, epoch)).IgnoreError();
}

void Node::OnPrimaryGoodbye(const v1::Goodbye& goodbye) {
  Handle(GoodbyeEvent(goodbye)).IgnoreError();
}

void Node::OnStreamBroken(const absl::Status& why) {
  Handle(EventOf(EventKind::kStreamBroken, std::string(why.message()))).IgnoreError();
}

void Node::OnStreamClosed(const absl::Status& why) {
  Handle(EventOf(EventKind::kLinkClosed, std::string(why.message()))).IgnoreError();
}

// --- as a secondary

void Node::OnHello(const v1::Hello& hello, const v1::HelloReply& reply) {
  if (reply.accepted()) {
    ResetDetector();
    Handle(WithTerm(EventKind::kPeerConnected, Term(hello.term()))).IgnoreError();
    return;
  }
  if (reply.holds() == v1::HOLDS_UNSPECIFIED) return;
  Event event =
      EventOf(EventKind::kOtherPrimary,
              absl::StrCat(hello.node_name(), " runs the guest in term ", hello.current_term()));
  event.term = Term(hello.current_term());
  event.lineage = wire::LineageFrom(hello.lineage());
  Handle(std::move(event)).IgnoreError();
}

void Node::OnCommitted(Term term, EpochId epoch) {
  Handle(WithTerm(EventKind::kEpochCommitted, term, epoch)).IgnoreError();
}

void Node::OnSecondaryGoodbye(const v1::Goodbye& goodbye) { OnPrimaryGoodbye(goodbye); }

void Node::OnInboundClosed(const absl::Status& why) {
  const std::string detail(why.message());
  if (replica::FaultOf(why) == replica::Fault::kDiskIo) {
    return Handle(EventOf(EventKind::kReplicaLost, detail)).IgnoreError();
  }
  const bool refused = replica::FaultOf(why) != replica::Fault::kNone;
  Handle(EventOf(refused ? EventKind::kStreamBroken : EventKind::kLinkClosed, detail))
      .IgnoreError();
}

void Node::OnPromotion(absl::StatusOr<PromotedGuest> promoted, bool replica_intact) {
  if (!promoted.ok()) {
    Event event = EventOf(EventKind::kPromotionFailed, std::string(promoted.status().message()));
    event.intact = replica_intact;
    return Handle(std::move(event)).IgnoreError();
  }
  host_ = promoted->host;
  GuestTurn();
  CheckpointTurn();
  Handle(WithTerm(EventKind::kPromotionDone, promoted->promotion.from_term)).IgnoreError();
}

}  // namespace romulus::sim
