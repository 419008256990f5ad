#include "wire/primary_session.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/cond_var.h"
#include "base/status.h"
#include "codec/frame.h"
#include "codec/peer_terms.h"
#include "wire/audit_report.h"
#include "wire/frame_sender.h"
#include "wire/link_rate.h"

namespace romulus::wire {
namespace {

// What a secondary sends is small.
constexpr size_t kMaxReplyBodyBytes = 256u << 10;

class Session final : public PrimarySession, public LinkListener {
 public:
  Session(const PrimarySessionOptions& options, std::unique_ptr<FrameSender> frames,
          const base::Clock* clock, PrimarySessionListener* listener, AckListener* acks)
      : options_(options),
        clock_(clock),
        listener_(listener),
        frames_(std::move(frames)),
        sender_(options_.sender, frames_.get(), clock, acks),
        reader_(kMaxReplyBodyBytes) {
    reader_.TakeNoCompressedBodies();
  }

  ~Session() override {
    Close(absl::CancelledError("session destroyed"));
    link_.reset();  // OnClosed has returned
  }

  absl::Status Connect(const LinkFactory& make_link) {
    absl::StatusOr<std::unique_ptr<Link>> link = make_link(this);
    if (!link.ok()) {
      sender_.Close(link.status());
      return link.status();
    }
    link_ = *std::move(link);
    frames_->Start(link_.get());
    absl::Status close_why;
    {
      absl::MutexLock lock(&mutex_);
      linked_ = true;
      if (close_wanted_) close_why = *close_wanted_;
    }
    if (!close_why.ok()) link_->Close(close_why);
    return absl::OkStatus();
  }

  absl::StatusOr<v1::HelloReply> Handshake(absl::Duration timeout) override {
    const base::CondVar::Deadline deadline = base::CondVar::After(timeout);
    const absl::Status sent =
        frames_->SendControl(timeout, codec::FrameKind::kHello, options_.hello.stream_term,
                             EpochId(), BuildHello(options_.hello));
    absl::MutexLock lock(&mutex_);
    if (!sent.ok()) return closed_ ? *closed_ : sent;
    const auto answered = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return reply_.has_value() || closed_.has_value();
    };
    if (!answered_or_closed_.AwaitUntil(&mutex_, deadline, answered)) {
      return absl::DeadlineExceededError("the secondary does not answer the Hello");
    }
    if (reply_) return *reply_;
    return *closed_;
  }

