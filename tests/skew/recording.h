// A recorded replication stream: what either side sent, message by message, and what the secondary
// held in the end. A gzip file of entries {kind, length, bytes}; one thread at a time.
#ifndef ROMULUS_TESTS_SKEW_RECORDING_H_
#define ROMULUS_TESTS_SKEW_RECORDING_H_

#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/check.h"
#include "codec/page_digest.h"
#include "memory/guest_memory.h"
#include "memory/page_hash.h"

namespace romulus::skew {

enum class Entry : char {
  kDown = '>',     // a message of the primary
  kUp = '<',       // of the secondary
  kMemory = 'M',   // MemoryDigest() of the replica, at the hand-over
  kState = 'S',    // the machine state, serialized
  kConsole = 'C',  // where the console's stream ends, decimal
};

struct Recorded {
  Entry entry;
  std::string bytes;
};

// Of all pages in order, as hexadecimal text.
inline std::string MemoryDigest(const memory::GuestMemory& memory) {
  std::string hashes;
  for (const memory::Region& region : memory.layout().regions()) {
    for (uint64_t at = 0; at < region.size_bytes; at += kPageSize) {
      const memory::PageHash128 hash =
          memory::HashPage128(memory.Page(GfnOf(Gpa(region.gpa.value() + at))));
      char raw[sizeof(hash)];
      std::memcpy(raw, &hash, sizeof(hash));
      hashes.append(raw, sizeof(raw));
    }
  }
  return std::to_string(codec::HashBytes(hashes));
}

class RecordingWriter {
 public:
  explicit RecordingWriter(const char* path) : file_(gzopen(path, "wb9")) {
    ROMULUS_CHECK(file_ != nullptr);
  }
  ~RecordingWriter() { Finish(); }
  RecordingWriter(const RecordingWriter&) = delete;
  RecordingWriter& operator=(const RecordingWriter&) = delete;

  void Add(Entry entry, absl::string_view bytes) {
    if (file_ == nullptr) return;
    const char kind = static_cast<char>(entry);
    const auto size = static_cast<uint32_t>(bytes.size());
    ROMULUS_CHECK(gzwrite(file_, &kind, 1) == 1);
    ROMULUS_CHECK(gzwrite(file_, &size, sizeof(size)) == sizeof(size));
    ROMULUS_CHECK(gzfwrite(bytes.data(), 1, size, file_) == size);
  }
  void Finish() {
    if (file_ != nullptr) ROMULUS_CHECK(gzclose(std::exchange(file_, nullptr)) == Z_OK);
  }

 private:
  gzFile file_;
};

// Empty if there is no such file, or it is cut.
inline std::vector<Recorded> ReadRecording(const char* path) {
  std::vector<Recorded> entries;
  gzFile file = gzopen(path, "rb");
  if (file == nullptr) return entries;
  char kind = 0;
  while (gzread(file, &kind, 1) == 1) {
    uint32_t size = 0;
    Recorded next{static_cast<Entry>(kind), {}};
    bool whole = gzread(file, &size, sizeof(size)) == sizeof(size) && size < (64u << 20);
    if (whole) {
      next.bytes.resize(size);
      whole = gzfread(next.bytes.data(), 1, size, file) == size;
    }
    if (!whole) {
      entries.clear();
      break;
    }
    entries.push_back(std::move(next));
  }
  gzclose(file);
  return entries;
}

}  // namespace romulus::skew

#endif  // ROMULUS_TESTS_SKEW_RECORDING_H_
