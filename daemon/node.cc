#include "daemon/node.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/metric_labels.h"
#include "kvm/ring_probe.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kMillisecond = 1'000'000;  // in nanoseconds
constexpr uint64_t kMetricsPeriodNs = 500 * kMillisecond;
constexpr uint64_t kMaxProtectBackoffMs = 300'000;

uint64_t UnixMs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

failover::Policy PolicyFrom(const romulus::v1::Config& config) {
  const romulus::v1::Failover& from = config.failover();
  failover::Policy policy;
  policy.auto_failover = from.auto_failover();
  switch (from.on_secondary_lost()) {
    case romulus::v1::Failover::ON_SECONDARY_LOST_SOLO:
      policy.on_secondary_lost = failover::OnSecondaryLost::kSolo;
      break;
    case romulus::v1::Failover::ON_SECONDARY_LOST_HOLD:
      policy.on_secondary_lost = failover::OnSecondaryLost::kHold;
      break;
    default:
      policy.on_secondary_lost = failover::DefaultOnSecondaryLost(policy.auto_failover);
  }
  for (int i = 0; i < config.nodes_size(); ++i) {
    if (config.nodes(i).name() == config.node_name()) policy.node_index = static_cast<uint64_t>(i);
  }
  const bool alone = config.nodes_size() < 2;
  policy.arbiter_keeps_record = !alone && from.arbiter().has_etcd();
  policy.stay_fenced = from.stay_fenced();
  policy.arbiter = policy.arbiter_keeps_record || (!alone && from.arbiter().has_command());
  return policy;
}

uint64_t StallFrom(const romulus::v1::Failover& from) {
  if (from.stall_timeout_ms() == 0) return 0;
  return std::max(from.stall_timeout_ms(), from.heartbeat_timeout_ms()) * kMillisecond;
}

failover::FailureDetectorOptions DetectorFrom(const romulus::v1::Failover& from) {
  failover::FailureDetectorOptions options;
  options.interval_ns = from.heartbeat_interval_ms() * kMillisecond;
  options.threshold_ns = from.heartbeat_timeout_ms() * kMillisecond;
  options.tick_ns = std::min(options.interval_ns, 100 * kMillisecond);
  options.stall_ns = std::min(4 * options.interval_ns, 200 * kMillisecond);
  return options;
}

}  // namespace

bool Node::CanSteerRings() {
  const kvm::Capabilities& host = system_->capabilities();
  if (ChooseDirtyLog(config_.tracking(), host) != vmm::DirtyLogMode::kRing) return false;
  // With PML a first write costs nothing and no entry comes before an exit: nothing to gain.
  if (!host.pml_known || host.pml) return false;
  // Without registers at each exit nobody can tell whether a vCPU gets on.
  if (host.sync_regs == 0) return false;
  const absl::StatusOr<bool> can = kvm::RingResetsWhatEntriesSay(*system_);
  if (!can.ok()) log_.Warning("rings_not_tried", {{"why", can.status()}});
  return can.ok() && *can;
}

Node::Node(NodeOptions options, std::unique_ptr<kvm::System> system)
    : options_(std::move(options)),
      config_(options_.config.config),
      system_(std::move(system)),
      log_(config_.log_level(), config_.name(), config_.node_name(), options_.events),
      metrics_(config_.name(), config_.node_name(), MetricLabels(options_.config)),
      records_(config_.limits().epoch_records(), &metrics_),
      signs_(&clock_),
      role_(PolicyFrom(config_)),
      detector_(DetectorFrom(config_.failover())),
      second_detector_(DetectorFrom(config_.failover()), StallFrom(config_.failover())),
      helper_(std::make_unique<AsioExecutor>(/*own_thread=*/true)),
      signals_(control_.io(), SIGTERM, SIGINT),
      since_unix_ms_(UnixMs()),
      switchovers_(options_.switchovers) {
  switchovers_.totals.resize(metrics::kSwitchoverResults);
  metrics_.SetLimits(LimitsOf(config_));
  ShowSwitchovers();
}

absl::StatusOr<std::unique_ptr<Node>> Node::Create(NodeOptions options,
                                                   std::unique_ptr<kvm::System> system) {
  std::unique_ptr<Node> node(new Node(std::move(options), std::move(system)));
  ROMULUS_RETURN_IF_ERROR(failover::Validate(node->role_.policy()));
  ROMULUS_RETURN_IF_ERROR(failover::Validate(DetectorFrom(node->config_.failover())));
  ROMULUS_RETURN_IF_ERROR(node->Open());
  return node;
}

