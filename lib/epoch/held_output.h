// Something that the guest says to the outside and that waits for its epoch's ack (P1): the console
// stream (OutputGate), a network card's frames (FrameGate). The checkpoint cuts all of them at an
// epoch, the ack releases them, the role decides whether they hold at all.
//
// Cut and UndoCut come from the checkpoint thread with the guest paused, Release from whoever hears
// acks, the rest from the control loop.
#ifndef ROMULUS_EPOCH_HELD_OUTPUT_H_
#define ROMULUS_EPOCH_HELD_OUTPUT_H_

#include <cstdint>

#include "absl/time/time.h"
#include "base/types.h"

namespace romulus::epoch {

class HeldOutput {
 public:
  virtual ~HeldOutput() = default;

  // Ends the epoch's share; whether there is anything in it. From the first cut of a stream on the
  // output holds.
  virtual bool CutAt(EpochId epoch) = 0;
  // The checkpoint that made the newest cut failed: its share belongs to the next epoch.
  virtual void UndoCut(EpochId epoch) = 0;
  // Lets out everything up to and including `epoch`.
  virtual void Release(EpochId epoch) = 0;

  // Before the first cut of a new replication stream: everything still held becomes part of it.
  virtual void BeginStream() = 0;
  // From now on output waits, although no epoch is cut.
  virtual void Hold() = 0;
  // Lets out everything and opens: solo.
  virtual void Open() = 0;
  // Throws away what is held: this node lost the term (P3). Stays holding.
  virtual void Discard() = 0;

  virtual uint64_t held_bytes() const = 0;

  // Until what was released has left, if this keeps it meanwhile; whether it has. Any thread.
  virtual bool AwaitEmitted(absl::Duration timeout) {
    (void)timeout;
    return true;
  }
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_HELD_OUTPUT_H_
