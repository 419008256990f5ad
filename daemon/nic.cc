#include "daemon/nic.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstring>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/status.h"
#include "devices/net_announce.h"
#include "devices/tap.h"
#include "devices/virtio/net.h"
#include "epoch/frame_gate.h"

namespace romulus::daemon {
namespace {

namespace asio = boost::asio;
using asio::posix::descriptor_base;

// Frames written before others on the device loop have their turn.
constexpr int kFramesPerTurn = 64;
// Thrown away at most when the guest comes: more than a tap's queue usually holds (txqueuelen), and
// an end when frames come in as fast as they are read.
constexpr int kMaxStaleFrames = 16'384;
constexpr size_t kSourceMacOffset = sizeof(devices::NetHeader) + 6;

}  // namespace

// Shared with what is posted to the loop, which finds it closed when the Nic is gone.
class Nic::Core final : public devices::NetSource, public std::enable_shared_from_this<Core> {
 public:
  Core(const NicOptions& options, std::unique_ptr<devices::Tap> tap, AsioExecutor& loop,
       NicEvents events)
      : options_(options),
        offloads_(tap->offloads()),
        loop_(loop),
        gate_({.cap_bytes = options.cap_bytes}),
        tap_(std::move(tap)),
        descriptor_(loop.io(), tap_->fd()),
        events_(std::move(events)) {
    gate_.SetReleased([this] { PostPump(); });
    gate_.SetRoom([this] { WakeCard(/*frames=*/false); });
  }
  ~Core() override { Close(); }

  void Close() {
    absl::MutexLock lock(&mutex_);
    if (tap_ == nullptr) return;
    descriptor_.release();  // the tap closes it
    tap_.reset();
    events_ = {};
  }

  // NetSource, on the device loop unless noted:
  void Plug(devices::NetPlug* plug) override {
    absl::MutexLock lock(&plug_mutex_);
    plug_ = plug;
  }
  devices::NetOffloads offloads() const override { return offloads_; }
  void SetGuestOffloads(const devices::NetOffloads& offloads) override;
  size_t ReadFrame(std::span<std::byte> header_and_frame) override;

  // On any thread:
  void Activate() {
    loop_.Post([self = shared_from_this()] { self->BeginReading(); });
  }
  void Announce() {
    const uint64_t series = ++announcements_;
    loop_.Post([self = shared_from_this(), series] { self->AnnounceOnce(series, 0); });
  }
  NicCounters counters() const;

  const NicOptions& options() const { return options_; }
  epoch::FrameGate& gate() { return gate_; }
  devices::NetCardCounters& card_counters() { return card_counters_; }