Node::~Node() {
  // Whoever may call us from a thread of its own goes first; the guest after those who use it.
  watched_.clear();
  CloseTls();
  const bool guest_ran_here = host_ != nullptr;
  if (server_ != nullptr) server_->Shutdown();
  helper_.reset();
  if (second_path_ != nullptr) second_path_->Shutdown();
  if (host_ != nullptr && host_->assembled()) host_->loop().Halt();
  primary_.reset();
  if (secondary_ != nullptr) secondary_->Shutdown();
  if (host_ != nullptr) host_->Stop();
  exposer_.reset();
  host_.reset();
  secondary_.reset();
  CloseDisks(guest_ran_here);
  console_.reset();
}

absl::Status Node::Open() {
  const romulus::v1::Node& self = options_.config.self();
  const romulus::v1::Node* peer = options_.config.peer();
  ROMULUS_RETURN_IF_ERROR(OpenTls());
  // Before anybody can ask this node anything: the control loop turns while the arbiter is asked.
  ROMULUS_RETURN_IF_ERROR(OpenArbiter());
  ROMULUS_ASSIGN_OR_RETURN(server_, ControlServer::Listen(self.control_address(), this, Remote()));
  ConsoleEvents events;
  events.on_failure = [this](const absl::Status& why) {
    if (why.ok()) {
      log_.Info("console_goes_on");
    } else {
      log_.Error("console_failed", {{"why", why}});
    }
    // The watchers of the status hear of it as well.
    control_.Post([this] {
      UpdateMetrics();
      server_->NotifyChanged();
    });
  };
  events.on_cut_off = [this](uint64_t missed_bytes) {
    log_.Warning("console_client_cut_off", {{"missed_bytes", missed_bytes}});
  };
  events.on_left = [this](uint64_t bytes) { log_.Error("console_bytes_left", {{"bytes", bytes}}); };
  events.on_room = [this] {
    control_.Post([this] {
      if (host_ != nullptr) host_->OnConsoleRoom();
    });
  };
  ConsoleOptions options;
  options.cap_bytes = uint64_t{config_.checkpoint().held_output_kib()} << 10;
  ROMULUS_ASSIGN_OR_RETURN(console_, Console::Open(config_.console(), options, std::move(events)));

  const GuestHostOptions guest{.system = system_.get(),
                               .config = &config_,
                               .console = console_.get(),
                               .clock = &clock_,
                               .listener = this,
                               .disks = &disks_,
                               .steer_rings = CanSteerRings()};
  ROMULUS_RETURN_IF_ERROR(OpenDisks());
  if (peer != nullptr) {
    HelloFacts facts = Facts();
    facts.plays_secondary = !start_as_primary_;
    // Until the role machine was started nothing is proven.
    facts.holds = romulus::v1::HOLDS_UNSPECIFIED;
    facts.lineage = stamps_->lineage();
    ROMULUS_ASSIGN_OR_RETURN(secondary_,
                             Secondary::Listen({.guest = guest,
                                                .control = &control_,
                                                .signs = &signs_,
                                                .listener = this,
                                                .disks = disk_files_.get(),
                                                .security = Security()},
                                               self.replication_address(), std::move(facts)));
    primary_ = std::make_unique<Primary>(PrimaryParts{.config = &config_,
                                                      .peer_address = peer->replication_address(),
                                                      .control = &control_,
                                                      .clock = &clock_,
                                                      .records = &records_,
                                                      .console = console_.get(),
                                                      .stamps = stamps_.get(),
                                                      .signs = &signs_,
                                                      .counters = &secondary_->counters(),
                                                      .listener = this,
                                                      .security = Security()});
    ROMULUS_RETURN_IF_ERROR(OpenSecondPath());
  }
  if (start_as_primary_) {
    ROMULUS_ASSIGN_OR_RETURN(host_, GuestHost::Boot(guest));
  }
  // Last: its server takes the longest to start and to end, and nothing else depends on it.
  if (self.has_metrics_address()) {
    ROMULUS_ASSIGN_OR_RETURN(exposer_, metrics::Exposer::Listen(self.metrics_address(), metrics_));
  }
  return absl::OkStatus();
}

