#include "wire/frame_sender.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::wire {

absl::StatusOr<std::unique_ptr<FrameSender>> FrameSender::Create(
    Gfn gfn_end, const codec::EncoderOptions& options, const base::Clock* clock) {
  std::unique_ptr<FrameSender> sender(new FrameSender(clock));
  codec::EncoderOptions clocked = options;
  if (clocked.clock == nullptr) clocked.clock = clock;
  ROMULUS_ASSIGN_OR_RETURN(sender->encoder_,
                           codec::EpochEncoder::Create(gfn_end, &sender->frames_, clocked));
  return sender;
}

void FrameSender::Start(Link* link) {
  absl::MutexLock lock(&mutex_);
  link_ = link;
  broken_ = false;
  frames_.Reset();
  dialect_ = codec::Dialect();
  sent_bytes_.store(0, std::memory_order_relaxed);
  link_rate_.store(0, std::memory_order_relaxed);
}

void FrameSender::StartPages(size_t peer_max_body_bytes, codec::Dialect dialect) {
  absl::MutexLock lock(&mutex_);
  dialect_ = dialect;
  encoder_->StartStream(peer_max_body_bytes);
}

absl::Status FrameSender::WithEncoder(
    size_t batch_bytes, absl::FunctionRef<absl::Status(codec::EpochEncoder&, Send)> work,
    uint64_t* send_ns) {
  absl::MutexLock lock(&mutex_);
  while (busy_) free_.Wait(&mutex_);
  if (link_ == nullptr || broken_) return absl::UnavailableError("the stream is over");
  busy_ = true;
  frames_.SetDialect(dialect_);
  Link* const link = link_;
  mutex_.Unlock();

  uint64_t in_link_ns = 0;
  std::string collected;
  auto flush = [&]() -> absl::Status {
    if (collected.empty()) return absl::OkStatus();
    sent_bytes_.fetch_add(collected.size(), std::memory_order_relaxed);
    const uint64_t begin_ns = clock_->NowNs();
    absl::Status sent = link->Send(std::exchange(collected, std::string()));
    in_link_ns += clock_->NowNs() - begin_ns;
    return sent;
  };
  auto send = [&](std::string message) -> absl::Status {
    if (!collected.empty() && collected.size() + message.size() > batch_bytes) {
      ROMULUS_RETURN_IF_ERROR(flush());
    }
    if (collected.empty()) {
      collected = std::move(message);
    } else {
      collected.append(message);
    }
    return collected.size() >= batch_bytes ? flush() : absl::OkStatus();
  };
  encoder_->SetLinkRate(link_rate_.load(std::memory_order_relaxed));
  absl::Status done = work(*encoder_, send);
  compression_.store(encoder_->compression(), std::memory_order_relaxed);
  // Even after an error: frames that were numbered must not be missing before later ones.
  if (absl::Status flushed = flush(); done.ok()) done = flushed;
  if (send_ns != nullptr) *send_ns = in_link_ns;

  mutex_.Lock();
  busy_ = false;
  free_.SignalAll();
  if (!done.ok()) broken_ = true;
  return done;
}

absl::Status FrameSender::SendControl(absl::Duration timeout, codec::FrameKind kind, Term term,
                                      EpochId epoch, const google::protobuf::MessageLite& body) {
  // By the monotonic clock: heartbeats pass here, whatever becomes of the wall clock.
  const base::CondVar::Deadline deadline = base::CondVar::After(timeout);
  absl::MutexLock lock(&mutex_);
  const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !busy_; };
  if (!free_.AwaitUntil(&mutex_, deadline, free)) {
    return absl::DeadlineExceededError("the link is busy");
  }
  if (link_ == nullptr || broken_) return absl::UnavailableError("the stream is over");
  if (!dialect_.Has(kind)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "protocol version ", dialect_.version(), " has no ", codec::FrameKindName(kind), " frame"));
  }
  busy_ = true;
  frames_.SetDialect(dialect_);
  Link* const link = link_;
  mutex_.Unlock();

  codec::FrameWriter before = frames_;
  std::string message;
  frames_.Append(kind, term, epoch, body, &message);
  const size_t bytes = message.size();
  absl::Status sent = link->SendWithin(base::CondVar::Left(deadline), std::move(message));
  if (sent.ok()) {
    sent_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  } else {
    frames_ = before;  // its number was never used
  }

  mutex_.Lock();
  busy_ = false;
  free_.SignalAll();
  if (!sent.ok() && !absl::IsDeadlineExceeded(sent)) broken_ = true;
  return sent;
}

}  // namespace romulus::wire
