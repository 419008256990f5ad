#include "daemon/primary.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/guest_disk_sync.h"
#include "wire/audit_report.h"

namespace romulus::daemon {
namespace {

constexpr absl::Duration kHandshakeTimeout = absl::Seconds(10);
constexpr absl::Duration kGoodbyeTimeout = absl::Milliseconds(500);
constexpr absl::Duration kOfferTimeout = absl::Milliseconds(500);

codec::CompressionPolicy PolicyOf(romulus::v1::Checkpoint::Compression configured) {
  using romulus::v1::Checkpoint;
  switch (configured) {
    case Checkpoint::COMPRESSION_OFF:
      return codec::CompressionPolicy::kOff;
    case Checkpoint::COMPRESSION_LZ4:
      return codec::CompressionPolicy::kLz4;
    case Checkpoint::COMPRESSION_ZSTD:
      return codec::CompressionPolicy::kZstd;
    default:
      return codec::CompressionPolicy::kAuto;
  }
}

}  // namespace

// One attempt and, if it is accepted, one stream. The session calls it from its own threads; `live`
// says whether the control loop still cares.
class Primary::Stream final : public wire::PrimarySessionListener,
                              public wire::AckListener,
                              public wire::SyncSource,
                              public std::enable_shared_from_this<Stream> {
 public:
  explicit Stream(const PrimaryParts& parts) : parts_(parts) {}

  // Posted calls reach the listener only while this is the stream that counts.
  void Tell(std::function<void(PrimaryListener&)> what) {
    parts_.control->Post([self = shared_from_this(), what = std::move(what)] {
      if (self->live_) what(*self->parts_.listener);
    });
  }
  void Abandon() { live_ = false; }  // control loop

  // PrimarySessionListener:
  void OnSignOfLife(uint64_t) override { parts_.signs->Heard(); }
  void OnPeerGoodbye(const romulus::v1::Goodbye& goodbye) override {
    Tell([goodbye](PrimaryListener& to) { to.OnPrimaryGoodbye(goodbye); });
  }
  void OnHandOverRefused(const std::string& detail) override {
    Tell([detail](PrimaryListener& to) { to.OnHandOverRefused(detail); });
  }
  void OnRefused(codec::FrameFault fault) override {
    if (fault == codec::FrameFault::kNone) {
      parts_.counters->faults[static_cast<size_t>(replica::Fault::kUnexpected)].fetch_add(1);
    } else {
      parts_.counters->frame_faults[static_cast<size_t>(fault)].fetch_add(1);
    }
  }
  void OnBroken(const absl::Status& why) override {
    std::lock_guard lock(mutex_);
    broken_ = why;
    if (accepted_) TellBrokenLocked();
  }
  void OnSessionClosed(const absl::Status& why) override {
    std::lock_guard lock(mutex_);
    closed_ = why;
    if (accepted_) TellClosedLocked();  // else the worker tells how the attempt ended
  }

  // AckListener:
  void OnEpochAcked(const wire::EpochAck& ack) override {
    // Output first: it waits for nothing but this.
    host_->loop().OnAcked(ack.epoch);
    parts_.records->Acked(ack);
    newest_acked_ = ack.epoch.value();
    if (ack_told_.exchange(true)) return;
    Tell([this, term = ack.term](PrimaryListener& to) {
      ack_told_ = false;
      to.OnAcked(term, EpochId(newest_acked_));
    });
  }
  void OnEpochSent(const wire::EpochSent& sent) override { parts_.records->Sent(sent); }
  absl::Status OnAudited(const wire::AuditReport& report) override;
  void OnSenderClosed(const absl::Status&) override {}

  // SyncSource:
  absl::Status BeginTracking() override {
    ROMULUS_RETURN_IF_ERROR(host_->SetDirtyLogging(true));
    return host_->loop().BeginSync();
  }
  absl::StatusOr<memory::PageSet> TakeDirty() override { return host_->loop().TakeDirty(); }

  // Worker:
  absl::Status Open(wire::HelloInput hello, const std::string& address);
  absl::Status Sync(std::shared_ptr<GuestHost> host, Term term);
  void DestroySession();

  // Any thread:
  std::shared_ptr<wire::PrimarySession> session() const {
    std::lock_guard lock(mutex_);
    return session_;
  }
  bool is_broken() const {
    std::lock_guard lock(mutex_);
    return broken_.has_value();
  }

 private:
  void TellBrokenLocked() {
    Tell([why = *broken_](PrimaryListener& to) { to.OnStreamBroken(why); });
  }
  void TellClosedLocked() {
    Tell([why = *closed_](PrimaryListener& to) { to.OnStreamClosed(why); });
  }

  const PrimaryParts parts_;
  bool live_ = true;  // control loop
  std::atomic<uint64_t> newest_acked_{0};
  std::atomic<bool> ack_told_{false};
  wire::AuditReport audited_;        // link thread: what was reported so far
  std::shared_ptr<GuestHost> host_;  // set on the worker before the first epoch
  std::unique_ptr<RecordingSink> sink_;
  codec::CompressionStats sync_compression_;  // worker: of the full sync, what was counted so far
  mutable std::mutex mutex_;                  // for all below
  bool accepted_ = false;
  std::optional<absl::Status> broken_;
  std::optional<absl::Status> closed_;
  std::shared_ptr<wire::PrimarySession> session_;
};

absl::Status Primary::Stream::Open(wire::HelloInput hello, const std::string& address) {
  const romulus::v1::Config& config = *parts_.config;
  wire::PrimarySessionOptions options;
  const Term term = hello.stream_term;
  options.hello = std::move(hello);
  options.sender.term = term;
  options.sender.max_unacked_epochs = config.checkpoint().max_unacked_epochs() + 1;
  options.sender.heartbeat_interval_ns =
      uint64_t{config.failover().heartbeat_interval_ms()} * 1'000'000;
  options.encoder.previous_cache_bytes = uint64_t{config.checkpoint().previous_cache_mib()} << 20;
  options.encoder.compression = PolicyOf(config.checkpoint().compression());
  options.sync.term = term;
  options.sync.on_progress = [this](const wire::SyncProgress& progress) {
    parts_.records->Compressed(progress.compression - sync_compression_);
    sync_compression_ = progress.compression;
    Tell([progress](PrimaryListener& to) { to.OnSyncProgress(progress); });
  };
  const auto connect = [&](wire::LinkListener* listener) {
    wire::GrpcLinkOptions link;
    link.security = parts_.security;
    return wire::ConnectGrpcLink(address, link, listener);
  };
  ROMULUS_ASSIGN_OR_RETURN(auto opened,
                           wire::PrimarySession::Open(options, connect, parts_.clock, this, this));
  std::shared_ptr<wire::PrimarySession> session = std::move(opened);
  {
    std::lock_guard lock(mutex_);
    session_ = session;
  }
  ROMULUS_ASSIGN_OR_RETURN(const romulus::v1::HelloReply reply,
                           session->Handshake(kHandshakeTimeout));
  if (!reply.accepted()) {
    Tell([reply](PrimaryListener& to) { to.OnStreamRefused(reply); });
    return absl::OkStatus();
  }
  std::lock_guard lock(mutex_);
  accepted_ = true;
  Tell([term, reply](PrimaryListener& to) { to.OnStreamAccepted(term, reply); });
  if (broken_) TellBrokenLocked();
  if (closed_) TellClosedLocked();
  return absl::OkStatus();
}

absl::Status Primary::Stream::Sync(std::shared_ptr<GuestHost> host, Term term) {
  host_ = std::move(host);
  const std::shared_ptr<wire::PrimarySession> stream = session();
  if (stream == nullptr) return absl::UnavailableError("the stream is gone");
  std::optional<GuestDiskSync> disks;
  if (!parts_.stamps->copies().empty()) {
    disks.emplace(parts_.stamps->copies(), host_->disk_log());
  }
  ROMULUS_ASSIGN_OR_RETURN(
      const wire::SyncProgress done,
      stream->RunFullSync(&host_->memory(), this, disks.has_value() ? &*disks : nullptr));
  // From the first ack on the secondary's copies may be the newer ones, and output says so.
  ROMULUS_RETURN_IF_ERROR(parts_.stamps->Record(term, /*is_protected=*/true, /*covers=*/term));
  sink_ = std::make_unique<RecordingSink>(parts_.records, parts_.console, &stream->epochs());
  // Told before the first epoch can be cut, so that a loss right after it comes to be judged later:
  // the other way round this node would go on alone beside a secondary that holds an epoch.
  Tell([done, term](PrimaryListener& to) {
    to.OnSyncProgress(done);
    to.OnSyncDone(term);
  });
  return host_->loop().BeginCutting(term, memory::PageSet(host_->memory().layout().gfn_end()),
                                    sink_.get());
}

absl::Status Primary::Stream::OnAudited(const wire::AuditReport& report) {
  using Audit = romulus::v1::Audit;
  const wire::AuditReport before = std::exchange(audited_, report);
  const uint64_t pages = report.mismatched_pages - before.mismatched_pages;
  const uint64_t blocks = report.mismatched_blocks - before.mismatched_blocks;
  parts_.counters->audited_pages.fetch_add(report.audited_pages - before.audited_pages);
  parts_.counters->audit_mismatches.fetch_add(pages);
  parts_.counters->audited_blocks.fetch_add(report.audited_blocks - before.audited_blocks);
  parts_.counters->audit_block_mismatches.fetch_add(blocks);
  if (pages == 0 && blocks == 0) return absl::OkStatus();
  Tell([report](PrimaryListener& to) { to.OnAuditMismatch(report); });
  const Audit::OnMismatch then = parts_.config->audit().on_mismatch();
  // A full sync begins with a goodbye, which must be heard: the listener sees to it.
  if (const auto stream = session(); stream != nullptr && then == Audit::ON_MISMATCH_REPAIR) {
    wire::Repair(report, host_->memory(), stream->epochs());
    std::vector<epoch::DiskBlock> wrong;
    for (const auto& mismatch : report.block_mismatches) wrong.push_back(mismatch.block);
    if (host_->disk_auditor() != nullptr) host_->disk_auditor()->Repair(wrong);
  }
  return absl::OkStatus();
}

void Primary::Stream::DestroySession() {
  std::shared_ptr<wire::PrimarySession> gone;
  {
    std::lock_guard lock(mutex_);
    gone = std::move(session_);
  }
  // Halted before: the loop must not hand epochs to a sender that is gone.
  if (host_ != nullptr) {
    host_->loop().Halt();
    // The sync may have begun it after StopEpochs() ended it.
    if (host_->disk_log() != nullptr) host_->disk_log()->Stop();
  }
  gone.reset();
}

Primary::Primary(const PrimaryParts& parts) : parts_(parts) {}

Primary::~Primary() {
  Close(std::nullopt, absl::CancelledError("the daemon stops"));
  // What was posted to the worker must run: it holds sessions whose threads call us.
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  worker_.Post([&] {
    std::lock_guard lock(mutex);
    done = true;
    changed.notify_all();
  });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done; });
  lock.unlock();
  worker_.Stop();
}

