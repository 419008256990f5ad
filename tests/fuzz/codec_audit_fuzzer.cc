// A version of the protocol, then any bytes as the body of an EpochAudit frame: what was read is in
// memory, bounded, and written the same way again.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "codec/audit_records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace romulus;
  if (size == 0) return 0;
  const codec::Dialect dialect(data[0]);
  const absl::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const memory::MemoryLayout layout = *memory::MemoryLayout::ForMib(4096);  // with a hole
  const codec::DiskLayout disks = {{0, 3 * codec::kDiskBlockBytes + 512}, {2, 1u << 30}};
  const auto hashes = codec::ParseAudit(body, dialect, layout, disks);
  if (!hashes.ok()) return 0;
  uint64_t pages = 0;
  uint64_t blocks = 0;
  for (const codec::AuditedPages& run : hashes->pages) {
    pages += run.page_count();
    if ((run.hashes.size() - 1) * run.group_pages() >= run.page_count()) std::abort();
    if (run.hashes.size() * run.group_pages() < run.page_count()) std::abort();
    for (uint64_t i = 0; i < run.page_count(); ++i) {
      if (!layout.Contains(Gfn(run.first.value() + i))) std::abort();
    }
  }
  for (const epoch::DiskAuditRun& run : hashes->blocks) {
    const codec::DiskSize* const disk = codec::FindDisk(disks, run.disk);
    if (disk == nullptr) std::abort();
    blocks += run.hashes.size();
    if (run.first_block + run.hashes.size() > codec::DiskBlockCount(disk->size_bytes)) std::abort();
  }
  if (pages + blocks == 0 || pages > epoch::kMaxAuditPages || blocks > epoch::kMaxAuditBlocks) {
    std::abort();
  }
  std::string again;
  codec::AppendAuditRuns(hashes->pages, &again);
  codec::AppendAuditRuns(hashes->blocks, &again);
  if (again != body) std::abort();
  return 0;
}
