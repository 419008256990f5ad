#include "daemon/second_path.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "wire/grpc_link.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

constexpr uint64_t kMillisecond = 1'000'000;  // in nanoseconds
constexpr size_t kMaxUnproven = 8;
constexpr uint64_t kProveTimeoutNs = 5'000'000'000;
constexpr uint64_t kTellAgainNs = 10'000'000'000;
constexpr uint32_t kConnectTimeoutMs = 1000;  // for so long a shutdown may have to wait
// Beyond it an echo is somebody's lie.
constexpr uint64_t kMaxRttNs = 60'000'000'000;
constexpr uint64_t kRttAverageOver = 8;

uint64_t ByChance() {
  std::random_device random;
  for (;;) {
    const uint64_t number = (uint64_t{random()} << 32) | random();
    if (number != 0) return number;
  }
}

bool IsListedFirst(const LoadedConfig& config) {
  return config.config.nodes(0).name() == config.config.node_name();
}

wire::GrpcLinkOptions LinkOptions(const wire::LinkSecurity& security) {
  wire::GrpcLinkOptions options;
  options.security = security;
  options.service = wire::LinkService::kHeartbeats;
  // What is larger ends the connection before it is looked at.
  options.max_message_bytes = 64 * wire::kMaxBeatBytes;
  options.max_queued_bytes = 4 * wire::kMaxBeatBytes;
  options.connect_timeout_ms = kConnectTimeoutMs;
  return options;
}

}  // namespace

// One connection, from its first beat to its end.
class SecondPath::Stream final : public wire::LinkListener,
                                 public std::enable_shared_from_this<Stream> {
 public:
  Stream(SecondPath* owner, std::string from, wire::BeatReaderOptions reader)
      : owner_(owner), from_(std::move(from)), reader_(std::move(reader)) {}

  void Attach(std::shared_ptr<wire::Link> link) {
    std::lock_guard lock(mutex_);
    link_ = std::move(link);
    if (close_) link_->Close(*close_);
  }
  void Close(const absl::Status& why) {
    std::lock_guard lock(mutex_);
    if (!close_) close_ = why;
    if (link_ != nullptr) link_->Close(why);
  }
  // Waits until the end was heard. Worker, or when nobody else is left.
  void DestroyLink() {
    std::shared_ptr<wire::Link> link;
    std::lock_guard lock(mutex_);
    link.swap(link_);  // destroyed once the lock is free
  }
  void Send(std::string bytes) {
    std::shared_ptr<wire::Link> link;
    {
      std::lock_guard lock(mutex_);
      link = link_;
    }
    // A link that ends says so itself; one that is full has older beats to say.
    if (link != nullptr) link->SendWithin(absl::ZeroDuration(), std::move(bytes)).IgnoreError();
  }

  void OnMessage(absl::string_view bytes) override {
    if (refused_) return;
    const uint64_t now_ns = owner_->clock_->NowNs();
    absl::StatusOr<v1::Beat> beat = reader_.Take(bytes, now_ns);
    if (!beat.ok()) {
      refused_ = true;
      owner_->Refused(reader_.fault(), from_, beat.status());
      return Close(beat.status());
    }
    proven_ = true;
    {
      std::lock_guard lock(mutex_);
      beat_ = *std::move(beat);
      heard_ns_ = now_ns;
      if (std::exchange(told_, true)) return;
    }
    owner_->control_->Post([self = shared_from_this()] { self->owner_->Heard(self); });
  }
  void OnClosed(const absl::Status& why) override {
    // What is no message at all does not come this far.
    if (absl::IsInvalidArgument(why) && !refused_) {
      owner_->Refused(wire::BeatFault::kMalformed, from_, why);
    }
    owner_->control_->Post([self = shared_from_this(), why] { self->owner_->Ended(self, why); });
  }

  std::pair<v1::Beat, uint64_t> Take() {
    std::lock_guard lock(mutex_);
    told_ = false;
    return {beat_, heard_ns_};
  }
  bool proven() const { return proven_; }
  const std::string& from() const { return from_; }

  uint64_t sequence = 0;  // of the last beat sent; control loop
  bool adopted = false;   // it was the current one; control loop

 private:
  SecondPath* const owner_;
  const std::string from_;
  wire::BeatReader reader_;  // the link's thread
  bool refused_ = false;     // likewise
  std::atomic<bool> proven_{false};
  std::mutex mutex_;
  std::shared_ptr<wire::Link> link_;
  std::optional<absl::Status> close_;
  v1::Beat beat_;
  uint64_t heard_ns_ = 0;
  bool told_ = false;
};

