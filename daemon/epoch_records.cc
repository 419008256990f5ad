#include "daemon/epoch_records.h"

#include <algorithm>
#include <string>
#include <utility>

#include "codec/page_encoding.h"

namespace romulus::daemon {
namespace {

using codec::PageEncoding;
using codec::PageEncodingName;

std::string Name(PageEncoding encoding) { return std::string(PageEncodingName(encoding)); }

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
                .sent = {},
                .ack_latency_ns = 0};
  absl::MutexLock lock(&mutex_);
  ++by_reason_[static_cast<size_t>(staged.reason)];
  records_.push_back(record);
  if (records_.size() > capacity_) records_.pop_front();
}

void EpochRecords::Sent(const wire::EpochSent& sent) {
  metrics_->Encoded(static_cast<size_t>(PageEncoding::kZero), sent.pages_zero, sent.bytes_zero);
  metrics_->Encoded(static_cast<size_t>(PageEncoding::kRaw), sent.pages_raw, sent.bytes_raw);
  metrics_->Encoded(static_cast<size_t>(PageEncoding::kDelta), sent.pages_delta, sent.bytes_delta);
  metrics_->Sent(sent.bytes_total);
  Record record;
  {
    absl::MutexLock lock(&mutex_);
    sent_.pages_zero += sent.pages_zero;
    sent_.pages_raw += sent.pages_raw;
    sent_.pages_delta += sent.pages_delta;
    sent_.bytes_zero += sent.bytes_zero;
    sent_.bytes_raw += sent.bytes_raw;
    sent_.bytes_delta += sent.bytes_delta;
    sent_.bytes_total += sent.bytes_total;
    Record* found = Find(sent.term, sent.epoch);
    if (found == nullptr) return;
    found->sent = sent;
    record = *found;
  }
  metrics_->EpochCut({.cut_reason = static_cast<size_t>(record.reason),
                      .pages = record.pages,
                      .pause_ns = record.phases.pause_ns,
                      .interval_ns = record.interval_ns,
                      .phase_ns = record.phases.ns});
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
    bytes[Name(PageEncoding::kZero)] = record.sent.bytes_zero;
    bytes[Name(PageEncoding::kRaw)] = record.sent.bytes_raw;
    bytes[Name(PageEncoding::kDelta)] = record.sent.bytes_delta;
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

void EpochRecords::FillCounters(romulus::v1::Counters& counters) const {
  absl::MutexLock lock(&mutex_);
  counters.set_epochs_acked(acked_);
  counters.set_pages(pages_acked_);
  counters.set_bytes_sent(sent_.bytes_total);
  for (size_t i = 0; i < by_reason_.size(); ++i) {
    (*counters.mutable_epochs_by_reason())[std::string(epoch::kCutReasonNames[i])] = by_reason_[i];
  }
  auto& pages = *counters.mutable_pages_by_encoding();
  pages[Name(PageEncoding::kZero)] = sent_.pages_zero;
  pages[Name(PageEncoding::kRaw)] = sent_.pages_raw;
  pages[Name(PageEncoding::kDelta)] = sent_.pages_delta;
  auto& bytes = *counters.mutable_bytes_by_encoding();
  bytes[Name(PageEncoding::kZero)] = sent_.bytes_zero;
  bytes[Name(PageEncoding::kRaw)] = sent_.bytes_raw;
  bytes[Name(PageEncoding::kDelta)] = sent_.bytes_delta;
}

void RecordingSink::StagePages(Term term, EpochId epoch, epoch::PageBatch batch) {
  next_->StagePages(term, epoch, std::move(batch));
}

void RecordingSink::Submit(epoch::StagedEpoch epoch) {
  records_->Submitted(epoch);
  next_->Submit(std::move(epoch));
}

void RecordingSink::Abort(Term term, EpochId epoch) { next_->Abort(term, epoch); }

}  // namespace romulus::daemon
