#include "daemon/secondary.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "memory/lock.h"
#include "memory/memory_layout.h"
#include "replica/session.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kMillisecond = 1'000'000;  // in nanoseconds
constexpr std::chrono::milliseconds kGoodbyeTime{500};
constexpr size_t kMaxStreams = 16;  // a primary has one; more are leftovers or strangers
// Whoever connects says Hello at once; the places above are not for those who do not.
constexpr uint64_t kHelloTimeoutNs = 5'000'000'000;
// A machine that could not be made is not tried again sooner.
constexpr uint64_t kPrepareAgainNs = 2'000'000'000;

}  // namespace

// One stream of a primary, from its Hello to its end.
class Secondary::Inbound final : public replica::HelloPolicy,
                                 public replica::SessionListener,
                                 public std::enable_shared_from_this<Inbound> {
 public:
  Inbound(Secondary* owner, std::shared_ptr<replica::ReplicaStore> store, std::string peer)
      : owner_(owner),
        store_(std::move(store)),
        peer_(std::move(peer)),
        heard_(owner->parts_.guest.clock),
        session_(store_.get(), this, this, &owner->counters_, owner->parts_.guest.clock,
                 replica::SessionOptions{}) {}

  replica::Session& session() { return session_; }
  void Attach(std::shared_ptr<wire::Link> link) {
    {
      std::lock_guard lock(link_mutex_);
      link_ = link;
    }
    session_.Attach(std::move(link));
  }
  void CloseLink(const absl::Status& why) {
    std::lock_guard lock(link_mutex_);
    if (link_ != nullptr) link_->Close(why);
  }
  // Destroys the link, which waits until the session has heard its end. Worker.
  void DestroyLink() {
    std::shared_ptr<wire::Link> link;
    std::lock_guard lock(link_mutex_);
    link.swap(link_);  // destroyed once the lock is free
  }

  bool said_hello() const { return said_hello_; }
  uint64_t instance() const { return instance_; }
  const std::string& peer() const { return peer_; }
  uint64_t heard_ns() const { return heard_.last_ns(); }

  v1::HelloReply OnHello(const v1::Hello& hello) override {
    said_hello_ = true;
    instance_ = hello.instance();
    v1::HelloReply reply = owner_->Judge(hello);
    welcome_ = reply.accepted();
    return reply;
  }
  bool MayGiveUp() override { return owner_->MayGiveUp(); }
  void OnHello(const v1::Hello& hello, const v1::HelloReply& reply) override {
    accepted_ = reply.accepted();
    Post([hello, reply](Inbound& self) {
      if (self.welcome_) self.owner_->HeardOfWelcome();
      if (reply.accepted()) self.owner_->Accepted(self.shared_from_this(), hello);
      self.owner_->parts_.listener->OnHello(hello, reply, self.peer_);
    });
  }
  void OnTraffic() override {
    heard_.Heard();
    owner_->parts_.signs->Heard();
  }
  void OnSyncProgress(uint64_t done, uint64_t total, bool complete) override {
    Tell([=](SecondaryListener& to) { to.OnReplicaSync(done, total, complete); });
  }
  void OnEpochCommitted(const replica::EpochKey& newest) override {
    owner_->committed_at_ns_.store(owner_->parts_.guest.clock->NowNs(), std::memory_order_relaxed);
    {
      std::lock_guard lock(newest_mutex_);
      newest_ = newest;
    }
    if (commit_told_.exchange(true)) return;
    Post([](Inbound& self) {
      self.commit_told_ = false;
      replica::EpochKey key;
      {
        std::lock_guard lock(self.newest_mutex_);
        key = self.newest_;
      }
      if (self.Counts()) self.owner_->parts_.listener->OnCommitted(key.term, key.epoch);
    });
  }
  void OnHandOver(const replica::EpochKey& last, const v1::HandOver& hand_over) override {
    Tell([last, still_ns = hand_over.stood_still_ns()](SecondaryListener& to) {
      to.OnHandOver(last.term, last.epoch, still_ns);
    });
  }
  void OnAuditMismatch(const std::vector<replica::AuditMismatch>& pages) override {
    Tell([pages](SecondaryListener& to) { to.OnReplicaMismatch(pages); });
  }
  void OnDiskAuditMismatch(const std::vector<replica::DiskAuditMismatch>& blocks) override {
    Tell([blocks](SecondaryListener& to) { to.OnReplicaDiskMismatch(blocks); });
  }
  void OnGoodbye(const v1::Goodbye& goodbye) override {
    Tell([goodbye](SecondaryListener& to) { to.OnSecondaryGoodbye(goodbye); });
  }
  void OnClosed(const absl::Status& why) override {
    Post([why](Inbound& self) {
      if (self.accepted_ && self.Counts()) self.owner_->parts_.listener->OnInboundClosed(why);
      self.owner_->Forget(self.shared_from_this());
    });
  }

 private:
  void Post(std::function<void(Inbound&)> what) {
    owner_->parts_.control->Post(
        [self = shared_from_this(), what = std::move(what)] { what(*self); });
  }
  // Only the stream that was accepted last has anything to say. Control loop.
  bool Counts() const { return owner_->current().get() == this; }
  void Tell(std::function<void(SecondaryListener&)> what) {
    Post([what = std::move(what)](Inbound& self) {
      if (self.Counts()) what(*self.owner_->parts_.listener);
    });
  }

  Secondary* const owner_;
  const std::shared_ptr<replica::ReplicaStore> store_;
  const std::string peer_;
  SignsOfLife heard_;
  std::atomic<bool> said_hello_{false};
  std::atomic<uint64_t> instance_{0};  // of the daemon, as its Hello says
  bool welcome_ = false;               // by the facts; set before the answer is told
  std::atomic<bool> accepted_{false};
  std::atomic<bool> commit_told_{false};
  std::mutex newest_mutex_;
  replica::EpochKey newest_;
  replica::Session session_;
  std::mutex link_mutex_;
  std::shared_ptr<wire::Link> link_;
};

