#include "wire/grpc_stream.h"

#include <grpc/grpc.h>
#include <grpcpp/support/slice.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "romulus/v1/replication_service.pb.h"

namespace romulus::wire {
namespace {

// After Close(), queued messages (a goodbye) have this long to leave and the peer to answer.
constexpr std::chrono::milliseconds kLinger(500);

// Field 1 of FrameBatch, length-delimited: https://protobuf.dev/programming-guides/encoding/
constexpr uint8_t kFramesFieldTag = (1 << 3) | 2;

// The frames inside a serialized FrameBatch that has just that field, or false.
bool UnwrapInPlace(absl::string_view message, absl::string_view* frames) {
  if (message.empty() || static_cast<uint8_t>(message[0]) != kFramesFieldTag) return false;
  uint64_t length = 0;
  size_t at = 1;
  for (unsigned shift = 0; shift < 35; shift += 7) {
    if (at >= message.size()) return false;
    const uint8_t byte = static_cast<uint8_t>(message[at++]);
    length |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) {
      if (length != message.size() - at) return false;
      *frames = message.substr(at);
      return true;
    }
  }
  return false;
}

}  // namespace

grpc::ByteBuffer WrapFrames(std::string frames) {
  char head[11];
  size_t head_bytes = 0;
  head[head_bytes++] = static_cast<char>(kFramesFieldTag);
  uint64_t length = frames.size();
  while (length >= 0x80) {
    head[head_bytes++] = static_cast<char>(length | 0x80);
    length >>= 7;
  }
  head[head_bytes++] = static_cast<char>(length);
  auto owned = std::make_unique<std::string>(std::move(frames));
  std::string* const raw = owned.release();  // the slice's last reference deletes it
  const grpc::Slice slices[2] = {
      grpc::Slice(head, head_bytes),
      grpc::Slice(
          raw->data(), raw->size(), [](void* p) { delete static_cast<std::string*>(p); }, raw)};
  return grpc::ByteBuffer(slices, 2);
}

std::vector<std::pair<std::string, int>> TransportArguments(const GrpcLinkOptions& options) {
  return {
      {GRPC_ARG_ENABLE_HTTP_PROXY, 0},
      {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, static_cast<int>(options.max_message_bytes)},
      {GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, static_cast<int>(options.max_message_bytes)},
      // A fixed window instead of one found by probing: no pings between our messages, and what a
      // receiver that does not read can be made to hold is known.
      {GRPC_ARG_HTTP2_BDP_PROBE, 0},
      {GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, static_cast<int>(options.max_queued_bytes)},
      {GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 4 << 20},
      {GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(options.keepalive_ms)},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, static_cast<int>(options.keepalive_timeout_ms)},
      {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 100},
      {GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0},
      // Two daemons on one port must not share it silently.
      {GRPC_ARG_ALLOW_REUSEPORT, 0},
      // Each link has a connection of its own, and no other link's back-off.
      {GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1},
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, 16},
  };
}

GrpcStream::GrpcStream(const GrpcLinkOptions& options, grpc::CompletionQueue* queue)
    : options_(options), queue_(queue) {
  for (size_t i = 0; i < std::size(tags_); ++i) tags_[i] = Tag{this, static_cast<Op>(i)};
}

void GrpcStream::SetListener(LinkListener* listener) {
  absl::MutexLock lock(&mutex_);
  if (!detached_) listener_ = listener;
}

void GrpcStream::Begin() {
  absl::MutexLock lock(&mutex_);
  begun_ = true;
  if (!closing_ || HasWritesDone()) {
    reading_ = true;
    ++pending_;
    StartRead(&incoming_, TagOf(Op::kRead));
  }
  AdvanceCloseLocked();  // Close() may have come first
}

absl::Status GrpcStream::SendWithin(absl::Duration timeout, std::string frames) {
  if (frames.size() + 16 > options_.max_message_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("message of ", frames.size(),
                                                   " bytes: the link takes at most ",
                                                   options_.max_message_bytes - 16));
  }
  grpc::ByteBuffer message = WrapFrames(std::move(frames));
  const size_t bytes = message.Length();
  absl::MutexLock lock(&mutex_);
  const auto has_room = [this, bytes]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closing_ || broken_ || outgoing_bytes_ == 0 ||
           outgoing_bytes_ + bytes <= options_.max_queued_bytes;
  };
  if (!has_room() && OnQueueThread()) {
    // Waiting here would wait for ourselves. The peer leaves megabytes of answers unread: give it
    // up.
    const absl::Status why = absl::ResourceExhaustedError("the peer does not read what it is sent");
    broken_ = true;
    BeginCloseLocked(why);
    Cancel();  // the write in flight would wait for the peer
    return why;
  }
  if (!has_room() && !room_.AwaitUntil(&mutex_, base::CondVar::After(timeout), has_room)) {
    return absl::DeadlineExceededError("the peer does not read what it is sent");
  }
  if (closing_) return absl::UnavailableError(absl::StrCat("link closed: ", why_.message()));
  if (broken_) return absl::UnavailableError("link broken");
  outgoing_bytes_ += bytes;
  outgoing_.push_back(std::move(message));
  if (!writing_) {
    writing_ = true;
    ++pending_;
    // Runs down to the socket on this thread: no other has to wake up for it.
    StartWrite(outgoing_.front(), TagOf(Op::kWrite));
  }
  return absl::OkStatus();
}

