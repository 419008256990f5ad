// The pipeline behind the checkpoint: queues staged epochs, encodes and sends them on its own
// thread while the guest runs, knows which are not acked, and keeps heartbeats going.
//
// EpochSink calls come from the checkpoint thread and never block. What bounds the queue is the
// staging memory that the batches hold, and max_unacked_epochs: the checkpoint loop asks
// AwaitRoom() before it cuts an epoch (P6: at a cap the guest waits). OnAck comes from the link's
// reader thread. Staging memory goes back to its pool as soon as its pages are encoded.
#ifndef ROMULUS_WIRE_EPOCH_SENDER_H_
#define ROMULUS_WIRE_EPOCH_SENDER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/types.h"
#include "codec/epoch_encoder.h"
#include "epoch/staged_epoch.h"

namespace romulus::wire {

class FrameSender;

struct EpochAck {
  Term term;
  EpochId epoch;
  uint64_t page_count = 0;
  uint64_t submit_to_ack_ns = 0;  // from Submit(): queue, encoding, both ways, secondary's work
  uint64_t send_to_ack_ns = 0;    // from the last byte handed to the link
  uint64_t replica_staged_bytes = 0;
};

struct EpochSent {
  Term term;
  EpochId epoch;
  uint64_t page_count = 0;
  codec::EncodeStats encoded;  // pages and bytes by encoding
  uint64_t queue_ns = 0;       // from Submit() until encoding began
  uint64_t encode_ns = 0;      // of this thread
  uint64_t send_ns = 0;        // inside Link::Send
};

// What the secondary has found in comparing its pages and blocks of disks with their hashes
// (romulus.v1.Ack).
struct AuditReport {
  struct Mismatch {
    EpochId epoch;
    Gfn gfn;  // in the guest's memory
  };
  struct BlockMismatch {
    EpochId epoch;
    epoch::DiskBlock block;  // of a replicated disk
  };
  uint64_t audited_pages = 0;        // on this stream, so far
  uint64_t mismatched_pages = 0;     // of them
  std::vector<Mismatch> mismatches;  // of those, what is new; at most epoch::kMaxAuditPages
  // The same of blocks; at most epoch::kMaxAuditBlocks.
  uint64_t audited_blocks = 0;
  uint64_t mismatched_blocks = 0;
  std::vector<BlockMismatch> block_mismatches;
};

// Owned by wire. Must not block; may not destroy the sender.
class AckListener {
 public:
  virtual ~AckListener() = default;
  // Each epoch once, in order, on the link's reader thread. The epoch is committed: its output may
  // go.
  virtual void OnEpochAcked(const EpochAck& ack) = 0;
  // Each epoch once, on the sender's thread, after its last frame went to the link.
  virtual void OnEpochSent(const EpochSent& sent) { (void)sent; }
  // Whenever more has been compared; on the link's reader thread. An error ends the stream, whose
  // peer is told why.
  virtual absl::Status OnAudited(const AuditReport& report) {
    (void)report;
    return absl::OkStatus();
  }
  // The stream is gone; nothing more will be acked. Once, and last; on the sender's thread.
  virtual void OnSenderClosed(const absl::Status& why) = 0;
};

struct EpochSenderOptions {
  Term term{};
  uint64_t max_unacked_epochs = 256;
  // An epoch of a guest that rests stands for a heartbeat.
  uint64_t heartbeat_interval_ns = 50'000'000;
  size_t batch_bytes = 64u << 10;  // small epochs that wait are sent together up to this size
  // After one of several messages that follow each other soon, small epochs that hold no output
  // wait so long for others to leave with them; 0: none waits. At thousands of epochs a second,
  // most of an epoch's cost at both ends is waking up for it.
  uint64_t pace_ns = 1'000'000;
};

class EpochSender final : public epoch::EpochSink {
 public:
  // All outlive this object. Its thread starts now; heartbeats begin with StartHeartbeats().
  EpochSender(const EpochSenderOptions& options, FrameSender* frames, const base::Clock* clock,
              AckListener* listener);
  ~EpochSender() override;  // Close(), join

  void StagePages(Term term, EpochId epoch, epoch::PageBatch batch) override;
  void Submit(epoch::StagedEpoch epoch) override;
  void Abort(Term term, EpochId epoch) override;

  // Tells the listener. Errors: the listener's; why it closed.
  absl::Status OnAudited(const AuditReport& report);
  // The secondary's copies of these pages are not what they should be: in every epoch that is
  // submitted after this call they travel whole.
  void ForgetPrevious(std::vector<Gfn> gfns);
  // Pages and blocks whose hashes have been sent.
  uint64_t audit_pages_sent() const;
  uint64_t audit_blocks_sent() const;

  // Waits until fewer than max_unacked_epochs are on their way. Errors: DeadlineExceeded; why it
  // closed.
  absl::Status AwaitRoom(absl::Duration timeout);
  // Waits until all that was submitted is acked. Errors: as AwaitRoom.
  absl::Status AwaitAllAcked(absl::Duration timeout);
  uint64_t unacked_epochs() const;
  // The newest acked epoch; 0 if none.
  EpochId acked() const;

  // All epochs up to `epoch` are committed over there. Errors: InvalidArgument (a lying peer:
  // another term, or an epoch that was never sent).
  absl::Status OnAck(Term term, EpochId epoch, uint64_t replica_staged_bytes);
  void StartHeartbeats();
  // What the next heartbeats echo and carry.
  void OnPeerHeartbeat(uint64_t peer_sent_monotonic_ns);
  void SetConsoleReleased(uint64_t offset);

  // Stops everything: the queue is dropped, waiters wake, the listener hears OnSenderClosed(why)
  // once. Does not close the link, and what is blocked in it stays so until its owner does. Any
  // thread; idempotent; does not wait.
  void Close(const absl::Status& why);
  // After Close(): waits until OnSenderClosed has returned. Not from the listener.
  void Join();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_EPOCH_SENDER_H_