SecondPath::SecondPath(const LoadedConfig* config, base::Executor* control,
                       const base::Clock* clock, SecondPathListener* listener,
                       wire::LinkSecurity security)
    : config_(config),
      control_(control),
      clock_(clock),
      listener_(listener),
      security_(std::move(security)),
      dials_(IsListedFirst(*config)),
      incarnation_(ByChance()) {}

absl::StatusOr<std::unique_ptr<SecondPath>> SecondPath::Open(const LoadedConfig* config,
                                                             base::Executor* control,
                                                             const base::Clock* clock,
                                                             SecondPathListener* listener,
                                                             wire::LinkSecurity security) {
  std::unique_ptr<SecondPath> path(
      new SecondPath(config, control, clock, listener, std::move(security)));
  if (path->dials_) {
    path->Dial();
    return path;
  }
  ROMULUS_ASSIGN_OR_RETURN(path->server_,
                           wire::GrpcLinkServer::Listen(config->self().heartbeat_address(),
                                                        LinkOptions(path->security_), path.get()));
  return path;
}

SecondPath::~SecondPath() { Shutdown(); }

void SecondPath::Shutdown() {
  if (std::exchange(shut_down_, true)) return;
  if (server_ != nullptr) server_->Shutdown();
  worker_.Stop();
  std::set<std::shared_ptr<Stream>> streams;
  {
    std::lock_guard lock(mutex_);
    streams.swap(streams_);
  }
  current_.reset();
  for (const auto& stream : streams) stream->DestroyLink();
}

std::shared_ptr<SecondPath::Stream> SecondPath::MakeStream(std::string from) {
  wire::BeatReaderOptions reader;
  reader.vm_uuid = config_->config.uuid();
  reader.node_name = config_->config.node_name();
  reader.peer_name = config_->peer()->name();
  reader.interval_ns = uint64_t{config_->config.failover().heartbeat_interval_ms()} * kMillisecond;
  return std::make_shared<Stream>(this, std::move(from), std::move(reader));
}

// --- the end that listens

wire::LinkListener* SecondPath::Accept(std::unique_ptr<wire::Link> link, absl::string_view peer) {
  std::shared_ptr<Stream> stream = MakeStream(std::string(peer));
  {
    std::lock_guard lock(mutex_);
    const auto unproven = std::count_if(streams_.begin(), streams_.end(),
                                        [](const auto& one) { return !one->proven(); });
    if (static_cast<size_t>(unproven) < kMaxUnproven) streams_.insert(stream);
    if (!streams_.contains(stream)) stream = nullptr;
  }
  if (stream == nullptr) {
    Refused(wire::BeatFault::kCrowded, std::string(peer),
            absl::ResourceExhaustedError("too many connections on which no beat has come"));
    return nullptr;
  }
  stream->Attach(std::move(link));
  control_->PostAfter(kProveTimeoutNs, [this, weak = std::weak_ptr<Stream>(stream)] {
    const std::shared_ptr<Stream> late = weak.lock();
    if (late == nullptr || late->proven()) return;
    const absl::Status why = absl::DeadlineExceededError("no beat came");
    Refused(wire::BeatFault::kSilent, late->from(), why);
    late->Close(why);
  });
  return stream.get();
}

void SecondPath::OnCrowded(const absl::Status& why, uint64_t) {
  Refused(wire::BeatFault::kCrowded, "", why);
}

void SecondPath::Refused(wire::BeatFault fault, const std::string& from, const absl::Status& why) {
  const auto index = static_cast<size_t>(fault);
  refused_[index].fetch_add(1, std::memory_order_relaxed);
  const uint64_t now_ns = clock_->NowNs();
  {
    std::lock_guard lock(mutex_);
    if (told_ns_[index] != 0 && now_ns - told_ns_[index] < kTellAgainNs) return;
    told_ns_[index] = now_ns;
  }
  control_->Post([this, fault, from, why] { listener_->OnBeatRefused(fault, from, why); });
}