// What failover::Promote() needs of the machine made ahead.
class Secondary::Prepared final : public failover::PreparedGuest {
 public:
  Prepared(GuestHost* host, const replica::PromotableEpoch* taken, const base::Clock* clock,
           uint64_t committed_at_ns)
      : host_(host), taken_(taken), clock_(clock), committed_at_ns_(committed_at_ns) {}
  absl::Status Restore(state::MachineState machine) override {
    const uint64_t outage_ns = clock_->NowNs() - committed_at_ns_;
    return host_->Restore(std::move(machine), outage_ns, taken_->console_offset,
                          taken_->console_tail);
  }
  absl::Status Start() override {
    started_ = true;
    return host_->Start();
  }
  // From then on the devices do what they had under way.
  bool started() const { return started_; }

 private:
  GuestHost* host_;
  const replica::PromotableEpoch* taken_;
  const base::Clock* clock_;
  const uint64_t committed_at_ns_;
  bool started_ = false;
};

Secondary::Secondary(const SecondaryParts& parts, HelloFacts facts, HostFacts host)
    : parts_(parts), host_(std::move(host)), facts_(std::move(facts)) {}

absl::StatusOr<std::unique_ptr<Secondary>> Secondary::Listen(const SecondaryParts& parts,
                                                             const std::string& address,
                                                             HelloFacts facts) {
  ROMULUS_ASSIGN_OR_RETURN(HostFacts host, HostFactsOf(*parts.guest.system));
  std::unique_ptr<Secondary> secondary(new Secondary(parts, std::move(facts), std::move(host)));
  ROMULUS_RETURN_IF_ERROR(secondary->NewReplica());
  // Not when a stream comes: one that finds no descriptors left must not end this process.
  ROMULUS_RETURN_IF_ERROR(secondary->heartbeats_.PrepareToWait());
  wire::GrpcLinkOptions link;
  link.security = parts.security;
  ROMULUS_ASSIGN_OR_RETURN(secondary->server_,
                           wire::GrpcLinkServer::Listen(address, link, secondary.get()));
  return secondary;
}