absl::Status Node::Run() {
  signals_.async_wait([this](const boost::system::error_code& error, int number) {
    if (error) return;
    log_.Info("signal", {{"number", number}});
    BeginStop();
  });
  log_.Info("started", {{"build", BuildName()},
                        {"control", options_.config.self().control_address()},
                        {"vcpus", config_.guest().vcpus()},
                        {"memory_mib", config_.guest().memory_mib()}});
  failover::Event event{};
  event.kind = failover::EventKind::kStartSecondary;
  event.lineage = stamps_->lineage();
  event.detail = waits_because_;
  if (host_ != nullptr) {
    event.kind = failover::EventKind::kStartPrimary;
    event.term = stamps_->newest_term();
    event.record = record_at_start_;
    // Without another node in the configuration nobody could be asked, nor have been promoted.
    event.hold = options_.config.peer() != nullptr && stamps_->may_be_superseded();
  }
  Handle(std::move(event)).IgnoreError();
  if (host_ != nullptr) {
    // The guest writes to its disks from now on, in a term that they know.
    ROMULUS_RETURN_IF_ERROR(stamp_status_);
    ROMULUS_RETURN_IF_ERROR(base::Annotate(host_->Start(), "starting the guest"));
    log_.Info("guest_started", {{"tracker", host_->tracker_name()}});
  }
  Tick();
  ExportMetrics();
  WatchRecord();
  RepeatInsecure();
  WatchLoops();
  control_.Post([this] { TellManager(); });
  Remember();
  while (!exit_) {
    if (control_.io().run_one() == 0) break;
  }
  watched_.clear();
  if (begins_anew_) control_.io().poll();  // a signal to stop that has come meanwhile
  log_.Info("ended", {{"status", exit_status_}});
  return exit_status_;
}

absl::Status Node::Handle(failover::Event event) {
  const failover::RoleState before = role_.state();
  const std::string name(failover::EventName(event.kind));
  const std::vector<failover::Action> actions = role_.Handle(event, clock_.NowNs());
  absl::Status refused;
  // The facts first: a Hello that comes while the actions run is judged by the new role.
  if (secondary_ != nullptr) secondary_->SetFacts(Facts());
  if (!(before == role_.state())) {
    TellTerm(before.term, name);
    RecordStamps();
    StateChanged(before, name);
    NoteSwitchover(before);
  }
  for (const failover::Action& action : actions) {
    if (action.kind == failover::ActionKind::kRefuse) {
      refused = action.status;
    } else {
      log_.Debug("action", {{"name", failover::ActionName(action.kind)}, {"for", name}});
      Execute(action);
    }
  }
  if (before.unprotecting && !role_.state().unprotecting) AnswerUnprotects();
  if (stop_ == Stop::kAsksGuest && !role_.state().guest_running && !exit_) StopInPlace();
  // What was done, not what is about to be.
  const failover::RoleState& now = role_.state();
  if (before.mode != now.mode || before.releasing != now.releasing ||
      before.released_for != now.released_for) {
    SendBeat();
  }
  if (stopped_meanwhile_ && role_.state().hand_over == failover::HandOver::kNone &&
      role_.state().guest_running) {
    control_.Post(
        [this, event = *std::exchange(stopped_meanwhile_, std::nullopt)] { GuestStopped(event); });
  }
  return refused;
}

void Node::StateChanged(const failover::RoleState& before, const std::string& event) {
  const failover::RoleState& now = role_.state();
  if (before.role != now.role || before.mode != now.mode) {
    since_unix_ms_ = UnixMs();
    log_.Info("mode", {{"role", failover::RoleName(now.role)},
                       {"mode", failover::ModeName(now.mode)},
                       {"was", failover::ModeName(before.mode)},
                       {"term", now.term.value()},
                       {"cause", event},
                       {"reason", now.reason}});
    // What was offered was to be lost.
    const bool offered = before.hand_over == failover::HandOver::kOffered ||
                         before.hand_over == failover::HandOver::kUnsure;
    if (now.mode == failover::Mode::kFenced && !offered) {
      log_.Error("fenced", {{"why", now.reason}});
      if (role_.policy().arbiter_keeps_record && !config_.failover().stay_fenced()) {
        // Once all that belongs to the loss is done.
        control_.Post([this] {
          exit_ = true;
          // Under a name that is another host's it must not follow either.
          if (!namesake_.empty()) {
            exit_status_ = absl::FailedPreconditionError(namesake_);
            return;
          }
          log_.Info("begins_anew", {{"as", "secondary"}});
          begins_anew_ = true;
        });
      }
    }
    if (now.held_since_start) log_.Warning("output_held", {{"why", now.reason}});
    UpdateMetrics();
    server_->NotifyChanged();
    TellManager();
  } else if (before.peer_connected != now.peer_connected || before.reason != now.reason) {
    server_->NotifyChanged();
    TellManager();
  }
}