// --- the end that connects

void SecondPath::Dial() {
  if (shut_down_) return;
  std::shared_ptr<Stream> stream = MakeStream(config_->peer()->heartbeat_address());
  worker_.Post([this, stream = std::move(stream)] {
    {
      std::lock_guard lock(mutex_);
      streams_.insert(stream);
    }
    auto link = wire::ConnectGrpcLink(stream->from(), LinkOptions(security_), stream.get());
    if (link.ok()) {
      stream->Attach(*std::move(link));
      control_->Post([this, stream] { Dialled(stream); });
    } else {
      // Nobody will hear of it otherwise.
      control_->Post([this, stream, why = link.status()] { Ended(stream, why); });
    }
  });
}

void SecondPath::DialLater() {
  const v1::Limits& limits = config_->config.limits();
  backoff_ms_ =
      std::clamp<uint64_t>(2 * backoff_ms_, limits.reconnect_min_ms(), limits.reconnect_max_ms());
  control_->PostAfter(backoff_ms_ * kMillisecond, [this] { Dial(); });
}

void SecondPath::Dialled(const std::shared_ptr<Stream>& stream) {
  std::lock_guard lock(mutex_);
  if (streams_.contains(stream)) current_ = stream;  // unless it has ended already
}

// --- either end

void SecondPath::Heard(const std::shared_ptr<Stream>& stream) {
  const auto [beat, heard_ns] = stream->Take();
  if (!std::exchange(stream->adopted, true)) {
    // The other node has begun anew: what it said before on another connection is over.
    if (current_ != nullptr && current_ != stream) {
      current_->Close(absl::CancelledError("a new connection replaces this one"));
    }
    current_ = stream;
    rtt_ns_ = 0;
    detail_.clear();
    backoff_ms_ = 0;
  }
  if (current_ != stream) return;
  echo_ns_ = beat.sent_monotonic_ns();
  echo_heard_ns_ = heard_ns;
  const uint64_t under_way_ns = beat.echo_monotonic_ns() + beat.echo_held_ns();
  if (beat.echo_monotonic_ns() != 0 && under_way_ns >= beat.echo_held_ns() &&
      under_way_ns <= heard_ns && heard_ns - under_way_ns < kMaxRttNs) {
    const uint64_t rtt_ns = heard_ns - under_way_ns;
    rtt_ns_ = rtt_ns_ == 0 ? rtt_ns : ((kRttAverageOver - 1) * rtt_ns_ + rtt_ns) / kRttAverageOver;
  }
  listener_->OnBeat(beat, heard_ns);
}

void SecondPath::Ended(const std::shared_ptr<Stream>& stream, const absl::Status& why) {
  {
    std::lock_guard lock(mutex_);
    streams_.erase(stream);
  }
  worker_.Post([stream] { stream->DestroyLink(); });
  const bool counted = current_ == stream;
  if (counted) current_.reset();
  if (counted || dials_) detail_ = std::string(why.message());
  if (counted && stream->adopted) {
    echo_ns_ = 0;
    listener_->OnSecondPathClosed(why);
  }
  if (dials_ && current_ == nullptr) DialLater();
}

void SecondPath::Send(v1::Beat beat) {
  if (current_ == nullptr) return;
  const uint64_t now_ns = clock_->NowNs();
  beat.set_vm_uuid(config_->config.uuid());
  beat.set_node_name(config_->config.node_name());
  beat.set_incarnation(incarnation_);
  beat.set_sequence(++current_->sequence);
  beat.set_sent_monotonic_ns(now_ns);
  if (echo_ns_ != 0) {
    beat.set_echo_monotonic_ns(echo_ns_);
    beat.set_echo_held_ns(now_ns - std::min(now_ns, echo_heard_ns_));
  }
  current_->Send(beat.SerializeAsString());
}

void SecondPath::Restart(const absl::Status& why) {
  if (current_ != nullptr) current_->Close(why);
}

}  // namespace romulus::daemon
