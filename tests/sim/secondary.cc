#include "sim/secondary.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "replica/session.h"
#include "sim/timing.h"

namespace romulus::sim {
namespace {

constexpr size_t kMaxStreams = 16;

}  // namespace

wire::MachineIdentity SimMachine() {
  wire::MachineIdentity machine;
  machine.vm_name = "sim";
  machine.vm_uuid = "sim-uuid";
  machine.vcpu_count = 1;
  machine.memory = memory::MemoryLayout::ForMib(memory::kMinMemoryMib)->regions();
  return machine;
}

std::string NodeName(int node) { return node == 0 ? "a" : "b"; }

class Secondary::Inbound final : public replica::HelloPolicy,
                                 public replica::SessionListener,
                                 public std::enable_shared_from_this<Inbound> {
 public:
  Inbound(Secondary* owner, std::shared_ptr<replica::ReplicaStore> store,
          std::shared_ptr<memory::GuestMemory> memory)
      : owner_(owner),
        store_(std::move(store)),
        memory_(std::move(memory)),
        session_(store_.get(), this, this, &owner->counters_, owner->parts_.clock,
                 replica::SessionOptions{}) {}

  replica::Session& session() { return session_; }
  void Attach(std::shared_ptr<wire::Link> link) {
    link_ = link;
    session_.Attach(std::move(link));
  }
  void CloseLink(const absl::Status& why) {
    if (link_ != nullptr) link_->Close(why);
  }
  void DestroyLink() { link_.reset(); }
  bool said_hello() const { return said_hello_; }

  v1::HelloReply OnHello(const v1::Hello& hello) override {
    said_hello_ = true;
    v1::HelloReply reply = owner_->Judge(hello);
    welcome_ = reply.accepted();
    owner_->coming_ += welcome_;
    return reply;
  }
  void OnHello(const v1::Hello& hello, const v1::HelloReply& reply) override {
    accepted_ = reply.accepted();
    Post([hello, reply](Inbound& self) {
      self.owner_->coming_ -= self.welcome_;
      if (reply.accepted()) self.owner_->current_ = self.shared_from_this();
      self.owner_->parts_.listener->OnHello(hello, reply);
    });
  }
  void OnTraffic() override { owner_->parts_.heard(); }
  void OnSyncProgress(uint64_t, uint64_t, bool) override {}
  void OnEpochCommitted(const replica::EpochKey& newest) override {
    owner_->parts_.oracle->Committed(owner_->parts_.node, newest, *memory_);
    newest_ = newest;
    if (std::exchange(commit_told_, true)) return;
    Post([](Inbound& self) {
      self.commit_told_ = false;
      if (self.Counts()) {
        self.owner_->parts_.listener->OnCommitted(self.newest_.term, self.newest_.epoch);
      }
    });
  }
  void OnHandOver(const replica::EpochKey& last, const v1::HandOver&) override {
    Post([last](Inbound& self) {
      if (self.Counts()) self.owner_->parts_.listener->OnHandOver(last.term, last.epoch);
    });
  }
  void OnGoodbye(const v1::Goodbye& goodbye) override {
    Post([goodbye](Inbound& self) {
      if (self.Counts()) self.owner_->parts_.listener->OnSecondaryGoodbye(goodbye);
    });
  }
  void OnClosed(const absl::Status& why) override {
    Post([why](Inbound& self) {
      if (self.accepted_ && self.Counts()) self.owner_->parts_.listener->OnInboundClosed(why);
      const std::shared_ptr<Inbound> keep = self.shared_from_this();
      self.owner_->streams_.erase(keep);
      if (self.owner_->current_ == keep) self.owner_->current_.reset();
      self.owner_->worker_.Post([keep] { keep->DestroyLink(); });
    });
  }

 private:
  void Post(std::function<void(Inbound&)> what) {
    owner_->parts_.control->Post(
        [self = shared_from_this(), what = std::move(what)] { what(*self); });
  }
  bool Counts() const { return owner_->current_.get() == this; }

  Secondary* const owner_;
  const std::shared_ptr<replica::ReplicaStore> store_;
  const std::shared_ptr<memory::GuestMemory> memory_;  // the store's
  bool said_hello_ = false;
  bool welcome_ = false;
  bool accepted_ = false;
  bool commit_told_ = false;
  replica::EpochKey newest_;
  replica::Session session_;
  std::shared_ptr<wire::Link> link_;
};

class Secondary::Prepared final : public failover::PreparedGuest {
 public:
  Prepared(Host* host, const replica::PromotableEpoch* taken, const Parts& parts)
      : host_(host), taken_(taken), parts_(parts) {}
  absl::Status Restore(state::MachineState machine) override {
    // Judged before a byte of its tail is said.
    state::MachineState copy = machine;
    SimGuest peek(nullptr, nullptr);
    ROMULUS_RETURN_IF_ERROR(peek.Restore(std::move(copy)));
    parts_.oracle->Promoted(parts_.node, *taken_, peek.cpu(), parts_.solo_allowed);
    return host_->Restore(std::move(machine), *taken_);
  }
  absl::Status Start() override { return host_->Start(); }