void Node::Execute(const failover::Action& action) {
  using failover::ActionKind;
  switch (action.kind) {
    case ActionKind::kConnect:
      connecting_ = true;
      backoff_ms_ = 0;
      ++connect_generation_;
      if (!action.later) return Connect();
      protect_backoff_ms_ = protect_backoff_ms_ == 0
                                ? config_.limits().reconnect_max_ms()
                                : std::min(2 * protect_backoff_ms_, kMaxProtectBackoffMs);
      control_.PostAfter(protect_backoff_ms_ * kMillisecond,
                         [this, generation = connect_generation_] {
                           if (generation == connect_generation_) Connect();
                         });
      return;
    case ActionKind::kStopConnecting:
      connecting_ = false;
      ++connect_generation_;
      return;
    case ActionKind::kStartSync:
      sync_.set_active(true);
      sync_.set_started_unix_ms(UnixMs());
      log_.Info("full_sync_begins", {{"term", action.term.value()}});
      if (!stamp_status_.ok()) {
        // What the sync overwrites could not be told from what is newer.
        return control_.Post([this] {
          Handle(
              EventOf(failover::EventKind::kProtectionFailed, std::string(stamp_status_.message())))
              .IgnoreError();
        });
      }
      if (primary_ == nullptr || host_ == nullptr) return;
      // An opening that waits for the stamp is due now, and not later: from the first cut on the
      // gates hold, and nobody else may open them.
      if (role_.state().output_open) host_->OpenOutput();
      ++output_generation_;
      return primary_->StartSync(host_, action.term);
    case ActionKind::kOpenOutput:
      return OpenOutput();
    case ActionKind::kHoldOutput:
      ++output_generation_;
      if (host_ != nullptr) host_->HoldOutput();
      return;
    case ActionKind::kDiscardOutput:
      ++output_generation_;
      if (host_ != nullptr) host_->DiscardOutput();
      return;
    case ActionKind::kStopGuest:
      if (host_ != nullptr) host_->Stop();
      return;
    case ActionKind::kPauseGuest:
      return SetPaused(true);
    case ActionKind::kResumeGuest:
      return SetPaused(false);
    case ActionKind::kStopEpochs:
      sync_.set_active(false);
      if (primary_ != nullptr) primary_->StopEpochs(host_);
      return;
    case ActionKind::kCloseLink:
      return CloseLinks(action);
    case ActionKind::kAskUnprotect:
      return AskUnprotect();
    case ActionKind::kPromote:
      return Promote(action.term);
    case ActionKind::kClaim:
      if (action.claim.action == failover::ClaimAction::kPromote &&
          secondary_->primary_is_coming()) {
        failover::Event event = EventOf(failover::EventKind::kClaimVoid);
        event.term = action.claim.wanted;
        return control_.Post([this, event] { Handle(event).IgnoreError(); });
      }
      ask_backoff_ms_ = 0;
      return AskSoon(action.claim);
    case ActionKind::kWithdraw:
      ask_backoff_ms_ = 0;
      return control_.Post([this, claim = action.claim] { Withdraw(claim); });
    case ActionKind::kGiveBack:
      ask_backoff_ms_ = 0;
      return control_.Post([this, term = action.term] { GiveBack(term); });
    case ActionKind::kDropReplica:
      if (secondary_ == nullptr) return;
      // A primary was accepted of which this loop has yet to hear: what was held is its to
      // overwrite, and what it has acked since must stay. A sealed replica accepts none.
      if (secondary_->primary_is_coming() &&
          secondary_->replica_status().state != replica::ReplicaState::kPromoted) {
        return;
      }
      if (absl::Status dropped = secondary_->NewReplica(); !dropped.ok()) {
        log_.Error("replica_failed", {{"why", dropped}});
      }
      return;
    case ActionKind::kCutLast:
      return CutLast();
    case ActionKind::kOfferHandOver:
      return OfferHandOver();
    case ActionKind::kResumeEpochs:
      if (host_ != nullptr) host_->loop().GoOn();
      return;
    case ActionKind::kRefuseHandOver:
      if (secondary_ != nullptr) secondary_->RefuseHandOver(action.detail);
      return;
    case ActionKind::kBeginAnew:
      // Once all that belongs to this event is done.
      return control_.Post([this] {
        log_.Info("begins_anew", {{"as", "secondary"}});
        begins_anew_ = exit_ = true;
      });
    case ActionKind::kExit:
      exit_ = true;
      return;
    case ActionKind::kRefuse:
      return;
  }
}

