// Any bytes as a journal: refused, or its writes are within the disks and a second reading finds
// the same. Checksums are made right where the bytes have the places for them, or nothing would
// come past them.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/bytes.h"
#include "replica/disk_journal.h"
#include "replica/disk_journal_format.h"
#include "support/fault_files.h"

namespace {

using namespace romulus;           // NOLINT: a fuzzer
using namespace romulus::replica;  // NOLINT

constexpr uint64_t kSizes[] = {64 * 512, 0, 8 * 512};

class Target final : public JournalTarget {
 public:
  absl::Status WriteTo(uint32_t disk, uint64_t offset, std::span<const std::byte> data) override {
    Check(disk, offset, data.size());
    return absl::OkStatus();
  }
  absl::Status ZeroOn(uint32_t disk, uint64_t offset, uint64_t size) override {
    Check(disk, offset, size);
    return absl::OkStatus();
  }
  uint64_t count = 0;

 private:
  void Check(uint32_t disk, uint64_t offset, uint64_t size) {
    if (disk >= 3 || size == 0 || offset > kSizes[disk] || size > kSizes[disk] - offset) {
      std::abort();
    }
    ++count;
  }
};

template <typename T>
T At(const std::string& bytes, size_t at) {
  T object;
  std::memcpy(&object, bytes.data() + at, sizeof(T));
  return object;
}

// Heads, seals, and records as far as they can be found.
std::string Resealed(std::string bytes) {
  using namespace romulus::replica::journal;  // NOLINT
  if (bytes.size() < kHeadBytes) return bytes;
  const JournalId id = At<Header>(bytes, 0).id;
  for (size_t i = 0; i < 2; ++i) {
    auto header = At<Header>(bytes, 2 * i * kBlockBytes);
    header.sum = SumOf(id, header);
    std::memcpy(bytes.data() + 2 * i * kBlockBytes, &header, sizeof(header));
    auto seal = At<SealBlock>(bytes, (2 * i + 1) * kBlockBytes);
    seal.sum = SumOf(id, seal);
    std::memcpy(bytes.data() + (2 * i + 1) * kBlockBytes, &seal, sizeof(seal));
    if (header.segment_bytes > bytes.size()) continue;
    for (size_t at = kHeadBytes + i * header.segment_bytes;
         at + sizeof(RecordHeader) <= bytes.size();) {
      auto record = At<RecordHeader>(bytes, at);
      if (record.body_bytes > bytes.size() - at - sizeof(record)) break;
      Hasher hasher(id);
      hasher.Add(
          base::AsBytes(absl::string_view(bytes).substr(at + sizeof(record), record.body_bytes)));
      record.body_sum = hasher.sum();
      record.sum = SumOf(id, record);
      std::memcpy(bytes.data() + at, &record, sizeof(record));
      at += Padded(sizeof(record) + record.body_bytes);
    }
  }
  return bytes;
}

// How many writes it has; -1: refused.
int64_t Read(const std::string& bytes) {
  romulus::testing::FaultFiles files;
  files.Make("/journal", bytes);
  DiskJournal journal(*files.OpenJournal("/journal"),
                      {.segment_bytes = 1024,
                       .is_durable = true,
                       .disk_sizes = {std::begin(kSizes), std::end(kSizes)},
                       .boot_id = "a boot"});
  const absl::Status loaded = journal.Load();
  for (const DroppedTail& tail : journal.dropped()) {
    if (tail.size_bytes == 0 || tail.offset_bytes > bytes.size() ||
        tail.size_bytes > bytes.size() - tail.offset_bytes) {
      std::abort();
    }
  }
  if (!loaded.ok()) return -1;
  Target target;
  for (int i = 0; journal.has_closed(); ++i) {
    const EpochKey end = journal.closed_end();
    if (i > 1 || !journal.ApplyClosed(end, target).ok() || !journal.FreeClosed().ok()) std::abort();
  }
  return static_cast<int64_t>(target.count);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  Read(bytes);
  const std::string resealed = Resealed(bytes);
  if (Read(resealed) != Read(resealed)) std::abort();
  return 0;
}
