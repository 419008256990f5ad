// Any text as a stamp: refused, or equal to itself after another trip. Its checksum is made right,
// or nothing would come past it.
#include <xxhash.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/str_format.h"
#include "disk/stamp.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace romulus::disk;  // NOLINT: one function
  std::string text(reinterpret_cast<const char*>(data), size);
  (void)ParseStamp(text);
  text = text.substr(0, text.rfind("# xxh3 ")) + "\n";
  text += absl::StrFormat("# xxh3 %016x\n", XXH3_64bits(text.data(), text.size()));
  const absl::StatusOr<Stamp> stamp = ParseStamp(text);
  if (!stamp.ok()) return 0;
  const std::string written = FormatStamp(*stamp);
  const absl::StatusOr<Stamp> again = ParseStamp(written);
  if (!again.ok() || FormatStamp(*again) != written) std::abort();
  if (CompareStamps(*stamp, *again).why.empty()) std::abort();
  return 0;
}