Secondary::~Secondary() { Shutdown(); }

void Secondary::Shutdown() {
  if (std::exchange(shut_down_, true)) return;
  // A goodbye under way gets a moment to leave.
  auto said = std::make_shared<std::promise<void>>();
  std::future<void> done = said->get_future();
  heartbeats_.Post([said] { said->set_value(); });
  done.wait_for(kGoodbyeTime);
  if (server_ != nullptr) server_->Shutdown();
  heartbeats_.Stop();
  worker_.Stop();
  std::set<std::shared_ptr<Inbound>> streams;
  {
    std::lock_guard lock(mutex_);
    streams.swap(streams_);
    current_.reset();
  }
  for (const auto& stream : streams) stream->DestroyLink();
}

void Secondary::SetFacts(HelloFacts facts) {
  std::lock_guard lock(mutex_);
  facts_ = std::move(facts);
  ++facts_generation_;
}

absl::Status Secondary::NewReplica() {
  const romulus::v1::Config& config = *parts_.guest.config;
  ROMULUS_ASSIGN_OR_RETURN(const memory::MemoryLayout layout,
                           memory::MemoryLayout::ForMib(config.guest().memory_mib()));
  ROMULUS_ASSIGN_OR_RETURN(std::shared_ptr<memory::GuestMemory> memory,
                           memory::GuestMemory::Create(layout));
  if (config.lock_memory()) ROMULUS_RETURN_IF_ERROR(memory::LockInRam(*memory));
  replica::StoreOptions options;
  options.staging_cap_bytes = uint64_t{config.limits().replica_staging_mib()} << 20;
  options.disks = parts_.disks;
  if (parts_.disks != nullptr) {
    options.disk_staging_bytes =
        DiskStagingBytes(config.checkpoint(), static_cast<size_t>(config.guest().disks_size()));
  }
  worker_.Post([this] {
    prepared_.reset();
    prepared_cpuid_.clear();
  });
  std::lock_guard lock(mutex_);
  if (store_ != nullptr) {
    // A stream that came before must not go on filling, and acking for, what nobody would promote.
    store_->Retire();
  }
  // Not before: the disks are one store's at a time.
  auto fresh = std::make_shared<replica::ReplicaStore>(memory, options, /*console=*/nullptr);
  if (store_ != nullptr) fresh->NoteTerm(store_->known_term());
  store_ = std::move(fresh);
  memory_ = std::move(memory);
  return absl::OkStatus();
}

std::shared_ptr<replica::ReplicaStore> Secondary::store() const {
  std::lock_guard lock(mutex_);
  return store_;
}

std::shared_ptr<Secondary::Inbound> Secondary::current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

base::WorkMark::Look Secondary::stream_work() const {
  // Not to be waited for: what holds it may wait for a disk, and the control loop owes that.
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || current_ == nullptr) return base::WorkMark::Look{};
  return current_->session().work();
}

replica::ReplicaStatus Secondary::replica_status() const { return store()->status(); }
std::vector<replica::DiskFacts> Secondary::disk_facts() const { return store()->disk_facts(); }

wire::LinkListener* Secondary::Accept(std::unique_ptr<wire::Link> link, absl::string_view peer) {
  auto inbound = std::make_shared<Inbound>(this, store(), std::string(peer));
  {
    std::lock_guard lock(mutex_);
    if (streams_.size() >= kMaxStreams) return nullptr;
    streams_.insert(inbound);
  }
  inbound->Attach(std::move(link));
  parts_.control->PostAfter(kHelloTimeoutNs, [weak = std::weak_ptr<Inbound>(inbound)] {
    const std::shared_ptr<Inbound> late = weak.lock();
    if (late == nullptr || late->said_hello()) return;
    late->CloseLink(absl::DeadlineExceededError("no Hello came"));
  });
  return &inbound->session();
}