 private:
  Host* host_;
  const replica::PromotableEpoch* taken_;
  const Parts& parts_;
};

Secondary::Secondary(const Parts& parts, HelloFacts facts)
    : parts_(parts),
      facts_(std::move(facts)),
      worker_(parts.scheduler, parts.process),
      heartbeats_(parts.scheduler, parts.process) {
  NewReplica();
  parts_.network->Listen(parts_.node, parts_.process, [this](std::shared_ptr<wire::Link> link) {
    return Accept(std::move(link));
  });
  Heartbeat();
}

Secondary::~Secondary() {
  for (const auto& stream : streams_) stream->DestroyLink();
}

void Secondary::NewReplica() {
  worker_.Post([this] { prepared_.reset(); });
  replica::StoreOptions options;
  if (store_ != nullptr) store_->Retire();
  memory_ = parts_.pools->Memory();
  auto fresh = std::make_shared<replica::ReplicaStore>(memory_, options, /*console=*/nullptr);
  if (store_ != nullptr) fresh->NoteTerm(store_->known_term());
  store_ = std::move(fresh);
}

wire::LinkListener* Secondary::Accept(std::shared_ptr<wire::Link> link) {
  if (streams_.size() >= kMaxStreams) return nullptr;
  auto inbound = std::make_shared<Inbound>(this, store_, memory_);
  streams_.insert(inbound);
  inbound->Attach(std::move(link));
  parts_.control->PostAfter(kHelloTimeoutNs, [weak = std::weak_ptr<Inbound>(inbound)] {
    const std::shared_ptr<Inbound> late = weak.lock();
    if (late == nullptr || late->said_hello()) return;
    late->CloseLink(absl::DeadlineExceededError("no Hello came"));
  });
  return &inbound->session();
}

v1::HelloReply Secondary::Judge(const v1::Hello& hello) const {
  wire::HelloJudge judge;
  judge.machine = SimMachine();
  judge.node_name = NodeName(parts_.node);
  judge.build = "sim";
  judge.max_frame_bytes = codec::kDefaultMaxBodyBytes;
  judge.plays_secondary = facts_.plays_secondary;
  judge.role_detail = facts_.role_detail;
  judge.newest_term = facts_.newest_term;
  judge.holds = facts_.holds;
  judge.lineage = facts_.lineage;
  v1::HelloReply reply = wire::EvaluateHello(hello, judge);
  reply.set_instance(facts_.instance);
  return reply;
}

void Secondary::Promote(Term term) {
  worker_.Post([this, term] {
    const std::shared_ptr<replica::ReplicaStore> from = store_;
    auto promoted = std::make_shared<absl::StatusOr<PromotedGuest>>(PromoteOnWorker(term));
    const bool intact =
        !promoted->ok() && from->status().state == replica::ReplicaState::kCommitted;
    parts_.control->Post(
        [this, promoted, intact] { parts_.listener->OnPromotion(std::move(*promoted), intact); });
  });
}

absl::StatusOr<PromotedGuest> Secondary::PromoteOnWorker(Term term) {
  prepared_ = parts_.prepare(memory_);
  const std::shared_ptr<replica::ReplicaStore> from = store_;
  replica::PromotableEpoch taken;
  const auto seal = [&]() -> absl::StatusOr<failover::SealedEpoch> {
    ROMULUS_ASSIGN_OR_RETURN(taken, from->TakeForPromotion(term));
    return failover::SealedEpoch{taken.key.term, taken.key.epoch, std::move(taken.machine)};
  };
  Prepared guest(prepared_.get(), &taken, parts_);
  PromotedGuest promoted;
  ROMULUS_ASSIGN_OR_RETURN(promoted.promotion, failover::Promote(*parts_.clock, 0, seal, guest));
  promoted.host = std::move(prepared_);
  return promoted;
}

void Secondary::RefuseHandOver(const std::string& detail) {
  if (current_ == nullptr) return;
  heartbeats_.Post([stream = current_, detail] { stream->session().RefuseHandOver(detail); });
}

void Secondary::CloseStream(std::optional<v1::Goodbye::Reason> reason, Term term,
                            const std::string& detail) {
  const std::shared_ptr<Inbound> stream = current_;
  if (stream == nullptr) return;
  heartbeats_.Post([stream, reason, term, detail] {
    if (reason) stream->session().SayGoodbye(*reason, term, detail);
    stream->CloseLink(absl::CancelledError(detail));
  });
}

void Secondary::Heartbeat() {
  uint64_t wait_ns = kHeartbeatNs;
  if (const std::shared_ptr<Inbound> stream = current_) {
    if (slow_disk_until_ns_ > parts_.scheduler->now_ns()) parts_.heard();
    wait_ns = stream->session().KeepBeating(kHeartbeatNs);
  }
  heartbeats_.PostAfter(wait_ns, [this] { Heartbeat(); });
}

}  // namespace romulus::sim
