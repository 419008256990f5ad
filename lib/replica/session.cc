#include "replica/session.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "codec/peer_terms.h"
#include "google/protobuf/message_lite.h"
#include "replica/fault.h"

namespace romulus::replica {
namespace {

// Whoever sends nonsense may not read either.
constexpr absl::Duration kGoodbyeTimeout = absl::Seconds(1);

absl::Status Unexpected(const codec::Frame& frame, absl::string_view when) {
  return FaultStatus(Fault::kUnexpected,
                     absl::StrCat(codec::FrameKindName(frame.kind), " frame ", when));
}

absl::Status Parse(const codec::Frame& frame, google::protobuf::MessageLite* into) {
  absl::Status status = codec::ParseBody(frame, into);
  return status.ok() ? status : WithFault(Fault::kBody, std::move(status));
}

// While it lives a frame may be waiting for a disk.
class DiskWork {
 public:
  explicit DiskWork(std::atomic<bool>* flag) : flag_(flag) { flag_->store(true); }
  ~DiskWork() { flag_->store(false); }
  DiskWork(const DiskWork&) = delete;
  DiskWork& operator=(const DiskWork&) = delete;

 private:
  std::atomic<bool>* const flag_;
};

absl::Status InRange(absl::Status terms) {
  return terms.ok() ? terms : WithFault(Fault::kBody, std::move(terms));
}

}  // namespace

Session::Session(ReplicaStore* store, HelloPolicy* policy, SessionListener* listener,
                 ReplicaCounters* counters, const base::Clock* clock, const SessionOptions& options)
    : store_(store),
      policy_(policy),
      listener_(listener),
      counters_(counters),
      clock_(clock),
      options_(options),
      reader_(options.max_body_bytes) {}

void Session::Attach(std::shared_ptr<wire::Link> link) {
  std::unique_lock<std::mutex> lock(link_mutex_);
  link_ = std::move(link);
}

std::shared_ptr<wire::Link> Session::link() const {
  std::unique_lock<std::mutex> lock(link_mutex_);
  return link_;
}

base::WorkMark::Look Session::work() const {
  base::WorkMark::Look look = work_.look();
  if (sends_.load() != 0) look.at_work = false;
  return look;
}

// While it lives the reader thread is at work, and if the primary asks, for how long is known.
class Session::Busy {
 public:
  explicit Busy(Session* session) : session_(session) {
    if (!session_->measure_link_) return;
    since_ns_ = session_->clock_->NowNs();
    session_->busy_since_ns_ = since_ns_;
  }
  ~Busy() {
    if (since_ns_ == 0) return;
    session_->busy_since_ns_ = 0;
    session_->busy_ns_ += session_->clock_->NowNs() - since_ns_;
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  Session* const session_;
  uint64_t since_ns_ = 0;
};

void Session::OnMessage(absl::string_view frames) {
  received_bytes_ += frames.size();
  const Busy busy(this);
  HandleMessage(frames);
}

void Session::HandleMessage(absl::string_view frames) {
  base::WorkMark::Scope at_work(work_);
  counters_->messages.fetch_add(1);
  counters_->message_bytes.fetch_add(frames.size());
  if (stage_ == Stage::kOver) {
    if (store_->sealed()) counters_->frames_after_seal.fetch_add(1);
    return;
  }
  absl::Status status;
  if (frames.empty()) {
    counters_->frame_faults[static_cast<size_t>(codec::FrameFault::kTruncated)].fetch_add(1);
    status = FaultStatus(Fault::kFraming, "message without frames");
  }
  while (status.ok() && stage_ != Stage::kOver && !frames.empty()) {
    absl::StatusOr<codec::Frame> frame = reader_.Next(&frames);
    if (!frame.ok()) {
      counters_->frame_faults[static_cast<size_t>(reader_.fault())].fetch_add(1);
      status = WithFault(Fault::kFraming, std::move(frame).status());
      break;
    }
    counters_->frames[static_cast<size_t>(frame->kind)].fetch_add(1);
    status = HandleFrame(*frame);
    work_.Step();
  }
  // What was committed before a bad frame is committed; not so if the replica was given up.
  if (FaultOf(status) == Fault::kDiskIo) ack_.reset();
  if (absl::Status applied = AckAndApply(); status.ok()) status = std::move(applied);
  if (!status.ok()) return Refuse(status);
  if (stage_ != Stage::kOver) listener_->OnTraffic();
}

absl::Status Session::HandleFrame(const codec::Frame& frame) {
  if (stage_ == Stage::kAwaitHello) {
    if (frame.kind != codec::FrameKind::kHello) return Unexpected(frame, "before hello");
    return HandleHello(frame);
  }
  const bool may_follow =
      frame.kind == codec::FrameKind::kHeartbeat || frame.kind == codec::FrameKind::kGoodbye;
  if (handed_over_ && !may_follow) return Unexpected(frame, "after the hand-over");
  switch (frame.kind) {
    case codec::FrameKind::kHeartbeat:
      return HandleHeartbeat(frame);
    case codec::FrameKind::kSyncBegin:
    case codec::FrameKind::kSyncPages:
    case codec::FrameKind::kSyncEnd:
      return HandleSync(frame);
    case codec::FrameKind::kDiskSyncBegin:
    case codec::FrameKind::kDiskBlocks:
    case codec::FrameKind::kDiskHashRequest:
    case codec::FrameKind::kDiskSyncEnd:
      return HandleDiskSync(frame);
    case codec::FrameKind::kEpochPages:
    case codec::FrameKind::kEpochDisks:
    case codec::FrameKind::kEpochAudit:
    case codec::FrameKind::kEpochCommit:
    case codec::FrameKind::kEpochAbort:
      return HandleEpoch(frame);
    case codec::FrameKind::kHandOver:
      return HandleHandOver(frame);
    case codec::FrameKind::kGoodbye:
      return HandleGoodbye(frame);
    case codec::FrameKind::kHello:
      return Unexpected(frame, "after the first");
    case codec::FrameKind::kHelloReply:
    case codec::FrameKind::kAck:
    case codec::FrameKind::kDiskHashes:
    case codec::FrameKind::kHandOverRefusal:
      return Unexpected(frame, "from a primary");
  }
  return Unexpected(frame, "of a kind without meaning");
}

absl::Status Session::HandleHello(const codec::Frame& frame) {
  v1::Hello hello;
  ROMULUS_RETURN_IF_ERROR(Parse(frame, &hello));
  ROMULUS_RETURN_IF_ERROR(InRange(codec::CheckTerms(hello)));
  v1::HelloReply reply = policy_->OnHello(hello);
  if (reply.accepted()) {
    absl::StatusOr<ReplicaStore::StreamId> stream = store_->OpenStream(Term(hello.term()));
    if (stream.ok()) {
      stream_ = *stream;
      stream_open_ = true;
      term_.store(hello.term());
      CorrectDisks(&reply);
    } else {
      // Not for its term if the replica was only replaced: the primary may come again at once.
      const bool replaced = FaultOf(stream.status()) == Fault::kSuperseded && !store_->sealed();
      reply.set_accepted(false);
      reply.set_reason(replaced ? v1::REFUSAL_REASON_BUSY : v1::REFUSAL_REASON_TERM);
      if (FaultOf(stream.status()) == Fault::kDiskIo) reply.set_reason(v1::REFUSAL_REASON_DISKS);
      reply.set_detail(std::string(stream.status().message()));
    }
  }
  if (reply.term() == 0) reply.set_term(store_->known_term().value());
  if (reply.max_frame_bytes() == 0) reply.set_max_frame_bytes(options_.max_body_bytes);
  if (reply.accepted()) {
    dialect_.store(codec::Dialect(reply.protocol_version()));
    measure_link_ = hello.measure_link();
    reader_.SetDialect(dialect_.load());
  }
  stage_ = reply.accepted() ? Stage::kRunning : Stage::kOver;
  (reply.accepted() ? counters_->streams_opened : counters_->streams_refused).fetch_add(1);
  const absl::Status sent =
      Send(codec::FrameKind::kHelloReply, Term(reply.term()), EpochId(), reply);
  running_.store(reply.accepted());
  listener_->OnHello(hello, reply);
  if (!reply.accepted()) {
    Close(absl::FailedPreconditionError(absl::StrCat("primary refused: ", reply.detail())));
  } else if (!sent.ok()) {
    stage_ = Stage::kOver;
    Close(sent);
  }
  return absl::OkStatus();
}

// The policy judged before the stream was this one: another may have written since. A copy that is
// said to be all zero is not compared, so what was written would stay.
void Session::CorrectDisks(v1::HelloReply* reply) const {
  const std::vector<DiskFacts> now = store_->disk_facts();
  for (v1::DiskCopy& disk : *reply->mutable_disks()) {
    const auto same = std::find_if(
        now.begin(), now.end(), [&](const DiskFacts& facts) { return facts.disk == disk.disk(); });
    const bool untouched = same != now.end() && same->all_zero && same->role == CopyRole::kNever;
    if (!untouched) disk.set_all_zero(false);
  }
}

absl::Status Session::HandleHeartbeat(const codec::Frame& frame) {
  v1::Heartbeat heartbeat;
  ROMULUS_RETURN_IF_ERROR(Parse(frame, &heartbeat));
  echo_monotonic_ns_.store(heartbeat.sent_monotonic_ns());
  if (!handed_over_) {  // it said so then, and the replica may be sealed
    ROMULUS_RETURN_IF_ERROR(
        store_->ConsoleReleased(stream_, frame.term, heartbeat.console_released()));
  }
  SendHeartbeat().IgnoreError();  // a stream that ended says so itself
  return absl::OkStatus();
}

absl::Status Session::HandleSync(const codec::Frame& frame) {
  if (frame.kind == codec::FrameKind::kSyncBegin) {
    v1::SyncBegin begin;
    ROMULUS_RETURN_IF_ERROR(Parse(frame, &begin));
    ROMULUS_RETURN_IF_ERROR(store_->BeginSync(stream_, frame.term, begin.total_pages()));
  } else if (frame.kind == codec::FrameKind::kSyncPages) {
    ROMULUS_RETURN_IF_ERROR(store_->SyncPages(stream_, frame));
  } else {
    v1::SyncEnd end;
    ROMULUS_RETURN_IF_ERROR(Parse(frame, &end));
    ROMULUS_RETURN_IF_ERROR(store_->EndSync(stream_, frame.term));
  }
  const ReplicaStatus status = store_->status();
  listener_->OnSyncProgress(status.sync_pages_done, status.sync_pages_total, status.sync_complete);
  return absl::OkStatus();
}

absl::Status Session::HandleDiskSync(const codec::Frame& frame) {
  const DiskWork work(&working_on_disk_);
  switch (frame.kind) {
    case codec::FrameKind::kDiskSyncBegin: {
      v1::DiskSyncBegin begin;
      ROMULUS_RETURN_IF_ERROR(Parse(frame, &begin));
      return store_->BeginDiskSync(stream_, frame.term, begin.disk_count());
    }
    case codec::FrameKind::kDiskBlocks:
      return store_->WriteDiskBlocks(stream_, frame.term, frame.body);
    case codec::FrameKind::kDiskHashRequest:
      return HandleHashRequest(frame);
    default: {
      v1::DiskSyncEnd end;
      ROMULUS_RETURN_IF_ERROR(Parse(frame, &end));
      return store_->EndDiskSync(stream_, frame.term);
    }
  }
}

absl::Status Session::HandleHashRequest(const codec::Frame& frame) {
  v1::DiskHashRequest request;
  ROMULUS_RETURN_IF_ERROR(Parse(frame, &request));
  codec::DiskHashes hashes;
  hashes.disk = request.disk();
  hashes.first_block = request.first_block();
  ROMULUS_ASSIGN_OR_RETURN(hashes.hashes, store_->HashDisk(stream_, frame.term, request.disk(),
                                                           request.first_block(), request.count()));
  std::string body;
  codec::AppendDiskHashes(hashes, &body);
  working_on_disk_.store(false);  // the link is not this node's disk
  // A link that is gone says so itself.
  SendBody(codec::FrameKind::kDiskHashes, frame.term, EpochId(), body, absl::InfiniteDuration())
      .IgnoreError();
  return absl::OkStatus();
}

absl::Status Session::HandleEpoch(const codec::Frame& frame) {
  if (frame.kind == codec::FrameKind::kEpochPages) return store_->StagePages(stream_, frame);
  if (frame.kind == codec::FrameKind::kEpochAbort) {
    v1::EpochAbort abort;
    ROMULUS_RETURN_IF_ERROR(Parse(frame, &abort));
    ROMULUS_RETURN_IF_ERROR(store_->Abort(stream_, frame));
    counters_->epochs_aborted.fetch_add(1);
    return absl::OkStatus();
  }
  if (frame.kind == codec::FrameKind::kEpochDisks) return store_->StageDisks(stream_, frame);
  if (frame.kind == codec::FrameKind::kEpochAudit) return store_->StageAudit(stream_, frame);
  const DiskWork work(&working_on_disk_);
  ROMULUS_ASSIGN_OR_RETURN(CommitResult commit, store_->Commit(stream_, frame));
  counters_->epochs_committed.fetch_add(1);
  counters_->pages_committed.fetch_add(commit.page_count);
  counters_->disk_records_committed.fetch_add(commit.disk_records);
  counters_->disk_bytes_committed.fetch_add(commit.disk_bytes);
  if (!ack_) ack_ = PendingAck{};  // acks are cumulative
  ack_->key = commit.key;
  ack_->echo_monotonic_ns = commit.sent_monotonic_ns;
  ack_->at_rest = ack_->at_rest && commit.page_count == 0;
  NoteAudit(std::move(commit.audit));
  return absl::OkStatus();
}

absl::Status Session::HandleHandOver(const codec::Frame& frame) {
  v1::HandOver hand_over;
  ROMULUS_RETURN_IF_ERROR(Parse(frame, &hand_over));
  ROMULUS_RETURN_IF_ERROR(AckAndApply());
  const EpochKey last{frame.term, frame.epoch};
  const ReplicaStatus status = store_->status();
  if (status.state != ReplicaState::kCommitted || !(status.newest == last)) {
    return Unexpected(frame, absl::StrCat("of epoch ", frame.epoch.value(), ", the newest is ",
                                          status.newest.epoch.value()));
  }
  ROMULUS_RETURN_IF_ERROR(
      store_->ConsoleReleased(stream_, frame.term, hand_over.console_released()));
  handed_over_ = true;
  listener_->OnHandOver(last, hand_over);
  return absl::OkStatus();
}

void Session::RefuseHandOver(absl::string_view detail) {
  v1::HandOverRefusal refusal;
  refusal.set_detail(std::string(detail));
  handed_over_ = false;  // before the primary hears, and goes on
  Send(codec::FrameKind::kHandOverRefusal, Term(term_.load()), EpochId(), refusal, kGoodbyeTimeout)
      .IgnoreError();  // a link that is gone says so itself
}

void Session::NoteAudit(AuditFindings&& found) {
  if (found.compared == 0 && found.disks.compared == 0) return;
  audited_pages_ += found.compared;
  mismatched_pages_ += found.mismatched;
  counters_->audited_pages.fetch_add(found.compared);
  counters_->audit_mismatches.fetch_add(found.mismatched);
  audited_blocks_ += found.disks.compared;
  mismatched_blocks_ += found.disks.mismatched;
  counters_->audited_blocks.fetch_add(found.disks.compared);
  counters_->audit_block_mismatches.fetch_add(found.disks.mismatched);
  if (!found.mismatches.empty()) listener_->OnAuditMismatch(found.mismatches);
  if (!found.disks.mismatches.empty()) listener_->OnDiskAuditMismatch(found.disks.mismatches);
  ack_->audit.Add(std::move(found));
}

absl::Status Session::HandleGoodbye(const codec::Frame& frame) {
  v1::Goodbye goodbye;
  ROMULUS_RETURN_IF_ERROR(Parse(frame, &goodbye));
  ROMULUS_RETURN_IF_ERROR(InRange(codec::CheckTerms(goodbye)));
  if (goodbye.reason() == v1::Goodbye::REASON_GUEST_FINISHED) {
    ROMULUS_RETURN_IF_ERROR(store_->GuestFinished(stream_, frame.term, goodbye.detail()));
  }
  // The answer is what lets the primary open its output: what was given up before it cannot be
  // promoted after it.
  const bool unprotect = goodbye.reason() == v1::Goodbye::REASON_UNPROTECT && policy_->MayGiveUp();
  if (unprotect) ROMULUS_RETURN_IF_ERROR(store_->GiveUp(stream_, frame.term));
  ROMULUS_RETURN_IF_ERROR(AckAndApply());
  stage_ = Stage::kOver;
  running_.store(false);
  goodbye_said_.store(true);  // any other needs no answer
  if (unprotect) {
    v1::Goodbye answer;
    answer.set_reason(v1::Goodbye::REASON_UNPROTECT);
    answer.set_detail("the replica is given up");
    answer.set_term(term_.load());
    Send(codec::FrameKind::kGoodbye, Term(term_.load()), EpochId(), answer, kGoodbyeTimeout)
        .IgnoreError();
  }
  listener_->OnGoodbye(goodbye);
  Close(absl::CancelledError(absl::StrCat("the primary said goodbye (",
                                          v1::Goodbye::Reason_Name(goodbye.reason()),
                                          "): ", goodbye.detail())));
  return absl::OkStatus();
}

absl::Status Session::AckAndApply() {
  if (!ack_.has_value()) return absl::OkStatus();
  const PendingAck ack = *std::exchange(ack_, std::nullopt);
  v1::Ack body;
  body.set_echo_monotonic_ns(ack.echo_monotonic_ns);
  body.set_audited_pages(audited_pages_);
  body.set_mismatched_pages(mismatched_pages_);
  for (const AuditMismatch& page : ack.audit.mismatches) {
    v1::AuditMismatch& told = *body.add_mismatches();
    told.set_gfn(page.gfn.value());
    told.set_epoch(page.epoch.value());
  }
  body.set_audited_blocks(audited_blocks_);
  body.set_mismatched_blocks(mismatched_blocks_);
  for (const DiskAuditMismatch& mismatch : ack.audit.disks.mismatches) {
    v1::DiskAuditMismatch& told = *body.add_disk_mismatches();
    told.set_disk(mismatch.block.disk);
    told.set_block(mismatch.block.block);
    told.set_epoch(mismatch.epoch.value());
  }
  // Acked first, applied second: the primary need not wait for the copying, and a promotion in
  // between completes it. After a promotion the ack could only make the old primary release what
  // the new one says again.
  if (!store_->sealed() && Send(codec::FrameKind::kAck, ack.key.term, ack.key.epoch, body).ok()) {
    counters_->acks_sent.fetch_add(1);
    // Instead of a heartbeat, as its epoch came instead of one. Not so of a busy stream, whose
    // heartbeats bring reports of the link.
    if (ack.at_rest) last_answer_ns_.store(clock_->NowNs());
  }
  {
    const DiskWork work(&working_on_disk_);
    ROMULUS_RETURN_IF_ERROR(store_->ApplyCommitted(stream_));
  }
  listener_->OnEpochCommitted(ack.key);
  return absl::OkStatus();
}

void Session::Refuse(const absl::Status& why) {
  const Fault fault = FaultOf(why);
  (fault == Fault::kDiskIo ? counters_->disk_failures
                           : counters_->faults[static_cast<size_t>(fault)])
      .fetch_add(1);
  stage_ = Stage::kOver;
  v1::Goodbye::Reason reason = v1::Goodbye::REASON_PROTOCOL;
  // The replica was given up before this: the primary may take its word.
  if (fault == Fault::kDiskIo) reason = v1::Goodbye::REASON_DISK;
  if (fault == Fault::kCap) reason = v1::Goodbye::REASON_CAP;
  if (store_->sealed()) {
    // Of a hand-over the control loop says that the guest runs, and when.
    if (!handed_over_) reason = v1::Goodbye::REASON_PROMOTED;
    counters_->frames_after_seal.fetch_add(1);
  }
  if (stream_open_) store_->CloseStream(stream_);
  running_.store(false);
  if (!goodbye_said_.exchange(true)) {
    v1::Goodbye goodbye;
    goodbye.set_reason(reason);
    goodbye.set_detail(std::string(why.message()));
    goodbye.set_term(store_->known_term().value());
    Send(codec::FrameKind::kGoodbye, store_->known_term(), EpochId(), goodbye, kGoodbyeTimeout)
        .IgnoreError();
  }
  Close(why);
}

void Session::Close(const absl::Status& why) {
  if (const std::shared_ptr<wire::Link> open = link(); open != nullptr) open->Close(why);
}

void Session::OnClosed(const absl::Status& why) {
  stage_ = Stage::kOver;
  running_.store(false);
  if (stream_open_) store_->CloseStream(stream_);
  {
    std::unique_lock<std::mutex> lock(link_mutex_);
    link_.reset();
  }
  listener_->OnClosed(why);
}

absl::Status Session::Send(codec::FrameKind kind, Term term, EpochId epoch,
                           const google::protobuf::MessageLite& body, absl::Duration timeout) {
  std::string bytes;
  dialect_.load().Serialize(body, &bytes);
  return SendBody(kind, term, epoch, bytes, timeout);
}

absl::Status Session::SendBody(codec::FrameKind kind, Term term, EpochId epoch,
                               absl::string_view body, absl::Duration timeout) {
  const std::shared_ptr<wire::Link> open = link();
  if (open == nullptr) return absl::UnavailableError("the link is closed");
  if (!dialect_.load().Has(kind)) {
    return absl::FailedPreconditionError(absl::StrCat("protocol version ",
                                                      dialect_.load().version(), " has no ",
                                                      codec::FrameKindName(kind), " frame"));
  }
  sends_.fetch_add(1);
  const absl::Cleanup done = [this] { sends_.fetch_sub(1); };
  {
    std::unique_lock<std::mutex> lock(send_mutex_);
    const auto free = [this] { return !sending_; };
    if (timeout == absl::InfiniteDuration()) {
      sent_.wait(lock, free);
    } else if (!sent_.wait_for(lock, absl::ToChronoNanoseconds(timeout), free)) {
      return absl::DeadlineExceededError("another frame waits for the link's flow control");
    }
    sending_ = true;
  }
  std::string message;
  writer_.Append(kind, term, epoch, body, &message);
  const absl::Status status = timeout == absl::InfiniteDuration()
                                  ? open->Send(std::move(message))
                                  : open->SendWithin(timeout, std::move(message));
  {
    std::unique_lock<std::mutex> lock(send_mutex_);
    sending_ = false;
  }
  sent_.notify_one();
  return status;
}

absl::Status Session::SendHeartbeat() {
  if (!running_.load() || goodbye_said_.load()) {
    return absl::UnavailableError("no stream is running");
  }
  v1::Heartbeat heartbeat;
  heartbeat.set_sequence(heartbeats_.fetch_add(1) + 1);
  heartbeat.set_sent_monotonic_ns(clock_->NowNs());
  heartbeat.set_echo_monotonic_ns(echo_monotonic_ns_.load());
  if (measure_link_) {
    const uint64_t since_ns = busy_since_ns_.load();
    const uint64_t now_ns = heartbeat.sent_monotonic_ns();
    // A message that ends between the two reads is missing in this report, and in the next is not.
    heartbeat.set_busy_ns(busy_ns_.load() +
                          (since_ns == 0 || since_ns > now_ns ? 0 : now_ns - since_ns));
    heartbeat.set_received_bytes(received_bytes_.load());
  }
  last_answer_ns_.store(heartbeat.sent_monotonic_ns());
  return Send(codec::FrameKind::kHeartbeat, Term(term_.load()), EpochId(), heartbeat);
}

uint64_t Session::KeepBeating(uint64_t interval_ns) {
  const uint64_t patience_ns = interval_ns + interval_ns / 2;
  const uint64_t last_ns = last_answer_ns_.load();  // before the clock, which is not behind it then
  const uint64_t silent_ns = clock_->NowNs() - last_ns;
  if (silent_ns < patience_ns) return patience_ns - silent_ns;
  SendHeartbeat().IgnoreError();  // a stream that ended says so itself
  return patience_ns;
}

void Session::SayGoodbye(v1::Goodbye::Reason reason, Term term, absl::string_view detail,
                         absl::Duration timeout) {
  if (goodbye_said_.exchange(true)) return;
  v1::Goodbye goodbye;
  goodbye.set_reason(reason);
  goodbye.set_detail(std::string(detail));
  goodbye.set_term(term.value());
  Send(codec::FrameKind::kGoodbye, term, EpochId(), goodbye, timeout).IgnoreError();
  Close(absl::CancelledError(absl::StrCat("said goodbye: ", detail)));
}

}  // namespace romulus::replica
