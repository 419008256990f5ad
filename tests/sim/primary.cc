#include "sim/primary.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "codec/frame.h"
#include "codec/peer_terms.h"
#include "sim/timing.h"
#include "wire/frame_sender.h"
#include "wire/full_sync.h"

namespace romulus::sim {
namespace {

codec::EncoderOptions Encoder() {
  // A cache smaller than the guest's memory, and frames smaller than an epoch.
  codec::EncoderOptions options;
  options.previous_cache_bytes = 16 * kPageSize;
  options.page_body_bytes = 4 * kPageSize;
  options.message_bytes = 8 * kPageSize;
  return options;
}

}  // namespace

class Primary::Stream final : public wire::LinkListener,
                              public epoch::EpochSink,
                              public wire::SyncSource,
                              public std::enable_shared_from_this<Stream> {
 public:
  Stream(const Parts& parts, Thread* worker)
      : parts_(parts), worker_(worker), sender_(parts.scheduler, parts.process) {}

  void Tell(std::function<void(PrimaryListener&)> what) {
    parts_.control->Post([self = shared_from_this(), what = std::move(what)] {
      if (self->live_) what(*self->parts_.listener);
    });
  }
  void Abandon() { live_ = false; }

  // --- Primary::Stream and PrimarySession: worker

  void Open(wire::HelloInput hello) {
    term_ = hello.stream_term;
    frames_ = *wire::FrameSender::Create(
        memory::MemoryLayout::ForMib(memory::kMinMemoryMib)->gfn_end(), Encoder(), parts_.clock);
    link_ = parts_.network->Connect(parts_.node, this);
    if (link_ == nullptr) {
      // A port that nobody listens on says so at once; a host that is not there takes its time.
      worker_->Block();
      parts_.scheduler->After(parts_.scheduler->Pick(kConnectTimeoutNs), Mine([this] {
                                worker_->Unblock();
                                Tell([](PrimaryListener& to) {
                                  to.OnConnectFailed(absl::UnavailableError("nobody there"));
                                });
                              }));
      return;
    }
    frames_->Start(link_.get());
    opened_ = true;
    const absl::Status sent =
        frames_->SendControl(absl::InfiniteDuration(), codec::FrameKind::kHello, term_, EpochId(),
                             wire::BuildHello(hello));
    if (!sent.ok()) return EndAttempt(sent);
    waits_ = true;
    worker_->Block();
    parts_.scheduler->After(
        kHandshakeTimeoutNs, Mine([this] {
          if (waits_)
            EndHandshake(absl::DeadlineExceededError("the secondary does not answer the Hello"));
        }));
  }
  bool opened() const { return opened_; }

  absl::Status Sync(std::shared_ptr<Host> host) {
    if (link_ == nullptr) return absl::UnavailableError("the stream is gone");
    host_ = std::move(host);
    if (sync_cancelled_) return absl::CancelledError("the full sync was cancelled");
    if (closed_) return *closed_;
    wire::FullSyncOptions options;
    options.term = term_;
    options.target_dirty_pages = 2;
    options.max_rounds = 3;
    wire::FullSync sync(options, &host_->memory(), this, frames_.get());
    sync_ = &sync;
    const absl::Status done = sync.Run().status();
    sync_ = nullptr;
    ROMULUS_RETURN_IF_ERROR(closed_ && !done.ok() ? *closed_ : done);
    ++parts_.tally->syncs;
    Tell([term = term_](PrimaryListener& to) { to.OnSyncDone(term); });
    return host_->loop().BeginCutting(term_, memory::PageSet(host_->memory().layout().gfn_end()),
                                      this);
  }
  void Say(v1::Goodbye::Reason reason, const std::string& detail) {
    if (link_ == nullptr) return;
    v1::Goodbye goodbye;
    goodbye.set_reason(reason);
    goodbye.set_detail(detail);
    goodbye.set_term(term_.value());
    frames_
        ->SendControl(absl::ZeroDuration(), codec::FrameKind::kGoodbye, term_, EpochId(), goodbye)
        .IgnoreError();
  }
  void Offer(EpochId last, const v1::HandOver& hand_over) {
    if (link_ == nullptr) return;
    offered_ = true;
    frames_->SendControl(absl::ZeroDuration(), codec::FrameKind::kHandOver, term_, last, hand_over)
        .IgnoreError();
  }
  void CloseSession(const absl::Status& why) {
    CancelFullSync();
    if (link_ != nullptr) link_->Close(why);
  }
  void CancelFullSync() {
    sync_cancelled_ = true;
    if (sync_ != nullptr) sync_->Cancel();
  }
  void DestroySession() {
    if (host_ != nullptr) host_->loop().Halt();
    link_.reset();
    queue_.clear();
  }

  // SyncSource:
  absl::Status BeginTracking() override { return host_->loop().BeginSync(); }
  absl::StatusOr<memory::PageSet> TakeDirty() override {
    // The guest and everybody else go on while the pages travel.
    if (parts_.scheduler->Chance(2))
      parts_.let_others_run(parts_.scheduler->Pick(40 * kMillisecond));
    return host_->loop().TakeDirty();
  }

  // --- PrimarySession: the link's reader

  void OnMessage(absl::string_view frames) override {
    if (over_) return;
    while (!frames.empty()) {
      absl::StatusOr<codec::Frame> frame = reader_.Next(&frames);
      const absl::Status handled = frame.ok() ? HandleFrame(*frame) : frame.status();
      if (!handled.ok()) {
        over_ = true;
        broken_ = base::Annotate(handled, "the secondary broke the protocol");
        if (accepted_told_) return TellBroken();
        if (accepted_) return;  // the worker, which wakes up, tells of it
        Say(v1::Goodbye::REASON_PROTOCOL, std::string(handled.message()));
        return CloseSession(*broken_);
      }
    }
    parts_.heard();
  }
  void OnClosed(const absl::Status& why) override {
    closed_ = why;
    if (sync_ != nullptr) sync_->Cancel();
    sender_closed_ = true;
    queue_.clear();
    if (waits_) return EndHandshake(why);
    if (accepted_told_) TellClosed();
  }

  // --- EpochSender

  void StagePages(Term term, EpochId epoch, epoch::PageBatch batch) override {
    ++parts_.tally->parts_shipped;
    Push(Pages{term, epoch, std::move(batch)});
    SendAllNow();  // the guest waits until there is room
  }
  void Submit(epoch::StagedEpoch epoch) override {
    const EpochId number = epoch.epoch;
    if (!sender_closed_) unacked_.push_back(number);
    Push(std::move(epoch));
    if (parts_.release_before_ack) host_->Acked(term_, number);
  }
  void Abort(Term term, EpochId epoch) override {
    if (sender_closed_) return;
    while (!queue_.empty()) {
      const Pages* pages = std::get_if<Pages>(&queue_.back());
      if (pages == nullptr || pages->epoch != epoch || pages->term != term) break;
      queue_.pop_back();
    }
    if (open_epoch_ == epoch) Push(Aborted{term, epoch});
  }
  void SendAllNow() {
    while (!queue_.empty()) SendOne();
  }

 private:
  struct Pages {
    Term term;
    EpochId epoch;
    epoch::PageBatch batch;
  };
  struct Aborted {
    Term term;
    EpochId epoch;
  };
  using Item = std::variant<Pages, epoch::StagedEpoch, Aborted>;

  // For the scheduler: only while this stream and its process live.
  std::function<void()> Mine(std::function<void()> what) {
    return [weak = weak_from_this(), what = std::move(what)] {
      const std::shared_ptr<Stream> self = weak.lock();
      if (self != nullptr && self->parts_.process->alive) what();
    };
  }

  // The worker wakes up with the handshake's end.
  void EndHandshake(absl::Status why) {
    waits_ = false;
    parts_.scheduler->After(parts_.scheduler->Pick(kMillisecond), Mine([this, why] {
                              worker_->Unblock();
                              EndAttempt(why);
                            }));
  }
  void EndAttempt(const absl::Status& why) {
    if (!reply_) {
      return Tell([why](PrimaryListener& to) { to.OnConnectFailed(why); });
    }
    if (!reply_->accepted()) {
      return Tell([reply = *reply_](PrimaryListener& to) { to.OnStreamRefused(reply); });
    }
    accepted_told_ = true;
    Tell(
        [term = term_, reply = *reply_](PrimaryListener& to) { to.OnStreamAccepted(term, reply); });
    if (broken_) TellBroken();
    if (closed_) TellClosed();
  }
  void TellBroken() {
    Tell([why = *broken_](PrimaryListener& to) { to.OnStreamBroken(why); });
  }
  void TellClosed() {
    Tell([why = *closed_](PrimaryListener& to) { to.OnStreamClosed(why); });
  }

  absl::Status HandleFrame(const codec::Frame& frame) {
    if (frame.kind == codec::FrameKind::kGoodbye) return HandleGoodbye(frame);
    if (!accepted_) {
      if (frame.kind != codec::FrameKind::kHelloReply || reply_) return Unexpected(frame);
      return HandleReply(frame);
    }
    switch (frame.kind) {
      case codec::FrameKind::kAck:
        return OnAck(frame.term, frame.epoch);
      case codec::FrameKind::kHeartbeat:
        return absl::OkStatus();
      case codec::FrameKind::kHandOverRefusal: {
        if (!std::exchange(offered_, false)) return Unexpected(frame);
        v1::HandOverRefusal refusal;
        ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &refusal));
        Tell([detail = refusal.detail()](PrimaryListener& to) { to.OnHandOverRefused(detail); });
        return absl::OkStatus();
      }
      default:
        return Unexpected(frame);
    }
  }
  static absl::Status Unexpected(const codec::Frame& frame) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected frame: ", codec::FrameKindName(frame.kind)));
  }
  absl::Status HandleReply(const codec::Frame& frame) {
    v1::HelloReply reply;
    ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &reply));
    ROMULUS_RETURN_IF_ERROR(codec::CheckTerms(reply));
    if (reply.accepted()) {
      accepted_ = true;
      frames_->StartPages(std::min<size_t>(codec::kDefaultMaxBodyBytes, reply.max_frame_bytes()),
                          codec::Dialect(reply.protocol_version()));
      Heartbeat();
    }
    reply_ = std::move(reply);
    EndHandshake(absl::OkStatus());
    return absl::OkStatus();
  }
  absl::Status HandleGoodbye(const codec::Frame& frame) {
    v1::Goodbye goodbye;
    ROMULUS_RETURN_IF_ERROR(codec::ParseBody(frame, &goodbye));
    ROMULUS_RETURN_IF_ERROR(codec::CheckTerms(goodbye));
    Tell([goodbye](PrimaryListener& to) { to.OnPrimaryGoodbye(goodbye); });
    return absl::OkStatus();
  }

  absl::Status OnAck(Term term, EpochId epoch) {
    if (sender_closed_) return absl::UnavailableError("closed");
    if (term != term_) return absl::InvalidArgumentError("ack for another term");
    if (epoch > sent_through_) return absl::InvalidArgumentError("ack for an epoch never sent");
    while (!unacked_.empty() && unacked_.front() <= epoch) {
      const EpochId acked = unacked_.front();
      unacked_.pop_front();
      parts_.oracle->Acked(parts_.node, {term, acked});
      host_->Acked(term, acked);  // output first: it waits for nothing but this
      newest_acked_ = acked;
      if (std::exchange(ack_told_, true)) continue;
      Tell([this, term](PrimaryListener& to) {
        ack_told_ = false;
        to.OnAcked(term, newest_acked_);
      });
    }
    return absl::OkStatus();
  }

  void Push(Item item) {
    if (sender_closed_) return;
    queue_.push_back(std::move(item));
    sender_.Post([self = weak_from_this()] {
      const std::shared_ptr<Stream> stream = self.lock();
      if (stream != nullptr) stream->SendOne();
    });
  }
  void SendOne() {
    if (queue_.empty()) return;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    open_epoch_ = EpochId();
    const auto work = [&](codec::EpochEncoder& encoder,
                          wire::FrameSender::Send send) -> absl::Status {
      if (Pages* pages = std::get_if<Pages>(&item)) {
        open_epoch_ = pages->epoch;
        return encoder.AddPages(pages->term, pages->epoch, pages->batch, send);
      }
      if (epoch::StagedEpoch* whole = std::get_if<epoch::StagedEpoch>(&item)) {
        sent_through_ = std::max(sent_through_, whole->epoch);
        return encoder.Finish(*whole, parts_.clock->NowNs(), whole->console_released, send);
      }
      const Aborted& aborted = std::get<Aborted>(item);
      return encoder.Abort(aborted.term, aborted.epoch, "checkpoint failed", send);
    };
    if (!frames_->WithEncoder(64 << 10, work).ok()) {
      sender_closed_ = true;
      queue_.clear();
    }
  }
  void Heartbeat() {
    if (sender_closed_ || link_ == nullptr) return;
    v1::Heartbeat body;
    body.set_sequence(++heartbeats_);
    body.set_sent_monotonic_ns(parts_.clock->NowNs());
    frames_->SendControl(absl::ZeroDuration(), codec::FrameKind::kHeartbeat, term_, EpochId(), body)
        .IgnoreError();
    sender_.PostAfter(kHeartbeatNs, [self = weak_from_this()] {
      const std::shared_ptr<Stream> stream = self.lock();
      if (stream != nullptr) stream->Heartbeat();
    });
  }

  const Parts parts_;
  Thread* worker_;
  Thread sender_;
  bool live_ = true;
  Term term_;
  std::shared_ptr<Host> host_;
  std::unique_ptr<wire::FrameSender> frames_;
  codec::FrameReader reader_;
  bool opened_ = false;
  bool waits_ = false;  // the worker, for the handshake's end
  bool accepted_ = false;
  bool accepted_told_ = false;
  bool over_ = false;
  std::optional<absl::Status> broken_;
  bool offered_ = false;  // a hand-over that was not refused
  std::optional<v1::HelloReply> reply_;
  std::optional<absl::Status> closed_;
  wire::FullSync* sync_ = nullptr;
  bool sync_cancelled_ = false;

  std::deque<Item> queue_;
  std::deque<EpochId> unacked_;
  EpochId open_epoch_;
  EpochId sent_through_;
  EpochId newest_acked_;
  bool ack_told_ = false;
  bool sender_closed_ = false;
  uint64_t heartbeats_ = 0;
  std::unique_ptr<wire::Link> link_;  // last: destroyed first
};

