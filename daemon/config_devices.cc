#include "daemon/config_devices.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "arch/cpuid.h"
#include "arch/memory_map.h"
#include "daemon/config_check.h"
#include "devices/net_address.h"
#include "devices/virtio/block.h"
#include "devices/virtio/block_backend.h"

namespace romulus::daemon {
namespace {

using romulus::v1::Disk;
using romulus::v1::Nic;

constexpr size_t kMaxTapName = 15;  // IFNAMSIZ with its zero
constexpr uint32_t kMinMtu = 68;    // RFC 791: what every link must carry
constexpr uint32_t kMaxMtu = 65'535;

// Tells apart what people write in several ways: links, "a/../b".
class SameFiles {
 public:
  // The name of the disk that has this file already, or empty.
  std::string Add(const std::string& path, const std::string& disk) {
    struct stat info {};
    std::string key = std::filesystem::path(path).lexically_normal().string();
    if (::stat(path.c_str(), &info) == 0) key = absl::StrCat(info.st_dev, ":", info.st_ino);
    const auto [at, fresh] = disks_.emplace(key, disk);
    return fresh ? "" : at->second;
  }

 private:
  std::map<std::string, std::string> disks_;
};

void CheckDiskFile(const Disk& disk, const ConfigPlace& at) {
  const std::string& path = disk.path();
  const auto error = [&](auto... text) { at.Error("path", absl::StrCat("'", path, "'", text...)); };
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return error(": ", std::strerror(errno),
                 errno == ENOENT ? ": make the image (`truncate -s SIZE FILE`) on both nodes" : "");
  }
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    return error(" is neither a file nor a block device");
  }
  if (S_ISBLK(info.st_mode) && !disk.has_state_dir()) {
    at.Error("state_dir", absl::StrCat("must be set, because '", path,
                                       "' is a block device, whose folder is no place for files"));
  }
  const int wanted = disk.read_only() ? R_OK : R_OK | W_OK;
  if (::access(path.c_str(), wanted) != 0) {
    return error(": cannot be ",
                 disk.read_only() ? "read: " : "read and written: ", std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) return;
  if (info.st_size == 0) return error(" is empty");
  if (static_cast<uint64_t>(info.st_size) % devices::kSectorBytes != 0) {
    error(" has ", info.st_size, " bytes, which is no multiple of ", devices::kSectorBytes);
  }
}

void CheckDisks(const romulus::v1::Guest& guest, const ConfigOptions& options,
                const ConfigPlace& root) {
  std::set<std::string> names;
  SameFiles files;
  for (int i = 0; i < guest.disks_size(); ++i) {
    const Disk& disk = guest.disks(i);
    const ConfigPlace at = root.Sub("disks", i);
    if (!ValidName(disk.name())) {
      at.Error("name", kNameRule);
    } else if (disk.name().size() > devices::VirtioBlock::kSerialBytes) {
      at.Error("name", absl::StrCat("'", disk.name(), "' has ", disk.name().size(),
                                    " characters; it is the disk's serial number, which has at "
                                    "most ",
                                    devices::VirtioBlock::kSerialBytes));
    }
    if (!names.insert(disk.name()).second) {
      at.Error("name", absl::StrCat("'", disk.name(), "' names another disk already"));
    }
    if (disk.path().empty()) {
      at.Error("path", "must be set");
      continue;
    }
    if (const std::string other = files.Add(disk.path(), disk.name()); !other.empty()) {
      at.Error("path", absl::StrCat("'", disk.path(), "' is disk '", other, "' already"));
    }
    if (!options.check_files) continue;
    CheckDiskFile(disk, at);
    std::error_code error;
    if (disk.has_state_dir() && !std::filesystem::is_directory(disk.state_dir(), error)) {
      at.Error("state_dir", absl::StrCat("there is no folder '", disk.state_dir(), "'"));
    }
  }
}

std::string TapNameError(const std::string& tap) {
  if (tap.empty()) return "must be set";
  if (tap.size() > kMaxTapName) {
    return absl::StrCat("'", tap, "' has ", tap.size(), " characters, at most ", kMaxTapName);
  }
  if (tap == "." || tap == ".." || tap.find_first_of("/: \t\n%") != std::string::npos) {
    return absl::StrCat("'", tap, "' cannot be the name of a network device");
  }
  return "";
}

void CheckNics(const romulus::v1::Guest& guest, const ConfigPlace& root) {
  std::set<std::string> taps;
  std::set<devices::MacAddress> macs;
  for (int i = 0; i < guest.nics_size(); ++i) {
    const Nic& nic = guest.nics(i);
    const ConfigPlace at = root.Sub("nics", i);
    if (const std::string wrong = TapNameError(nic.tap()); !wrong.empty()) {
      at.Error("tap", wrong);
    } else if (!taps.insert(nic.tap()).second) {
      at.Error("tap", absl::StrCat("'", nic.tap(), "' is another card's already"));
    }
    if (!nic.has_mac()) {
      at.Error("mac", "must be set");
    } else if (const auto mac = devices::ParseCardMac(nic.mac()); !mac.ok()) {
      at.Error("mac", std::string(mac.status().message()));
    } else if (!macs.insert(*mac).second) {
      at.Error("mac", absl::StrCat("'", nic.mac(), "' is another card's already"));
    }
    for (int ip = 0; ip < nic.announce_ip_size(); ++ip) {
      if (const auto address = devices::ParseCardIp(nic.announce_ip(ip)); !address.ok()) {
        at.Error("announce_ip", std::string(address.status().message()), ip);
      }
    }
    if (nic.mtu() < kMinMtu || nic.mtu() > kMaxMtu) {
      at.Error("mtu", absl::StrCat(nic.mtu(), " is out of range: ", kMinMtu, " to ", kMaxMtu));
    }
  }
}

}  // namespace

void CheckDevices(const romulus::v1::Config& config, const ConfigOptions& options,
                  const ConfigPlace& guest) {
  const romulus::v1::Guest& wanted = config.guest();
  if (const auto model = arch::ParseCpuModel(wanted.cpu_model()); !model.ok()) {
    guest.Error("cpu_model", std::string(model.status().message()));
  }
  const int devices = wanted.disks_size() + wanted.nics_size() + (wanted.virtio_console() ? 1 : 0) +
                      (wanted.rng() ? 1 : 0);
  if (devices > arch::kMaxVirtioDevices) {
    // Blames the last one that was written.
    const bool of_nics = wanted.nics_size() > 0;
    guest.Error(
        of_nics ? "nics" : "disks",
        absl::StrCat(devices, " devices (", wanted.disks_size(), " disks, ", wanted.nics_size(),
                     " nics, virtio_console, rng), at most ", arch::kMaxVirtioDevices),
        (of_nics ? wanted.nics_size() : wanted.disks_size()) - 1);
  }
  CheckDisks(wanted, options, guest);
  CheckNics(wanted, guest);
}

}  // namespace romulus::daemon