void Primary::Connect(wire::HelloInput hello) {
  Close(std::nullopt, absl::CancelledError("a new stream replaces this one"));
  stream_ = std::make_shared<Stream>(parts_);
  worker_.Post(
      [stream = stream_, hello = std::move(hello), address = parts_.peer_address]() mutable {
        const absl::Status opened = stream->Open(std::move(hello), address);
        if (opened.ok()) return;
        stream->Tell([opened](PrimaryListener& to) { to.OnConnectFailed(opened); });
      });
}

void Primary::StartSync(std::shared_ptr<GuestHost> host, Term term) {
  if (stream_ == nullptr) return;
  worker_.Post([stream = stream_, host = std::move(host), term]() mutable {
    const absl::Status synced = stream->Sync(std::move(host), term);
    if (synced.ok()) return;
    // The session says so itself if it is the stream that ended; the first word counts. One that is
    // broken ends with a goodbye.
    const std::shared_ptr<wire::PrimarySession> session = stream->session();
    if (session != nullptr && !stream->is_broken()) {
      session->Close(base::Annotate(synced, "full sync"));
    }
  });
}

void Primary::StopEpochs(const std::shared_ptr<GuestHost>& host) {
  if (host == nullptr || !host->assembled()) return;
  if (stream_ != nullptr) {
    if (const auto session = stream_->session()) session->CancelFullSync();
  }
  // On the control loop, not behind the worker: when this returns no epoch is cut any more.
  host->loop().Halt();
  // Nobody takes what it would go on to hold.
  if (host->disk_log() != nullptr) host->disk_log()->Stop();
  worker_.Post([host] { (void)host->SetDirtyLogging(false); });
}

