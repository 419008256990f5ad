// The side file "PATH.romulus" of a disk: whose copy it is, and of which epoch. Text for people
// (v1.DiskStamp as textproto), with a checksum in its last line. Values; any thread.
#ifndef ROMULUS_DISK_STAMP_H_
#define ROMULUS_DISK_STAMP_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/lineage.h"
#include "base/types.h"

namespace romulus::disk {

// What the copy was last used for.
enum class Mode : uint8_t {
  kNever,             // there is no stamp
  kPrimarySolo,       // the guest ran on it; nothing was replicated
  kPrimaryProtected,  // the guest ran on it, and each epoch went to a secondary
  kSecondary,         // it is at one committed epoch, with what the journal holds
  kSyncing,           // a full sync was overwriting it: it is no disk
};
absl::string_view ModeName(Mode mode);  // "never", "primary_solo", ...

struct Stamp {
  Mode mode = Mode::kNever;
  Term term;
  EpochId epoch;  // kSecondary: at least this one; a primary's: 0 or the last acked
  // The other node's copies of this term and of older ones are contained in this one: they may be
  // overwritten from here.
  Term covers_term;
  Lineage lineage;           // a primary's: of the guest that ran on it
  bool is_volatile = false;  // kSecondary: not durable, so that a power loss of the host ends it
  std::string journal_id;    // kSecondary: of the journal that belongs to it
  // Filled in by DiskCopy:
  std::string vm_uuid;
  std::string node;
  std::string disk_name;
  uint64_t size_bytes = 0;
  bool is_clean = false;  // the next two are as the file was left
  uint64_t inode = 0;     // 0: a block device
  int64_t mtime_ns = 0;
  std::string boot_id;  // of the host that wrote this
};

// Longest side file that is read.
inline constexpr uint64_t kMaxStampBytes = 16u << 10;

std::string FormatStamp(const Stamp& stamp);
// Of anybody's bytes. Errors name neither file nor remedy, but what is wrong: DataLoss (checksum,
// malformed), Unimplemented (a newer format).
absl::StatusOr<Stamp> ParseStamp(absl::string_view text);

// Which of two copies of the same disk is newer, and why. 0: the first; 1: the second; -1: they
// are equally new, or nobody can know.
struct Comparison {
  int newest = -1;
  std::string why;
};
Comparison CompareStamps(const Stamp& first, const Stamp& second);

}  // namespace romulus::disk

#endif  // ROMULUS_DISK_STAMP_H_