 private:
  void BeginReading();
  void AnnounceOnce(uint64_t series, int round);
  void PostPump();
  void Pump();
  bool WriteFrame(std::span<const std::byte> header_and_frame)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AwaitTap(descriptor_base::wait_type what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeCard(bool frames);
  // Says it when it changes.
  void Note(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const NicOptions options_;
  const devices::NetOffloads offloads_;
  AsioExecutor& loop_;
  epoch::FrameGate gate_;

  absl::Mutex plug_mutex_;
  devices::NetPlug* plug_ ABSL_GUARDED_BY(plug_mutex_) = nullptr;

  // Around everything on the loop, so that Close() can come from another thread; after the
  // transport's lock, before those of gate and plug.
  absl::Mutex mutex_;
  std::unique_ptr<devices::Tap> tap_ ABSL_GUARDED_BY(mutex_);  // null: closed
  asio::posix::stream_descriptor descriptor_ ABSL_GUARDED_BY(mutex_);
  NicEvents events_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool active_ ABSL_GUARDED_BY(mutex_) = false;
  bool asked_early_ ABSL_GUARDED_BY(mutex_) = false;  // for frames, before Activate()
  bool awaits_frames_ ABSL_GUARDED_BY(mutex_) = false;
  bool awaits_room_ ABSL_GUARDED_BY(mutex_) = false;

  std::atomic<bool> pump_posted_{false};
  std::atomic<uint64_t> announcements_{0};  // series of them
  devices::NetCardCounters card_counters_;
  std::atomic<uint64_t> frames_out_{0}, bytes_out_{0}, dropped_out_{0}, stale_in_{0},
      mac_clashes_{0}, announced_{0};
};

// --- frames that come in -------------------------------------------------------------------------

void Nic::Core::SetGuestOffloads(const devices::NetOffloads& offloads) {
  absl::MutexLock lock(&mutex_);
  if (tap_ != nullptr) Note(tap_->SetOffloads(offloads));
}

size_t Nic::Core::ReadFrame(std::span<std::byte> header_and_frame) {
  absl::MutexLock lock(&mutex_);
  if (tap_ == nullptr) return 0;
  if (!active_) {
    asked_early_ = true;
    return 0;
  }
  const absl::StatusOr<size_t> size = tap_->Read(header_and_frame);
  if (!size.ok()) {
    if (absl::IsUnavailable(size.status())) {
      AwaitTap(descriptor_base::wait_read);
    } else {
      Note(size.status());
    }
    return 0;
  }
  const bool is_our_own = *size >= kSourceMacOffset + options_.mac.size() &&
                          std::memcmp(header_and_frame.data() + kSourceMacOffset,
                                      options_.mac.data(), options_.mac.size()) == 0;
  // It is the guest's to decide what to do with it.
  if (is_our_own && mac_clashes_++ == 0 && events_.on_mac_clash) events_.on_mac_clash();
  return *size;
}

void Nic::Core::BeginReading() {
  bool wake = false;
  {
    absl::MutexLock lock(&mutex_);
    if (tap_ == nullptr || active_) return;
    std::array<std::byte, 64> ignored;
    for (int i = 0; i < kMaxStaleFrames && tap_->Read(ignored).ok(); ++i) ++stale_in_;
    active_ = true;
    wake = std::exchange(asked_early_, false);
  }
  if (wake) WakeCard(/*frames=*/true);
  PostPump();
}

void Nic::Core::WakeCard(bool frames) {
  absl::MutexLock lock(&plug_mutex_);
  if (plug_ == nullptr) return;
  frames ? plug_->OnFramesReady() : plug_->OnSinkReady();
}

// --- frames that go out --------------------------------------------------------------------------

void Nic::Core::PostPump() {
  // One is enough for all that is released until it runs: posted work does not pile up.
  if (pump_posted_.exchange(true)) return;
  loop_.Post([self = shared_from_this()] { self->Pump(); });
}

void Nic::Core::Pump() {
  pump_posted_ = false;
  bool more = false;
  {
    absl::MutexLock lock(&mutex_);
    if (tap_ == nullptr || !active_ || awaits_room_) return;
    more = gate_.Emit(kFramesPerTurn, [this](std::span<const std::byte> frame) {
      mutex_.AssertHeld();
      return WriteFrame(frame);
    });
    more &= !awaits_room_;
  }
  if (more) PostPump();
}

// False: the frame stays where it is until the tap has room.
bool Nic::Core::WriteFrame(std::span<const std::byte> header_and_frame) {
  const absl::Status status = tap_->Write(header_and_frame);
  if (absl::IsUnavailable(status)) {
    AwaitTap(descriptor_base::wait_write);
    return false;
  }
  if (status.ok()) {
    ++frames_out_;
    bytes_out_ += header_and_frame.size() - sizeof(devices::NetHeader);
  } else {
    ++dropped_out_;  // a cable that is not plugged in; or no frame at all
  }
  // What the kernel refuses is a frame's fault, not the tap's.
  if (!absl::IsInvalidArgument(status)) Note(status);
  return true;
}

void Nic::Core::AwaitTap(descriptor_base::wait_type what) {
  const bool room = what == descriptor_base::wait_write;
  if (std::exchange(room ? awaits_room_ : awaits_frames_, true)) return;
  descriptor_.async_wait(what,
                         [self = shared_from_this(), room](const boost::system::error_code& error) {
                           {
                             absl::MutexLock lock(&self->mutex_);
                             (room ? self->awaits_room_ : self->awaits_frames_) = false;
                             if (error || self->tap_ == nullptr) return;
                           }
                           room ? self->PostPump() : self->WakeCard(/*frames=*/true);
                         });
}

void Nic::Core::AnnounceOnce(uint64_t series, int round) {
  if (round == kAnnounceRounds || series != announcements_) return;
  {
    absl::MutexLock lock(&mutex_);
    if (tap_ == nullptr) return;
    for (const devices::EthernetFrame& frame :
         devices::Announcements(options_.mac, options_.announce_ips)) {
      std::vector<std::byte> header_and_frame(sizeof(devices::NetHeader) + frame.size());
      std::copy(frame.begin(), frame.end(), header_and_frame.begin() + sizeof(devices::NetHeader));
      const bool may = gate_.EmitOwn([&] {
        mutex_.AssertHeld();
        const absl::Status status = tap_->Write(header_and_frame);
        if (status.ok()) ++announced_;
        if (!absl::IsUnavailable(status)) Note(status);  // else: there are more rounds
      });
      if (!may) return;
    }
  }
  loop_.PostAfter(
      (options_.announce_gap_ms << round) * 1'000'000,
      [self = shared_from_this(), series, round] { self->AnnounceOnce(series, round + 1); });
}

void Nic::Core::Note(const absl::Status& status) {
  if (status == failure_) return;
  failure_ = status;
  if (events_.on_tap_failure) events_.on_tap_failure(status);
}

NicCounters Nic::Core::counters() const {
  const epoch::FrameGate::Totals totals = gate_.totals();
  return {.frames_out = frames_out_,
          .bytes_out = bytes_out_,
          .frames_in = card_counters_.frames_in,
          .bytes_in = card_counters_.bytes_in,
          .held_frames = totals.held_frames,
          .held_bytes = totals.held_bytes,
          .queued_bytes = totals.queued_bytes,
          .cap_bytes_used = totals.cap_bytes_used,
          .frames_dropped_in = card_counters_.dropped_in + stale_in_,
          .frames_dropped_out = dropped_out_,
          .bad_frames = card_counters_.bad_out,
          .mac_clashes = mac_clashes_,
          .frames_announced = announced_};
}

// --- the owner's side ----------------------------------------------------------------------------

absl::StatusOr<NicOptions> NicOptionsFrom(const romulus::v1::Nic& nic,
                                          const romulus::v1::Checkpoint& checkpoint, int index) {
  const std::string field = absl::StrCat("guest.nics[", index, "].");
  NicOptions options;
  options.name = absl::StrCat("virtio.net.", index);
  options.tap = nic.tap();
  const absl::StatusOr<devices::MacAddress> mac = devices::ParseCardMac(nic.mac());
  if (!mac.ok()) return base::Annotate(mac.status(), field + "mac");
  options.mac = *mac;
  // What virtio can say (1.2, 5.1.4.1).
  if (nic.mtu() < 68 || nic.mtu() > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, "mtu: ", nic.mtu(), " is not within 68 to 65535"));
  }
  options.mtu = static_cast<uint16_t>(nic.mtu());
  for (const std::string& text : nic.announce_ip()) {
    const absl::StatusOr<devices::IpAddress> ip = devices::ParseCardIp(text);
    if (!ip.ok()) return base::Annotate(ip.status(), field + "announce_ip");
    options.announce_ips.push_back(*ip);
  }
  options.cap_bytes = uint64_t{checkpoint.held_frames_kib()} << 10;
  return options;
}

absl::StatusOr<std::unique_ptr<Nic>> Nic::Open(const NicOptions& options, AsioExecutor& device_loop,
                                               NicEvents events) {
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<devices::Tap> tap,
                           devices::Tap::Open(options.tap, options.mtu));
  ROMULUS_RETURN_IF_ERROR(device_loop.PrepareToWait());
  return std::unique_ptr<Nic>(
      new Nic(std::make_shared<Core>(options, std::move(tap), device_loop, std::move(events))));
}

Nic::Nic(std::shared_ptr<Core> core) : core_(std::move(core)) {}

Nic::~Nic() { core_->Close(); }

vmm::VirtioSpec Nic::Spec() {
  // The card refers to the core, the Nic keeps it: a spec that is left over does not.
  return {core_->options().name,
          [weak = std::weak_ptr<Core>(core_)]() -> std::unique_ptr<devices::VirtioDevice> {
            const std::shared_ptr<Core> core = weak.lock();
            ROMULUS_CHECK(core != nullptr);
            return std::make_unique<devices::VirtioNet>(core->options().mac, core->options().mtu,
                                                        *core, core->gate(), core->card_counters());
          }};
}

epoch::HeldOutput& Nic::output() { return core_->gate(); }

void Nic::SetOutputWaiting(std::function<void()> callback) {
  core_->gate().SetOutputWaiting(std::move(callback));
}

void Nic::Activate() { core_->Activate(); }

void Nic::Announce() { core_->Announce(); }

NicCounters Nic::counters() const { return core_->counters(); }

const NicOptions& Nic::options() const { return core_->options(); }

}  // namespace romulus::daemon