void Primary::TellConsoleReleased() {
  if (stream_ == nullptr) return;
  const std::optional<uint64_t> written = parts_.console->written_offset();
  const auto session = stream_->session();
  if (written && session != nullptr) session->epochs().SetConsoleReleased(*written);
}

std::optional<wire::PrimarySession::LinkUse> Primary::link_use() const {
  const auto session = stream_ == nullptr ? nullptr : stream_->session();
  if (session == nullptr) return std::nullopt;
  return session->link_use();
}

void Primary::AskUnprotect(uint64_t deadline_ns) {
  if (stream_ == nullptr) return;
  worker_.Post([stream = stream_, clock = parts_.clock, deadline_ns] {
    const std::shared_ptr<wire::PrimarySession> session = stream->session();
    const uint64_t now_ns = clock->NowNs();
    if (session == nullptr || now_ns >= deadline_ns) return;
    session->AskUnprotect("an operator asked for it", absl::Nanoseconds(deadline_ns - now_ns))
        .IgnoreError();  // who is not answered hears so in time
  });
}

void Primary::OfferHandOver(EpochId last, romulus::v1::HandOver hand_over) {
  if (stream_ == nullptr) return;
  worker_.Post([stream = stream_, last, hand_over = std::move(hand_over)] {
    const std::shared_ptr<wire::PrimarySession> session = stream->session();
    if (session == nullptr) return;
    const absl::Status sent = session->OfferHandOver(last, hand_over, kOfferTimeout);
    // Of any other error the session's end tells, and nobody knows what was heard over there.
    if (absl::IsDeadlineExceeded(sent)) stream->OnHandOverRefused(std::string(sent.message()));
  });
}

void Primary::Close(std::optional<Farewell> farewell, const absl::Status& why) {
  if (stream_ == nullptr) return;
  stream_->Abandon();
  if (const auto session = stream_->session()) {
    session->CancelFullSync();
    if (!farewell) session->Close(why);
  }
  worker_.Post([stream = std::move(stream_), farewell = std::move(farewell), why] {
    if (const auto session = stream->session()) {
      if (farewell) session->SendGoodbye(farewell->reason, farewell->detail, kGoodbyeTimeout);
      session->Close(why);
    }
    stream->DestroySession();
  });
  stream_.reset();
}

void Primary::Drain(std::function<void()> done) {
  worker_.Post([this, done = std::move(done)] { parts_.control->Post(done); });
}

}  // namespace romulus::daemon