Primary::Primary(const Parts& parts) : parts_(parts), worker_(parts.scheduler, parts.process) {}

Primary::~Primary() {
  if (stream_ != nullptr) stream_->DestroySession();
}

void Primary::Connect(wire::HelloInput hello) {
  Close(std::nullopt, absl::CancelledError("a new stream replaces this one"));
  stream_ = std::make_shared<Stream>(parts_, &worker_);
  worker_.Post(
      [stream = stream_, hello = std::move(hello)]() mutable { stream->Open(std::move(hello)); });
}

void Primary::StartSync(std::shared_ptr<Host> host, Term) {
  if (stream_ == nullptr) return;
  worker_.Post([stream = stream_, host = std::move(host)]() mutable {
    const absl::Status synced = stream->Sync(std::move(host));
    if (!synced.ok()) stream->CloseSession(base::Annotate(synced, "full sync"));
  });
}

void Primary::StopEpochs(const std::shared_ptr<Host>& host) {
  if (host == nullptr || !host->assembled()) return;
  if (stream_ != nullptr) stream_->CancelFullSync();
  host->loop().Halt();
}

void Primary::AskUnprotect() {
  if (stream_ == nullptr) return;
  worker_.Post([stream = stream_] { stream->Say(v1::Goodbye::REASON_UNPROTECT, "asked"); });
}

void Primary::OfferHandOver(EpochId last, const v1::HandOver& hand_over) {
  if (stream_ == nullptr) return;
  worker_.Post([stream = stream_, last, hand_over] { stream->Offer(last, hand_over); });
}

void Primary::Close(std::optional<Farewell> farewell, const absl::Status& why) {
  if (stream_ == nullptr) return;
  stream_->Abandon();
  if (stream_->opened()) {
    stream_->CancelFullSync();
    if (!farewell) stream_->CloseSession(why);
  }
  worker_.Post([stream = std::move(stream_), farewell = std::move(farewell), why] {
    if (farewell) stream->Say(farewell->reason, farewell->detail);
    stream->CloseSession(why);
    stream->DestroySession();
  });
  stream_.reset();
}

void Primary::SendAllNow() {
  if (stream_ != nullptr) stream_->SendAllNow();
}

}  // namespace romulus::sim
