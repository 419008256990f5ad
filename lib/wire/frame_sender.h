// The one place where a primary's frames are numbered and sent: encoder, frame writer and link
// behind one lock, so that epochs, full sync, heartbeats and goodbye come out in the order of their
// sequence numbers, whichever thread they come from. Any thread; a call waits for the link's flow
// control.
#ifndef ROMULUS_WIRE_FRAME_SENDER_H_
#define ROMULUS_WIRE_FRAME_SENDER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/cond_var.h"
#include "base/types.h"
#include "codec/epoch_encoder.h"
#include "codec/frame.h"
#include "wire/link.h"

namespace romulus::wire {

class FrameSender {
 public:
  // `clock` outlives the sender. Errors: those of EpochEncoder::Create.
  static absl::StatusOr<std::unique_ptr<FrameSender>> Create(Gfn gfn_end,
                                                             const codec::EncoderOptions& options,
                                                             const base::Clock* clock);

  // A new stream on `link`, which outlives its use here: sequence numbers start over. Until then
  // everything fails with Unavailable.
  void Start(Link* link);
  // Before the first page: what the peer's HelloReply said. Previous versions are forgotten. All
  // frames from now on are of `dialect`.
  void StartPages(size_t peer_max_body_bytes, codec::Dialect dialect);

  using Send = codec::EpochEncoder::Send;
  // Runs `work` with the encoder. Small messages given to `send` are collected up to `batch_bytes`;
  // all are on the link when this returns, in order. `send_ns`, if not null, gets the time spent in
  // the link. Errors: what `work` returned; the link's.
  absl::Status WithEncoder(size_t batch_bytes,
                           absl::FunctionRef<absl::Status(codec::EpochEncoder&, Send)> work,
                           uint64_t* send_ns = nullptr);

  // One control frame, also between the pages of an epoch or of a full sync. Gives up with
  // DeadlineExceeded, having sent nothing, if others keep the link busy for `timeout`; errors also:
  // FailedPrecondition, likewise, if the dialect has no such frame.
  absl::Status SendControl(absl::Duration timeout, codec::FrameKind kind, Term term, EpochId epoch,
                           const google::protobuf::MessageLite& body);

  // Of messages, handed to the link so far on this stream. Any thread.
  uint64_t sent_bytes() const { return sent_bytes_.load(std::memory_order_relaxed); }
  // What the link achieves, for the encoder; 0: not known. Any thread.
  void SetLinkRate(uint64_t bytes_per_second) {
    link_rate_.store(bytes_per_second, std::memory_order_relaxed);
  }
  // In use on this stream when the encoder last worked. Any thread.
  codec::Compression compression() const { return compression_.load(std::memory_order_relaxed); }

 private:
  explicit FrameSender(const base::Clock* clock) : clock_(clock) {}

  const base::Clock* const clock_;
  absl::Mutex mutex_;   // held while sending: order on the link is the order of numbers
  base::CondVar free_;  // not busy any more
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  Link* link_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  codec::Dialect dialect_ ABSL_GUARDED_BY(mutex_);  // of whoever is busy next
  codec::FrameWriter frames_;
  std::unique_ptr<codec::EpochEncoder> encoder_;
  std::atomic<uint64_t> sent_bytes_{0};
  std::atomic<uint64_t> link_rate_{0};
  std::atomic<codec::Compression> compression_{codec::Compression::kNone};
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_FRAME_SENDER_H_