void Node::Connect() {
  if (primary_ == nullptr || host_ == nullptr || !connecting_) return;
  absl::StatusOr<wire::HelloInput> hello =
      HelloFor(config_, system_->capabilities(), host_->machine());
  if (!hello.ok()) return log_.Error("hello_failed", {{"why", hello.status()}});
  if (!stamp_status_.ok()) RecordStamps();
  if (!stamp_status_.ok()) return OnConnectFailed(stamp_status_);
  hello->instance = instance_;
  hello->disks = stamps_->ForHello();
  hello->overwrite_disks = overwrite_peer_;
  hello->current_term = role_.state().term;
  hello->stream_term = role_.ProposedTerm();
  hello->lineage = role_.state().lineage;
  primary_->Connect(*std::move(hello));
}

void Node::RetryConnect() {
  if (!connecting_) return;
  const romulus::v1::Limits& limits = config_.limits();
  backoff_ms_ = backoff_ms_ == 0 ? limits.reconnect_min_ms()
                                 : std::min<uint64_t>(2 * backoff_ms_, limits.reconnect_max_ms());
  control_.PostAfter(backoff_ms_ * kMillisecond, [this, generation = connect_generation_] {
    if (generation == connect_generation_) Connect();
  });
}

void Node::CloseLinks(const failover::Action& action) {
  const romulus::v1::Goodbye::Reason reason = GoodbyeToProto(action.goodbye);
  const absl::Status why = absl::CancelledError(action.detail);
  if (primary_ != nullptr) {
    std::optional<Primary::Farewell> farewell;
    if (action.say_goodbye) farewell = Primary::Farewell{reason, action.detail};
    primary_->Close(std::move(farewell), why);
  }
  if (secondary_ != nullptr) {
    secondary_->CloseStream(action.say_goodbye ? std::optional(reason) : std::nullopt,
                            role_.state().newest_term, action.detail);
  }
}

void Node::SetPaused(bool paused) {
  // On the helper: the pause may have to wait for a checkpoint, which may wait for the secondary,
  // whose loss is noticed here.
  helper_->Post([this, host = host_, paused] {
    if (host == nullptr) return;
    if (const absl::Status done = host->SetPausedByOperator(paused); !done.ok()) {
      log_.Warning("pause_failed", {{"why", done}});
    }
  });
}

void Node::ResetDetector() {
  signs_.Heard();
  detector_.Reset(clock_.NowNs());
}

void Node::Tick() {
  const uint64_t now_ns = clock_.NowNs();
  const uint64_t sign_ns = signs_.last_ns();
  if (primary_ != nullptr) primary_->TellConsoleReleased();
  WatchSecondPath(now_ns);
  const bool was_lost = detector_.life() == failover::PeerLife::kLost;
  if (sign_ns > last_sign_seen_ns_) {
    last_sign_seen_ns_ = sign_ns;
    if (was_lost) {
      detector_.Reset(now_ns);
      log_.Info("peer_heard");
      Handle(EventOf(failover::EventKind::kPeerHeard)).IgnoreError();
    } else {
      detector_.OnSignOfLife(sign_ns);
    }
  }
  // Without a stream and without an epoch to go on from, silence means nothing.
  const failover::RoleState& state = role_.state();
  const bool matters =
      state.peer_connected || (state.role == failover::Role::kSecondary && state.committed);
  if (detector_.Tick(now_ns) == failover::PeerLife::kLost && !was_lost && matters) {
    log_.Warning("peer_silent", {{"silence_ns", detector_.silence_ns()},
                                 {"own_stalls", detector_.stats().own_stalls}});
    Handle(EventOf(failover::EventKind::kPeerSilent)).IgnoreError();
  }
  control_.PostAfter(std::min({detector_.UntilNextTickNs(), second_detector_.UntilNextTickNs(),
                               UntilNextBeatNs()}),
                     [this] { Tick(); });
}

void Node::ExportMetrics() {
  UpdateMetrics();
  control_.PostAfter(kMetricsPeriodNs, [this] { ExportMetrics(); });
}

void Node::Promote(Term term) {
  decided_ns_ = clock_.NowNs();
  last_sign_at_decision_ns_ = signs_.last_ns();
  log_.Info("promoting", {{"term", term.value()}, {"by_operator", promotion_by_operator_}});
  secondary_->Promote(term, decided_ns_);
}

}  // namespace romulus::daemon