void GrpcStream::Close(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  BeginCloseLocked(why.ok() ? absl::CancelledError("closed") : why);
}

void GrpcStream::Detach() {
  absl::MutexLock lock(&mutex_);
  BeginCloseLocked(absl::CancelledError("link destroyed"));
  if (OnQueueThread()) {
    detached_ = true;
    listener_ = nullptr;
    return;
  }
  mutex_.Await(absl::Condition(&done_));
}

bool GrpcStream::done() const {
  absl::MutexLock lock(&mutex_);
  return done_;
}

void GrpcStream::BeginCloseLocked(const absl::Status& why) {
  if (closing_) {
    if (!begun_) why_ = why;
    if (broken_) AdvanceCloseLocked();
    return;
  }
  closing_ = true;
  room_.SignalAll();
  why_ = why;
  if (!done_) {
    lingering_ = true;
    linger_.Set(queue_, MonotonicIn(kLinger), TagOf(Op::kLinger));
  }
  AdvanceCloseLocked();
}

void GrpcStream::DropQueueLocked() {
  while (outgoing_.size() > (writing_ ? 1u : 0u)) {
    outgoing_bytes_ -= outgoing_.back().Length();
    outgoing_.pop_back();
  }
}

void GrpcStream::AdvanceCloseLocked() {
  if (!begun_ || !closing_ || finishing_) return;
  if (broken_) DropQueueLocked();
  if (writing_ || !outgoing_.empty()) return;
  if (HasWritesDone()) {
    if (reading_ && !writes_done_) {
      writes_done_ = true;
      ++pending_;
      StartWritesDone(TagOf(Op::kWritesDone));
    }
    if (pending_ > 0) return;  // the read ends when the peer does, or the linger alarm cancels
  }
  finishing_ = true;
  ++pending_;
  StartFinish(why_, TagOf(Op::kFinish));
}

void GrpcStream::OnTag(Op op, bool ok) {
  absl::Status bad;
  if (op == Op::kRead && ok) bad = Deliver();
  std::shared_ptr<GrpcStream> keep;
  LinkListener* tell = nullptr;
  absl::Status why;
  {
    absl::MutexLock lock(&mutex_);
    room_.SignalAll();  // they look when this lock is let go
    if (!bad.ok()) {
      broken_ = true;
      BeginCloseLocked(bad);
    }
    if (op == Op::kRead && ok && !finishing_) {
      // Also while closing: the end of the peer's stream is the sign that it took everything.
      StartRead(&incoming_, TagOf(Op::kRead));
      return;
    }
    if (op != Op::kLinger) --pending_;
    switch (op) {
      case Op::kStart:
        break;
      case Op::kRead:
        reading_ = false;
        if (!closing_) {
          closed_by_peer_ = true;
          broken_ = true;
          BeginCloseLocked(absl::UnavailableError("the peer closed the stream"));
        }
        break;
      case Op::kWrite: {
        outgoing_bytes_ -= outgoing_.front().Length();
        outgoing_.pop_front();
        writing_ = false;
        if (!ok) {
          broken_ = true;
          // The read, which fails as well, knows better why.
          if (closing_ || !reading_) BeginCloseLocked(absl::UnavailableError("write failed"));
          DropQueueLocked();
        } else if (!outgoing_.empty()) {
          writing_ = true;
          ++pending_;
          StartWrite(outgoing_.front(), TagOf(Op::kWrite));
        }
        break;
      }
      case Op::kWritesDone:
        break;
      case Op::kFinish:
        finished_ = true;
        if (closed_by_peer_) {
          if (absl::Status said = FinishStatus(); !said.ok()) why_ = said;
        }
        break;
      case Op::kLinger:
        lingering_ = false;
        if (ok && !finished_) {
          broken_ = true;
          Cancel();
        }
        break;
    }
    AdvanceCloseLocked();
    if (!finished_ || pending_ > 0) return;
    if (lingering_) {
      linger_.Cancel();  // its tag is the last
      return;
    }
    tell = listener_;
    why = why_;
  }
  if (tell != nullptr) tell->OnClosed(why);
  keep = shared_from_this();  // whoever waits in Detach() may drop the last reference
  absl::MutexLock lock(&mutex_);
  done_ = true;
}

absl::Status GrpcStream::Deliver() {
  LinkListener* listener;
  {
    absl::MutexLock lock(&mutex_);
    listener = closing_ ? nullptr : listener_;
  }
  absl::Status bad;
  if (listener != nullptr) {
    grpc::Slice message;
    if (!incoming_.TrySingleSlice(&message).ok() && !incoming_.DumpToSingleSlice(&message).ok()) {
      return absl::InternalError("a received message could not be read");
    }
    // SAFETY: char may alias the slice's bytes, which live until the end of this block.
    const absl::string_view bytes(reinterpret_cast<const char*>(message.begin()), message.size());
    absl::string_view frames;
    v1::FrameBatch batch;
    if (UnwrapInPlace(bytes, &frames)) {
      listener->OnMessage(frames);
    } else if (batch.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      listener->OnMessage(batch.frames());
    } else {
      bad = absl::InvalidArgumentError("the peer's message is not a FrameBatch");
    }
  }
  incoming_.Clear();
  return bad;
}

}  // namespace romulus::wire