void Secondary::OnCrowded(const absl::Status& why, uint64_t ended) {
  parts_.control->Post([this, why, ended] { parts_.listener->OnCrowded(why, ended); });
}

bool Secondary::MayGiveUp() const {
  std::lock_guard lock(mutex_);
  return !facts_.has_claim;
}

void Secondary::HeardOfWelcome() {
  std::lock_guard lock(mutex_);
  --coming_;
}

bool Secondary::primary_is_coming() const {
  std::lock_guard lock(mutex_);
  return coming_ != 0;
}

romulus::v1::HelloReply Secondary::Judge(const romulus::v1::Hello& hello) {
  for (;;) {
    uint64_t generation = 0;
    v1::HelloReply reply = JudgeNow(hello, &generation);
    std::lock_guard lock(mutex_);
    // What was said by facts that are over is said anew.
    if (reply.accepted() && generation != facts_generation_) continue;
    if (reply.accepted()) ++coming_;
    return reply;
  }
}

romulus::v1::HelloReply Secondary::JudgeNow(const romulus::v1::Hello& hello,
                                            uint64_t* generation) const {
  const v1::Config& config = *parts_.guest.config;
  HelloFacts facts;
  absl::Status prepared;
  std::shared_ptr<Inbound> standing;
  {
    std::lock_guard lock(mutex_);
    facts = facts_;
    standing = current_;
    *generation = facts_generation_;
    const uint64_t since_ns = parts_.guest.clock->NowNs() - prepare_failed_at_ns_;
    if (since_ns < kPrepareAgainNs) prepared = prepare_status_;
  }
  const uint64_t silent_ns = kMillisecond * config.failover().heartbeat_timeout_ms();
  if (standing != nullptr && parts_.guest.clock->NowNs() - standing->heard_ns() < silent_ns) {
    facts.heard_instance = standing->instance();
    facts.heard_from = standing->peer();
  }
  for (const replica::DiskFacts& disk : disk_facts()) facts.disks.push_back(ToWire(disk));
  v1::HelloReply reply = JudgeHello(hello, config, facts, host_);
  if (reply.accepted() && !prepared.ok()) {
    reply.set_accepted(false);
    reply.set_reason(v1::REFUSAL_REASON_CAPABILITY);
    reply.set_detail(absl::StrCat("cannot make the guest's machine: ", prepared.message()));
  }
  return reply;
}

void Secondary::Accepted(const std::shared_ptr<Inbound>& inbound, const romulus::v1::Hello& hello) {
  {
    std::lock_guard lock(mutex_);
    current_ = inbound;
    if (!std::exchange(beating_, true)) BeatAfter(heartbeat_interval_ns());
  }
  PrepareAhead(CpuidOf(hello));
}

void Secondary::Forget(const std::shared_ptr<Inbound>& inbound) {
  {
    std::lock_guard lock(mutex_);
    streams_.erase(inbound);
    if (current_ == inbound) current_.reset();
  }
  worker_.Post([inbound] { inbound->DestroyLink(); });
}

void Secondary::PrepareAhead(std::vector<arch::CpuidEntry> cpuid) {
  worker_.Post([this, cpuid = std::move(cpuid)]() mutable {
    if (prepared_ != nullptr && prepared_cpuid_ == cpuid) return;
    prepared_cpuid_ = std::move(cpuid);
    if (const absl::Status made = Prepare(); !made.ok()) {
      parts_.control->Post([this, made] { parts_.listener->OnPrepareFailed(made); });
    }
  });
}

absl::Status Secondary::Prepare() {
  prepared_.reset();
  std::shared_ptr<memory::GuestMemory> memory;
  {
    std::lock_guard lock(mutex_);
    memory = memory_;
  }
  absl::StatusOr<std::unique_ptr<GuestHost>> made =
      GuestHost::Prepare(parts_.guest, std::move(memory), prepared_cpuid_);
  if (made.ok()) prepared_ = *std::move(made);
  std::lock_guard lock(mutex_);
  prepare_status_ = made.status();
  prepare_failed_at_ns_ = parts_.guest.clock->NowNs();
  return prepare_status_;
}

