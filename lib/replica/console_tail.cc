#include "replica/console_tail.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "replica/fault.h"

namespace romulus::replica {

void ConsoleTail::Reset() {
  started_ = false;
  end_ = 0;
  tail_.clear();
}

absl::Status ConsoleTail::Check(uint64_t offset, uint64_t size_bytes, uint64_t released) const {
  if (started_ && offset != end_) {
    return FaultStatus(Fault::kConsole, absl::StrCat("console bytes start at ", offset,
                                                     ", the stream ends at ", end_));
  }
  if (size_bytes > std::numeric_limits<uint64_t>::max() - offset) {
    return FaultStatus(Fault::kConsole,
                       absl::StrCat("console bytes at ", offset, " leave the number range"));
  }
  const uint64_t new_end = offset + size_bytes;
  if (released > new_end) {
    return FaultStatus(Fault::kConsole, absl::StrCat("console released to ", released,
                                                     ", but it ends at ", new_end));
  }
  const uint64_t tail_begin = std::max(started_ ? end_ - tail_.size() : offset, released);
  if (new_end - tail_begin > cap_bytes_) {
    return FaultStatus(Fault::kCap,
                       absl::StrCat("unreleased console output of ", new_end - tail_begin,
                                    " bytes: at most ", cap_bytes_, " (console tail cap)"));
  }
  return absl::OkStatus();
}

void ConsoleTail::Append(uint64_t offset, absl::string_view bytes, uint64_t released) {
  if (!started_) end_ = offset;
  started_ = true;
  tail_.append(bytes.data(), bytes.size());
  end_ += bytes.size();
  Released(released);
}

void ConsoleTail::Released(uint64_t offset) {
  const uint64_t begin = end_ - tail_.size();
  if (offset <= begin) return;
  tail_.erase(0, static_cast<size_t>(std::min(offset, end_) - begin));
}

}  // namespace romulus::replica
