// Any bytes as the body of a disk frame (first byte 0) or of hashes (1): records lie within their
// disks and the body, and what was read is written the same way again.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/bytes.h"
#include "codec/disk_records.h"

namespace romulus::codec {
namespace {

void Records(absl::string_view body) {
  const DiskLayout layout = {{0, 1 << 20}, {3, uint64_t{1} << 40}};
  DiskRecordReader reader(body, layout);
  std::string again;
  DiskDigest digest;
  while (!reader.done()) {
    const absl::StatusOr<DiskRecord> record = reader.Next();
    if (!record.ok()) break;
    const DiskSize* disk = FindDisk(layout, record->disk);
    if (disk == nullptr || record->offset_bytes > disk->size_bytes ||
        record->size_bytes > disk->size_bytes - record->offset_bytes) {
      std::abort();
    }
    digest.Add(record->raw);
    const epoch::DiskWrite write = ToDiskWrite(*record);
    AppendDiskRecord(KindOf(write.kind), write.disk, write.offset_bytes, write.size_bytes,
                     write.data, &again);
  }
  if (again != body.substr(0, again.size())) std::abort();
}

void Hashes(absl::string_view body) {
  const absl::StatusOr<DiskHashes> hashes = ParseDiskHashes(body);
  if (!hashes.ok()) return;
  std::string again;
  AppendDiskHashes(*hashes, &again);
  if (again != body) std::abort();
}

}  // namespace
}  // namespace romulus::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    romulus::codec::Records(body);
  } else {
    romulus::codec::Hashes(body);
  }
  return 0;
}
