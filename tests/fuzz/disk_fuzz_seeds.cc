// Writes seed inputs: disk_fuzz_seeds <fuzzer> <folder>.
#include <cstdio>
#include <fstream>
#include <string>

#include "base/check.h"
#include "disk/stamp.h"
#include "replica/disk_journal.h"
#include "support/fault_files.h"

namespace romulus::replica {
namespace {

void Write(const std::string& folder, const std::string& name, const std::string& content) {
  std::ofstream(folder + "/seed_" + name, std::ios::binary) << content;
}

epoch::DiskWrite Data(uint32_t disk, uint64_t sector) {
  return {epoch::DiskWrite::Kind::kWrite, disk, sector * 512, 512, std::vector<std::byte>(512)};
}

void Journals(const std::string& folder) {
  testing::FaultFiles files;
  DiskJournal journal(*files.OpenJournal("/journal"), {.segment_bytes = 4096,
                                                       .is_durable = true,
                                                       .disk_sizes = {32768, 0, 4096},
                                                       .boot_id = "a boot"});
  ROMULUS_CHECK(journal.Reset().ok());
  Write(folder, "empty", files.Content("/journal"));
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    const epoch::DiskWrite writes[] = {Data(0, epoch),
                                       {epoch::DiskWrite::Kind::kDiscard, 2, 512, 1024, {}}};
    if (epoch == 3) journal.CloseOpen();
    ROMULUS_CHECK(journal.Append({Term(1), EpochId(epoch)}, writes).ok());
    const std::string good = files.Content("/journal");
    Write(folder, "epochs_" + std::to_string(epoch), good);
    // With the one before synced, or not; the first record's head damaged, its body, its end gone.
    for (const size_t at : {4096 + 8, 4096 + 200}) {
      std::string bad = good;
      bad[at] ^= 1;
      Write(folder, "damaged_" + std::to_string(epoch) + "_" + std::to_string(at), bad);
    }
    Write(folder, "torn_" + std::to_string(epoch), good.substr(0, good.size() - 600));
    if (epoch == 2) ROMULUS_CHECK(journal.Sync().ok());
  }
}

void Stamps(const std::string& folder) {
  disk::Stamp stamp;
  stamp.mode = disk::Mode::kSecondary;
  stamp.vm_uuid = "6f1c5ba0-0000-4000-8000-000000000001";
  stamp.journal_id = "0123";
  Write(folder, "secondary", disk::FormatStamp(stamp));
  stamp.mode = disk::Mode::kPrimaryProtected;
  stamp.mtime_ns = -1;
  Write(folder, "primary", disk::FormatStamp(stamp));
}

}  // namespace
}  // namespace romulus::replica

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string fuzzer = argv[1];
  if (fuzzer == "disk_journal_fuzzer") romulus::replica::Journals(argv[2]);
  if (fuzzer == "disk_stamp_fuzzer") romulus::replica::Stamps(argv[2]);
  return 0;
}