  absl::StatusOr<SyncProgress> RunFullSync(const memory::GuestMemory* guest_memory,
                                           SyncSource* source, DiskSyncSource* disks) override {
    std::optional<FullSync> sync;
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) return *closed_;
      if (sync_cancelled_) return absl::CancelledError("the full sync was cancelled");
      if (!reply_ || !reply_->accepted()) {
        return absl::FailedPreconditionError("no accepted handshake");
      }
      std::vector<uint32_t> all_zero;
      for (const v1::DiskCopy& disk : reply_->disks()) {
        if (disk.all_zero()) all_zero.push_back(disk.disk());
      }
      sync.emplace(options_.sync, guest_memory, source, frames_.get(), disks, std::move(all_zero),
                   MaxBodyBytes(*reply_));
      sync_ = &*sync;
    }
    absl::StatusOr<SyncProgress> done = sync->Run();
    absl::MutexLock lock(&mutex_);
    sync_ = nullptr;
    sync_failed_ = !done.ok();
    if (!done.ok() && closed_) return *closed_;  // says more than the failed send
    return done;
  }

  void CancelFullSync() override {
    absl::MutexLock lock(&mutex_);
    sync_cancelled_ = true;
    if (sync_ != nullptr) sync_->Cancel();
  }

  EpochSender& epochs() override { return sender_; }

  LinkUse link_use() const override {
    return {frames_->compression(), link_rate_told_.load(std::memory_order_relaxed)};
  }

  void SendGoodbye(v1::Goodbye::Reason reason, absl::string_view detail,
                   absl::Duration timeout) override {
    CancelFullSync();
    // Best effort: whoever does not hear it sees the stream end.
    Say(reason, detail, timeout).IgnoreError();
    Close(absl::CancelledError(absl::StrCat("goodbye: ", detail)));
  }

  absl::Status AskUnprotect(absl::string_view detail, absl::Duration timeout) override {
    return Say(v1::Goodbye::REASON_UNPROTECT, detail, timeout);
  }

  absl::Status OfferHandOver(EpochId last, const v1::HandOver& hand_over,
                             absl::Duration timeout) override {
    offered_ = true;
    const absl::Status sent = frames_->SendControl(timeout, codec::FrameKind::kHandOver,
                                                   options_.hello.stream_term, last, hand_over);
    if (absl::IsDeadlineExceeded(sent)) offered_ = false;
    return sent;
  }

  void Close(const absl::Status& why) override {
    CancelFullSync();
    {
      absl::MutexLock lock(&mutex_);
      if (!close_wanted_) close_wanted_ = why.ok() ? absl::CancelledError("closed") : why;
      if (!linked_) return;
    }
    link_->Close(why);  // without the lock: some links tell OnClosed from within
  }

  void OnMessage(absl::string_view frames) override {
    uint64_t rtt_ns = 0;
    if (over_) return;
    if (frames.empty()) {
      listener_->OnRefused(codec::FrameFault::kTruncated);
      return Refuse(absl::InvalidArgumentError("message without frames"));
    }
    while (!frames.empty()) {
      absl::StatusOr<codec::Frame> frame = reader_.Next(&frames);
      absl::Status handled = frame.ok() ? Handle(*frame, &rtt_ns) : frame.status();
      if (!handled.ok()) {
        // An ack that comes while the sender closes is no fault of the peer's.
        if (!frame.ok() || absl::IsInvalidArgument(handled)) {
          listener_->OnRefused(reader_.fault());
        }
        Refuse(handled);
        return;
      }
    }
    listener_->OnSignOfLife(rtt_ns);
  }

  void OnClosed(const absl::Status& why) override {
    {
      absl::MutexLock lock(&mutex_);
      closed_ = why.ok() ? absl::UnavailableError("the stream ended") : why;
      answered_or_closed_.SignalAll();
      if (sync_ != nullptr) sync_->Cancel();
    }
    sender_.Close(why);
    sender_.Join();
    listener_->OnSessionClosed(why);
  }

 private:
  absl::Status Say(v1::Goodbye::Reason reason, absl::string_view detail, absl::Duration timeout) {
    v1::Goodbye goodbye;
    goodbye.set_reason(reason);
    goodbye.set_detail(std::string(detail));
    goodbye.set_term(options_.hello.stream_term.value());
    return frames_->SendControl(timeout, codec::FrameKind::kGoodbye, options_.hello.stream_term,
                                EpochId(), goodbye);
  }

  absl::Status Handle(const codec::Frame& frame, uint64_t* rtt_ns) {
    if (!accepted_) {
      if (frame.kind == codec::FrameKind::kGoodbye) return HandleGoodbye(frame);
      if (frame.kind != codec::FrameKind::kHelloReply || answered_) return Unexpected(frame);
      return HandleReply(frame);
    }
    switch (frame.kind) {
      case codec::FrameKind::kAck: {
        v1::Ack ack;
        ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &ack));
        ROMULUS_RETURN_IF_ERROR(sender_.OnAck(frame.term, frame.epoch, ack.staged_bytes()));
        return HandleAudit(ack);
      }
      case codec::FrameKind::kHeartbeat: {
        v1::Heartbeat heartbeat;
        ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &heartbeat));
        sender_.OnPeerHeartbeat(heartbeat.sent_monotonic_ns());
        const uint64_t echo_ns = heartbeat.echo_monotonic_ns();
        const uint64_t now_ns = clock_->NowNs();
        if (echo_ns != 0 && echo_ns <= now_ns) *rtt_ns = now_ns - echo_ns;
        MeasureLink(heartbeat, *rtt_ns);
        return absl::OkStatus();
      }
      case codec::FrameKind::kDiskHashes:
        return HandleHashes(frame);
      case codec::FrameKind::kHandOverRefusal: {
        if (!offered_.exchange(false)) return Unexpected(frame);
        v1::HandOverRefusal refusal;
        ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &refusal));
        listener_->OnHandOverRefused(refusal.detail());
        return absl::OkStatus();
      }
      case codec::FrameKind::kGoodbye:
        return HandleGoodbye(frame);
      default:
        return Unexpected(frame);
    }
  }

  void MeasureLink(const v1::Heartbeat& heartbeat, uint64_t rtt_ns) {
    if (!options_.hello.measure_link) return;
    const uint64_t rate =
        link_rate_.Add({.at_ns = heartbeat.sent_monotonic_ns(),
                        .received_bytes = heartbeat.received_bytes(),
                        .busy_ns = heartbeat.busy_ns(),
                        .sent_bytes = frames_->sent_bytes(),
                        .rtt_ns = rtt_ns,
                        .compresses = frames_->compression() != codec::Compression::kNone});
    frames_->SetLinkRate(rate);
    link_rate_told_.store(rate, std::memory_order_relaxed);
  }

  absl::Status HandleAudit(const v1::Ack& ack) {
    ROMULUS_ASSIGN_OR_RETURN(
        AuditReport report,
        ReadAuditReport(ack, audited_,
                        {sender_.audit_pages_sent(), sender_.audit_blocks_sent(),
                         options_.hello.machine.memory, options_.hello.disks}));
    if (report.audited_pages == audited_.audited_pages &&
        report.audited_blocks == audited_.audited_blocks) {
      return absl::OkStatus();
    }
    audited_ = std::move(report);
    return sender_.OnAudited(audited_);
  }

  absl::Status HandleReply(const codec::Frame& frame) {
    v1::HelloReply reply;
    ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &reply));
    ROMULUS_RETURN_IF_ERROR(codec::CheckTerms(reply));
    answered_ = true;
    if (reply.accepted()) {
      if (!options_.hello.protocols.Contains(reply.protocol_version())) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the secondary accepted, but speaks protocol version ", reply.protocol_version(),
            " instead of ", codec::RangeText(options_.hello.protocols)));
      }
      accepted_ = true;
      const codec::Dialect dialect(reply.protocol_version());
      reader_.SetDialect(dialect);
      frames_->StartPages(MaxBodyBytes(reply), dialect);
      sender_.StartHeartbeats();
    }
    absl::MutexLock lock(&mutex_);
    reply_ = std::move(reply);
    answered_or_closed_.SignalAll();
    return absl::OkStatus();
  }

  size_t MaxBodyBytes(const v1::HelloReply& reply) const {
    const size_t own_limit = options_.encoder.max_body_bytes;
    return reply.max_frame_bytes() == 0 ? own_limit
                                        : std::min<size_t>(own_limit, reply.max_frame_bytes());
  }

  absl::Status HandleHashes(const codec::Frame& frame) {
    absl::MutexLock lock(&mutex_);
    if (sync_ != nullptr) return sync_->OnDiskHashes(frame.body);
    // What was asked for may come when the sync that asked has failed, which is no lie.
    if (sync_failed_) return absl::CancelledError("the full sync has failed");
    return Unexpected(frame);
  }

  absl::Status HandleGoodbye(const codec::Frame& frame) {
    v1::Goodbye goodbye;
    ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &goodbye));
    ROMULUS_RETURN_IF_ERROR(codec::CheckTerms(goodbye));
    listener_->OnPeerGoodbye(goodbye);
    return absl::OkStatus();
  }

  static absl::Status Unexpected(const codec::Frame& frame) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected frame: ", codec::FrameKindName(frame.kind)));
  }

  // Link thread: must not wait for the link, on which an epoch may be under way. So whoever listens
  // says goodbye.
  void Refuse(const absl::Status& why) {
    over_ = true;
    const absl::Status broken =
        absl::IsDataLoss(why) ? why : base::Annotate(why, "the secondary broke the protocol");
    if (accepted_) {
      listener_->OnBroken(broken);
      return CancelFullSync();
    }
    Say(v1::Goodbye::REASON_PROTOCOL, why.message(), absl::ZeroDuration()).IgnoreError();
    Close(broken);
  }

  const PrimarySessionOptions options_;
  const base::Clock* const clock_;
  PrimarySessionListener* const listener_;
  const std::unique_ptr<FrameSender> frames_;
  EpochSender sender_;

  std::atomic<bool> offered_{false};  // a hand-over that was not refused
  std::atomic<uint64_t> link_rate_told_{0};

  // Link thread only.
  codec::FrameReader reader_;
  bool answered_ = false;
  bool accepted_ = false;
  AuditReport audited_;
  LinkRate link_rate_;
  bool over_ = false;  // something was refused: nothing more is looked at

  absl::Mutex mutex_;
  base::CondVar answered_or_closed_;
  bool linked_ ABSL_GUARDED_BY(mutex_) = false;  // link_ is set and may be closed
  std::optional<absl::Status> close_wanted_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::HelloReply> reply_ ABSL_GUARDED_BY(mutex_);
  FullSync* sync_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool sync_failed_ ABSL_GUARDED_BY(mutex_) = false;
  bool sync_cancelled_ ABSL_GUARDED_BY(mutex_) = false;  // also one that has not begun

  std::unique_ptr<Link> link_;  // last: destroyed first
};

// One past the highest page of the memory that the Hello names.
Gfn GfnEndOf(const MachineIdentity& machine) {
  Gfn end;
  for (const memory::Region& region : machine.memory) {
    end = std::max(end, GfnOf(Gpa(region.gpa.value() + region.size_bytes)));
  }
  return end;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrimarySession>> PrimarySession::Open(
    const PrimarySessionOptions& options, const LinkFactory& make_link, const base::Clock* clock,
    PrimarySessionListener* listener, AckListener* acks) {
  PrimarySessionOptions full = options;
  full.sender.term = full.hello.stream_term;
  full.sync.term = full.hello.stream_term;
  full.hello.measure_link = full.encoder.compression == codec::CompressionPolicy::kAuto;
  if (full.gfn_end == Gfn()) full.gfn_end = GfnEndOf(full.hello.machine);
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<FrameSender> frames,
                           FrameSender::Create(full.gfn_end, full.encoder, clock));
  auto session = std::make_unique<Session>(full, std::move(frames), clock, listener, acks);
  ROMULUS_RETURN_IF_ERROR(session->Connect(make_link));
  return session;
}

}  // namespace romulus::wire
