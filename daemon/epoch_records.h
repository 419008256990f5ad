// What is remembered of the last epochs: for `romulusctl epochs`, for p50/p99, and for the metrics
// that need both what the checkpoint measured and what the sender did. Bounded. Any thread;
// Submitted() comes from the checkpoint thread right behind the pause and only copies numbers.
#ifndef ROMULUS_DAEMON_EPOCH_RECORDS_H_
#define ROMULUS_DAEMON_EPOCH_RECORDS_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "codec/epoch_encoder.h"
#include "daemon/console.h"
#include "epoch/staged_epoch.h"
#include "metrics/metrics.h"
#include "romulus/v1/control.pb.h"
#include "wire/epoch_sender.h"

namespace romulus::daemon {

class EpochRecords {
 public:
  // `metrics` outlives the records. Keeps the last `capacity` epochs.
  EpochRecords(size_t capacity, metrics::Metrics* metrics);

  void Submitted(const epoch::StagedEpoch& staged);
  void Sent(const wire::EpochSent& sent);
  void Acked(const wire::EpochAck& ack);
  // Bodies of a full sync; Sent() has those of epochs.
  void Compressed(const codec::CompressionStats& stats);

  // The last `count`, oldest first.
  std::vector<romulus::v1::EpochRecord> Last(size_t count) const;
  romulus::v1::Pause Percentiles() const;
  // Dirty pages of an epoch, of those that are kept; 0: none is.
  uint64_t MeanPages() const;
  // Adds what is counted here.
  void FillCounters(romulus::v1::Counters& counters) const;

 private:
  struct Record {
    Term term;
    EpochId epoch;
    epoch::CutReason reason;
    uint64_t pages = 0;
    uint64_t interval_ns = 0;
    epoch::PhaseTimes phases;
    codec::EncodeStats encoded;
    uint64_t ack_latency_ns = 0;
  };
  // Epochs of a term follow each other, so a record is found by subtraction.
  Record* Find(Term term, EpochId epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t capacity_;
  metrics::Metrics* const metrics_;
  mutable absl::Mutex mutex_;
  std::deque<Record> records_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> by_reason_ ABSL_GUARDED_BY(mutex_);
  codec::EncodeStats sum_ ABSL_GUARDED_BY(mutex_);
  uint64_t acked_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t pages_acked_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Stands between the checkpoint and the sender of one stream. Records epochs as they pass, and
// corrects what they say of released output: bytes that were released but still wait in the
// console's queue die with this process, so the secondary must keep them. It knows those of its own
// stream; what was said before, solo, and still waits, travels in front of the first epoch's bytes.
// Checkpoint thread.
class RecordingSink final : public epoch::EpochSink {
 public:
  RecordingSink(EpochRecords* records, const Console* console, epoch::EpochSink* next)
      : records_(records), console_(console), next_(next) {}
  void StagePages(Term term, EpochId epoch, epoch::PageBatch batch) override;
  void Submit(epoch::StagedEpoch epoch) override;
  void Abort(Term term, EpochId epoch) override;

 private:
  EpochRecords* records_;
  const Console* console_;
  epoch::EpochSink* next_;
  bool first_ = true;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_EPOCH_RECORDS_H_
