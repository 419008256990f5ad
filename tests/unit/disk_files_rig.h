// Two disks of a secondary, what they should hold at every epoch, and a random stream for them.
#ifndef ROMULUS_TESTS_UNIT_DISK_FILES_RIG_H_
#define ROMULUS_TESTS_UNIT_DISK_FILES_RIG_H_

#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "disk/copy.h"
#include "replica/disk_files.h"

namespace romulus::replica::testing {

using epoch::DiskWrite;
using Images = std::vector<std::string>;

inline constexpr uint64_t kSizes[] = {96 * 512, 40 * 512};  // of disks 0 and 2; 1 is read-only
inline constexpr uint32_t kNumbers[] = {0, 2};

inline EpochKey Key(uint64_t epoch, uint64_t term = 1) { return {Term(term), EpochId(epoch)}; }

inline DiskWrite Data(uint32_t disk, uint64_t sector, const std::string& text) {
  const auto bytes = base::AsBytes(text);
  return {DiskWrite::Kind::kWrite, disk, sector * 512, text.size(), {bytes.begin(), bytes.end()}};
}
inline DiskWrite Filled(uint32_t disk, uint64_t sector, char fill, uint64_t sectors = 1) {
  return Data(disk, sector, std::string(512 * sectors, fill));
}
inline DiskWrite Discard(uint32_t disk, uint64_t sector, uint64_t sectors) {
  return {DiskWrite::Kind::kDiscard, disk, sector * 512, sectors * 512, {}};
}
inline DiskWrite Flush() { return {DiskWrite::Kind::kFlush, 0, 0, 0, {}}; }

inline void ApplyTo(Images& images, const std::vector<DiskWrite>& writes) {
  for (const DiskWrite& write : writes) {
    if (write.kind == DiskWrite::Kind::kFlush) continue;
    std::string& image = images[write.disk == 0 ? 0 : 1];
    for (uint64_t i = 0; i < write.size_bytes; ++i) {
      image[write.offset_bytes + i] =
          write.kind == DiskWrite::Kind::kWrite ? static_cast<char>(write.data[i]) : '\0';
    }
  }
}

inline std::vector<DiskWrite> RandomWrites(std::mt19937_64& random) {
  const auto any = [&](uint64_t below) { return random() % below; };
  std::vector<DiskWrite> writes;
  if (any(5) == 0) return writes;  // many epochs have none
  for (uint64_t count = 1 + any(4); count > 0; --count) {
    const size_t which = any(2);
    const uint64_t sectors = 1 + any(6);
    const uint64_t sector = any(kSizes[which] / 512 - sectors);
    if (any(6) == 0) {
      writes.push_back(Discard(kNumbers[which], sector, sectors));
    } else {
      std::string text(512 * sectors, '\0');
      for (char& c : text) c = static_cast<char>(random());
      writes.push_back(Data(kNumbers[which], sector, text));
    }
  }
  if (any(3) == 0) writes.push_back(Flush());
  return writes;
}

// Opens the copies and the DiskFiles of one process.
struct Secondary {
  static disk::CopySpec Spec(int which, const std::string& folder) {
    disk::CopySpec spec;
    spec.vm_uuid = "6f1c5ba0-0000-4000-8000-000000000001";
    spec.node = "beta";
    spec.disk = kNumbers[which];
    spec.name = which == 0 ? "root" : "data";
    spec.path = folder + (which == 0 ? "/root.img" : "/data.img");
    return spec;
  }
  static absl::StatusOr<std::unique_ptr<Secondary>> Open(disk::Files& files,
                                                         const DiskFilesOptions& options,
                                                         const std::string& folder = "") {
    auto secondary = std::make_unique<Secondary>();
    for (int which = 0; which < 2; ++which) {
      auto copy = disk::DiskCopy::Open(Spec(which, folder), files);
      if (!copy.ok()) return copy.status();
      secondary->copies.push_back(*std::move(copy));
    }
    auto opened = DiskFiles::Open(secondary->copies, options, files);
    if (!opened.ok()) return opened.status();
    secondary->disks = *std::move(opened);
    return secondary;
  }

  // What is on the disks; reads the files themselves.
  absl::StatusOr<Images> Read() const {
    Images images;
    for (const std::shared_ptr<disk::DiskCopy>& copy : copies) {
      std::string image(copy->size_bytes(), '?');
      const auto status = copy->file()->Read(
          0, std::as_writable_bytes(std::span<char>(image.data(), image.size())));
      if (!status.ok()) return status;
      images.push_back(std::move(image));
    }
    return images;
  }

  std::vector<std::shared_ptr<disk::DiskCopy>> copies;
  std::unique_ptr<DiskFiles> disks;
};

// A full sync that copies `images`.
inline absl::Status FullSync(DiskFiles& disks, const Images& images, Term term = Term(1)) {
  if (absl::Status status = disks.BeginSync(term); !status.ok()) return status;
  for (int which = 0; which < 2; ++which) {
    const std::string& image = images[which];
    const uint64_t half = image.size() / 1024 * 512;
    absl::Status status =
        disks.WriteBlocks(kNumbers[which], 0, base::AsBytes(image).subspan(0, half));
    if (status.ok()) {
      status = disks.WriteBlocks(kNumbers[which], half, base::AsBytes(image).subspan(half));
    }
    if (!status.ok()) return status;
  }
  return disks.EndSync(term);
}

}  // namespace romulus::replica::testing

#endif  // ROMULUS_TESTS_UNIT_DISK_FILES_RIG_H_
