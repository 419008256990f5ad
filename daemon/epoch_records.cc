#include "daemon/epoch_records.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "codec/page_encoding.h"

namespace romulus::daemon {
namespace {

// 0 is no encoding.
constexpr size_t kFirstEncoding = 1;

std::string Name(size_t encoding) { return std::string(codec::kPageEncodingNames[encoding]); }

uint64_t Percentile(std::vector<uint64_t>& values, double share) {
  if (values.empty()) return 0;
  const auto nth =
      values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

}  // namespace

EpochRecords::EpochRecords(size_t capacity, metrics::Metrics* metrics)
    : capacity_(capacity), metrics_(metrics), by_reason_(epoch::kCutReasonNames.size()) {}

EpochRecords::Record* EpochRecords::Find(Term term, EpochId epoch) {
  if (records_.empty() || records_.back().term != term || epoch > records_.back().epoch) {
    return nullptr;
  }
  const uint64_t back = records_.back().epoch.value() - epoch.value();
  if (back >= records_.size()) return nullptr;
  Record& found = records_[records_.size() - 1 - back];
  return found.term == term && found.epoch == epoch ? &found : nullptr;
}

void EpochRecords::Submitted(const epoch::StagedEpoch& staged) {
  Record record{.term = staged.term,
                .epoch = staged.epoch,
                .reason = staged.reason,
                .pages = staged.page_count,
                .interval_ns = staged.interval_ns,
                .phases = staged.phases,
                .encoded = {},
                .ack_latency_ns = 0};
  absl::MutexLock lock(&mutex_);
  ++by_reason_[static_cast<size_t>(staged.reason)];
  records_.push_back(record);
  if (records_.size() > capacity_) records_.pop_front();
}

void EpochRecords::Sent(const wire::EpochSent& sent) {
  const codec::EncodeStats& encoded = sent.encoded;
  for (size_t i = kFirstEncoding; i < codec::kPageEncodingEnd; ++i) {
    if (encoded.pages[i] != 0) metrics_->Encoded(i, encoded.pages[i], encoded.bytes[i]);
  }
  metrics_->Sent(encoded.message_bytes);
  Compressed(encoded.compression);
  Record record;
  {
    absl::MutexLock lock(&mutex_);
    for (size_t i = kFirstEncoding; i < codec::kPageEncodingEnd; ++i) {
      sum_.pages[i] += encoded.pages[i];
      sum_.bytes[i] += encoded.bytes[i];
    }
    sum_.message_bytes += encoded.message_bytes;
    Record* found = Find(sent.term, sent.epoch);
    if (found == nullptr) return;
    found->encoded = encoded;
    record = *found;
  }
  metrics_->EpochCut({.cut_reason = static_cast<size_t>(record.reason),
                      .pages = record.pages,
                      .pause_ns = record.phases.pause_ns,
                      .interval_ns = record.interval_ns,
                      .phase_ns = record.phases.ns});
}

void EpochRecords::Compressed(const codec::CompressionStats& stats) {
  for (size_t i = 0; i < codec::kCompressionEnd; ++i) {
    if (stats.raw_bytes[i] != 0) metrics_->Compressed(i, stats.raw_bytes[i], stats.wire_bytes[i]);
  }
}

void EpochRecords::Acked(const wire::EpochAck& ack) {
  metrics_->EpochAcked(ack.submit_to_ack_ns);
  absl::MutexLock lock(&mutex_);
  ++acked_;
  pages_acked_ += ack.page_count;
  if (Record* found = Find(ack.term, ack.epoch)) found->ack_latency_ns = ack.submit_to_ack_ns;
}

std::vector<romulus::v1::EpochRecord> EpochRecords::Last(size_t count) const {
  std::vector<romulus::v1::EpochRecord> last;
  absl::MutexLock lock(&mutex_);
  const size_t first = records_.size() - std::min(count, records_.size());
  for (size_t i = first; i < records_.size(); ++i) {
    const Record& record = records_[i];
    romulus::v1::EpochRecord& out = last.emplace_back();
    out.set_term(record.term.value());
    out.set_epoch(record.epoch.value());
    out.set_reason(std::string(epoch::CutReasonName(record.reason)));
    out.set_pages(record.pages);
    auto& bytes = *out.mutable_bytes_by_encoding();
    for (size_t e = kFirstEncoding; e < codec::kPageEncodingEnd; ++e) {
      if (record.encoded.bytes[e] != 0) bytes[Name(e)] = record.encoded.bytes[e];
    }
    for (size_t phase = 0; phase < epoch::kPhaseCount; ++phase) {
      romulus::v1::PhaseTime& time = *out.add_phases();
      time.set_phase(std::string(epoch::kPhaseNames[phase]));
      time.set_ns(record.phases.ns[phase]);
    }
    out.set_pause_ns(record.phases.pause_ns);
    out.set_interval_ns(record.interval_ns);
    out.set_ack_latency_ns(record.ack_latency_ns);
  }
  return last;
}

romulus::v1::Pause EpochRecords::Percentiles() const {
  std::vector<uint64_t> pauses;
  std::vector<uint64_t> latencies;
  {
    absl::MutexLock lock(&mutex_);
    for (const Record& record : records_) {
      pauses.push_back(record.phases.pause_ns);
      if (record.ack_latency_ns != 0) latencies.push_back(record.ack_latency_ns);
    }
  }
  romulus::v1::Pause pause;
  pause.set_epochs(pauses.size());
  pause.set_p50_ns(Percentile(pauses, 0.50));
  pause.set_p99_ns(Percentile(pauses, 0.99));
  pause.set_ack_latency_p50_ns(Percentile(latencies, 0.50));
  pause.set_ack_latency_p99_ns(Percentile(latencies, 0.99));
  return pause;
}

uint64_t EpochRecords::MeanPages() const {
  absl::MutexLock lock(&mutex_);
  uint64_t pages = 0;
  for (const Record& record : records_) pages += record.pages;
  return records_.empty() ? 0 : pages / records_.size();
}

void EpochRecords::FillCounters(romulus::v1::Counters& counters) const {
  absl::MutexLock lock(&mutex_);
  counters.set_epochs_acked(acked_);
  counters.set_pages(pages_acked_);
  counters.set_bytes_sent(sum_.message_bytes);
  for (size_t i = 0; i < by_reason_.size(); ++i) {
    (*counters.mutable_epochs_by_reason())[std::string(epoch::kCutReasonNames[i])] = by_reason_[i];
  }
  for (size_t e = kFirstEncoding; e < codec::kPageEncodingEnd; ++e) {
    (*counters.mutable_pages_by_encoding())[Name(e)] = sum_.pages[e];
    (*counters.mutable_bytes_by_encoding())[Name(e)] = sum_.bytes[e];
  }
}

void RecordingSink::StagePages(Term term, EpochId epoch, epoch::PageBatch batch) {
  next_->StagePages(term, epoch, std::move(batch));
}

void RecordingSink::Submit(epoch::StagedEpoch epoch) {
  if (std::exchange(first_, false)) {
    // The gate has been shut since this epoch was cut: what waits ends where the epoch's bytes
    // begin.
    ConsoleBytes before = console_->Unwritten();
    if (!before.bytes.empty() && before.offset + before.bytes.size() == epoch.console.offset) {
      epoch.console.bytes.insert(0, before.bytes);
      epoch.console.offset = before.offset;
    }
  }
  if (const std::optional<uint64_t> written = console_->written_offset()) {
    epoch.console_released = std::min(epoch.console_released, *written);
  }
  records_->Submitted(epoch);
  next_->Submit(std::move(epoch));
}

void RecordingSink::Abort(Term term, EpochId epoch) { next_->Abort(term, epoch); }

}  // namespace romulus::daemon
