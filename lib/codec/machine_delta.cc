#include "codec/machine_delta.h"

#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/page_digest.h"
#include "codec/page_encoding.h"
#include "memory/memory_layout.h"
#include "romulus/v1/replication.pb.h"
#include "state/machine_state.h"

namespace romulus::codec {
namespace {

constexpr uint64_t kMaxStateMib = state::kMaxSerializedBytes >> 20;
static_assert(kMaxStateMib << 20 == state::kMaxSerializedBytes);

size_t WholePages(size_t bytes) { return (bytes + kPageSize - 1) / kPageSize; }

void FillUp(std::string& state) { state.resize(WholePages(state.size()) * kPageSize); }

PageBytes PageOf(const std::string& filled, size_t page) {
  return PageBytes(std::as_bytes(std::span(filled)).subspan(page * kPageSize, kPageSize));
}

MutablePageBytes MutablePageOf(std::string& filled, size_t page) {
  return MutablePageBytes(
      std::as_writable_bytes(std::span(filled)).subspan(page * kPageSize, kPageSize));
}

absl::Status CheckSize(const v1::EpochCommit& commit) {
  if (commit.machine_bytes() != 0 && commit.machine_bytes() <= state::kMaxSerializedBytes) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("delta of a machine state of ", commit.machine_bytes(), " bytes"));
}

}  // namespace

void MachineDeltaWriter::Put(const std::string& state, const Dialect& dialect,
                             v1::EpochCommit* commit) {
  commit->set_machine_digest(HashBytes(state));
  const size_t bytes = state.size();
  now_.assign(state);
  FillUp(now_);
  std::string delta;
  if (dialect.version() >= kMachineDeltaSince && !before_.empty()) {
    before_.resize(now_.size());  // zeros beyond its end, as for the reader
    for (size_t page = 0; page < WholePages(bytes); ++page) {
      AppendPage(dialect, Gfn(page), PageOf(now_, page), PageOf(before_, page).data(), &delta);
    }
  }
  before_.swap(now_);
  if (delta.empty() || delta.size() >= bytes) {
    commit->set_machine(state);
    return;
  }
  commit->set_machine_delta(std::move(delta));
  commit->set_machine_bytes(static_cast<uint32_t>(bytes));
}

absl::StatusOr<std::string> MachineDeltaReader::Take(const v1::EpochCommit& commit,
                                                     const Dialect& dialect) const {
  if (commit.machine_delta().empty()) return commit.machine();
  if (absl::Status status = CheckSize(commit); !status.ok()) return status;
  if (before_.empty()) {
    return absl::InvalidArgumentError("delta of a machine state, without one before it");
  }
  const absl::StatusOr<memory::MemoryLayout> layout = memory::MemoryLayout::ForMib(kMaxStateMib);
  if (!layout.ok()) return layout.status();
  const size_t pages = WholePages(commit.machine_bytes());
  std::string state = before_;
  state.resize(pages * kPageSize);
  PageRecordReader records(commit.machine_delta(), *layout, dialect);
  uint64_t next = 0;  // ascending, so that a run of zeros cannot come again and again
  while (!records.done()) {
    const absl::StatusOr<PageRecord> record = records.Next();
    if (!record.ok()) return record.status();
    const uint64_t first = record->gfn.value();
    if (first < next || first >= pages || record->count > pages - first) {
      return absl::InvalidArgumentError(
          absl::StrCat("delta of a machine state: page ", first, " of ", pages, " after ", next));
    }
    next = first + record->count;
    for (uint64_t page = first; page < first + record->count; ++page) {
      const MutablePageBytes into = MutablePageOf(state, page);
      DecodePage(*record, into, into);
    }
  }
  state.resize(commit.machine_bytes());
  return state;
}

void MachineDeltaReader::Keep(std::string state) {
  before_ = std::move(state);
  FillUp(before_);
}

}  // namespace romulus::codec
