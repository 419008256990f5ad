#include "daemon/host_identity.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace romulus::daemon {
namespace {

constexpr size_t kIdBytes = 16;
constexpr size_t kIdDigits = 2 * kIdBytes;

bool IsId(absl::string_view text) {
  return text.size() == kIdDigits && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
}

// What the file says; empty: there is no id in it ("uninitialized" before a first boot). Else its
// error.
absl::StatusOr<std::string> ReadId(const std::string& path) {
  base::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return base::ErrnoStatus(errno, path);
  std::array<char, 2 * kIdDigits> bytes{};
  const ssize_t got = ::read(file.get(), bytes.data(), bytes.size());
  if (got < 0) return base::ErrnoStatus(errno, path);
  const absl::string_view text =
      absl::StripAsciiWhitespace(absl::string_view(bytes.data(), static_cast<size_t>(got)));
  return IsId(text) ? absl::AsciiStrToLower(text) : std::string();
}

// Whole or not at all, and of two daemons that make it at once both read the same one.
absl::Status MakeId(const std::string& path) {
  std::array<char, kIdBytes> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return base::ErrnoStatus(errno, "getrandom");
  }
  const std::string text =
      absl::StrCat(absl::BytesToHexString({random.data(), random.size()}), "\n");
  // What systemd's StateDirectory makes, for who runs without it.
  ::mkdir(std::string(path, 0, path.rfind('/')).c_str(), 0755);
  const std::string fresh = absl::StrCat(path, ".", ::getpid());
  base::UniqueFd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file.valid()) return base::ErrnoStatus(errno, fresh);
  const bool written =
      ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      ::fsync(file.get()) == 0;
  absl::Status made = written ? absl::OkStatus() : base::ErrnoStatus(errno, fresh);
  if (made.ok() && ::link(fresh.c_str(), path.c_str()) != 0 && errno != EEXIST) {
    made = base::ErrnoStatus(errno, path);
  }
  ::unlink(fresh.c_str());
  return made;
}

absl::StatusOr<std::string> OwnId(const std::string& path) {
  absl::StatusOr<std::string> id = ReadId(path);
  if (absl::IsNotFound(id.status())) {
    ROMULUS_RETURN_IF_ERROR(MakeId(path));
    id = ReadId(path);
  }
  if (id.ok() && id->empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": holds no 32 hexadecimal digits; remove it"));
  }
  return id;
}

}  // namespace

absl::StatusOr<std::string> HostId(absl::string_view vm_uuid, const HostIdFiles& files) {
  absl::StatusOr<std::string> id = ReadId(files.machine_id);
  if (!id.ok() || id->empty()) {
    const std::string why = id.ok() ? "holds no id" : std::string(id.status().message());
    id = OwnId(files.own_id);
    if (!id.ok()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "this host has no identity, which the arbiter's record needs: ", files.machine_id, " (",
          why, "), nor one of our own (", id.status().message(),
          "). `systemd-machine-id-setup` makes the first; the folder of the second must be "
          "there and writable"));
    }
  }
  const std::string key = absl::StrCat("romulus host of ", absl::AsciiStrToLower(vm_uuid));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  // SAFETY: bytes as bytes.
  const auto* text = reinterpret_cast<const unsigned char*>(id->data());
  if (::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()), text, id->size(),
             digest.data(), &size) == nullptr ||
      size < kIdBytes) {
    return absl::InternalError("HMAC-SHA256 failed");
  }
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), kIdBytes});
}

std::string HostName() {
  std::array<char, 65> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "?";
  return absl::CHexEscape(name.data());
}

}  // namespace romulus::daemon