void Secondary::Promote(Term term, uint64_t decided_ns) {
  worker_.Post([this, term, decided_ns] {
    const std::shared_ptr<replica::ReplicaStore> from = store();
    auto promoted =
        std::make_shared<absl::StatusOr<PromotedGuest>>(PromoteOnWorker(term, decided_ns));
    const bool intact =
        !promoted->ok() && from->status().state == replica::ReplicaState::kCommitted;
    parts_.control->Post(
        [this, promoted, intact] { parts_.listener->OnPromotion(std::move(*promoted), intact); });
  });
}

absl::StatusOr<PromotedGuest> Secondary::PromoteOnWorker(Term term, uint64_t decided_ns) {
  if (prepared_ == nullptr) {
    if (prepared_cpuid_.empty()) {
      return absl::FailedPreconditionError("no machine was prepared: no primary was ever accepted");
    }
    // It could not be made ahead: late is better than never.
    ROMULUS_RETURN_IF_ERROR(Prepare());
  }
  const std::shared_ptr<replica::ReplicaStore> from = store();
  replica::PromotableEpoch taken;
  const auto seal = [&]() -> absl::StatusOr<failover::SealedEpoch> {
    ROMULUS_ASSIGN_OR_RETURN(taken, from->TakeForPromotion(term));
    return failover::SealedEpoch{taken.key.term, taken.key.epoch, std::move(taken.machine)};
  };
  Prepared guest(prepared_.get(), &taken, parts_.guest.clock, committed_at_ns_);
  absl::StatusOr<failover::Promotion> promotion =
      failover::Promote(*parts_.guest.clock, decided_ns, seal, guest);
  if (!promotion.ok()) {
    absl::Status back;
    // No guest ran: its disks must not look as if one had, newer than all others.
    if (from->sealed() && !guest.started()) back = from->TakeBackDisks();
    if (back.ok()) return promotion.status();
    return absl::Status(promotion.status().code(),
                        absl::StrCat(promotion.status().message(),
                                     "; the disks' side files still say that the guest runs here: ",
                                     back.message()));
  }
  PromotedGuest promoted;
  promoted.promotion = *std::move(promotion);
  promoted.host = std::move(prepared_);
  promoted.console_offset = taken.console_offset;
  prepared_cpuid_.clear();
  return promoted;
}

void Secondary::RefuseHandOver(const std::string& detail) {
  const std::shared_ptr<Inbound> stream = current();
  if (stream == nullptr) return;
  heartbeats_.Post([stream, detail] { stream->session().RefuseHandOver(detail); });
}

void Secondary::CloseStream(std::optional<romulus::v1::Goodbye::Reason> reason, Term term,
                            const std::string& detail) {
  const std::shared_ptr<Inbound> stream = current();
  if (stream == nullptr) return;
  heartbeats_.Post([stream, reason, term, detail] {
    if (reason) stream->session().SayGoodbye(*reason, term, detail);
    stream->CloseLink(absl::CancelledError(detail));
  });
}

void Secondary::Heartbeat() {
  std::shared_ptr<Inbound> stream;
  {
    std::lock_guard lock(mutex_);
    stream = current_;
    beating_ = stream != nullptr;
  }
  if (stream == nullptr) return;
  if (stream->session().working_on_disk()) parts_.signs->Heard();
  BeatAfter(stream->session().KeepBeating(heartbeat_interval_ns()));
}

void Secondary::BeatAfter(uint64_t wait_ns) {
  heartbeats_.PostAfter(wait_ns, [this] { Heartbeat(); });
}

uint64_t Secondary::heartbeat_interval_ns() const {
  return uint64_t{parts_.guest.config->failover().heartbeat_interval_ms()} * 1'000'000;
}

}  // namespace romulus::daemon
