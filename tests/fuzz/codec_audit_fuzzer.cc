// Any bytes as the body of an EpochAudit frame: what was read is in memory, bounded, and written
// the same way again.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "codec/audit_records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace romulus;
  const absl::string_view body(reinterpret_cast<const char*>(data), size);
  const memory::MemoryLayout layout = *memory::MemoryLayout::ForMib(4096);  // with a hole
  const auto runs = codec::ParseAuditRuns(body, layout);
  if (!runs.ok()) return 0;
  uint64_t pages = 0;
  for (const epoch::AuditRun& run : *runs) {
    pages += run.hashes.size();
    for (uint64_t i = 0; i < run.hashes.size(); ++i) {
      if (!layout.Contains(Gfn(run.first.value() + i))) std::abort();
    }
  }
  if (pages == 0 || pages > epoch::kMaxAuditPages) std::abort();
  std::string again;
  codec::AppendAuditRuns(*runs, &again);
  if (again != body) std::abort();
  return 0;
}
