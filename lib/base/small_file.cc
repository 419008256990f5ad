#include "base/small_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace romulus::base {
namespace {
constexpr off_t kMaxBytes = 1 << 20;
}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  // Does not wait for the writer of a FIFO.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cannot read '", path, "'"));
  }
  if (!S_ISREG(info.st_mode) || info.st_size > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' is not a file of at most ", kMaxBytes, " bytes"));
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("cannot read '", path, "'"));
    if (got == 0) break;  // it became shorter
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

}  // namespace romulus::base
