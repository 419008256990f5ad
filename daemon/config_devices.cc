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
#include "daemon/guest_disks.h"
#include "devices/net_address.h"
#include "devices/tap.h"
#include "devices/virtio/block.h"
#include "devices/virtio/block_backend.h"
#include "disk/copy.h"

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

// Whether there is a file that can be the disk.
bool CheckDiskFile(const Disk& disk, const ConfigPlace& at) {
  const std::string& path = disk.path();
  const auto error = [&](auto... text) {
    at.Error("path", absl::StrCat("'", path, "'", text...));
    return false;
  };
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return error(": ", std::strerror(errno),
                 errno == ENOENT ? ": make the image (`truncate -s SIZE FILE`) on both nodes" : "");
  }
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    return error(S_ISDIR(info.st_mode) ? " is a folder" : " is neither a file nor a block device",
                 "; a disk is a raw image (`truncate -s SIZE FILE`) or a block device");
  }
  if (S_ISBLK(info.st_mode) && !disk.has_state_dir() && !disk.read_only()) {
    at.Error("state_dir", absl::StrCat("must be set, because '", path,
                                       "' is a block device, whose folder is no place for files"));
    return false;
  }
  const int wanted = disk.read_only() ? R_OK : R_OK | W_OK;
  if (::access(path.c_str(), wanted) != 0) {
    return error(": cannot be ",
                 disk.read_only() ? "read: " : "read and written: ", std::strerror(errno),
                 "; give the daemon's user the permission",
                 disk.read_only() ? "" : ", or set `read_only: true`");
  }
  if (!S_ISREG(info.st_mode)) return true;
  if (info.st_size == 0) return error(" is empty: give it a size (`truncate -s SIZE FILE`)");
  if (static_cast<uint64_t>(info.st_size) % devices::kSectorBytes != 0) {
    return error(" has ", info.st_size, " bytes, which is no multiple of ", devices::kSectorBytes,
                 ": is it a raw image (`qemu-img convert -O raw`)?");
  }
  return true;
}

// Whether the files beside the disk can be made.
bool CheckSideFolder(const disk::CopySpec& spec, const ConfigPlace& at) {
  const bool is_set = !spec.state_dir.empty();
  const std::string folder = std::filesystem::path(disk::StampPath(spec)).parent_path().string();
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    at.Error("state_dir", absl::StrCat("there is no folder '", folder, "': make it (`mkdir -p`)"));
    return false;
  }
  if (::access(folder.c_str(), W_OK | X_OK) == 0) return true;
  at.Error(is_set ? "state_dir" : "path",
           absl::StrCat("no file can be made in '", folder, "', where '", disk::StampPath(spec),
                        "' shall be: ", std::strerror(errno),
                        "; give the daemon's user the permission, or set `state_dir` to another "
                        "folder"));
  return false;
}

// Of the side file.
std::string WithoutLinks(const disk::CopySpec& spec) {
  std::error_code error;
  const std::filesystem::path path = disk::StampPath(spec);
  const std::filesystem::path real = std::filesystem::weakly_canonical(path, error);
  return error ? path.lexically_normal().string() : real.string();
}

// What the daemon itself would refuse the disk for.
void CheckDiskStamp(const disk::CopySpec& spec, const ConfigPlace& at) {
  const disk::Inspection found = disk::Inspect(spec, disk::PosixFiles());
  if (!found.status.ok()) at.Error("path", std::string(found.status.message()));
}

void CheckDisks(const romulus::v1::Config& config, const ConfigOptions& options,
                const ConfigPlace& root) {
  const romulus::v1::Guest& guest = config.guest();
  std::set<std::string> names;
  SameFiles files;
  std::map<std::string, std::string> side_files;
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
    const std::string other = files.Add(disk.path(), disk.name());
    if (!other.empty()) {
      at.Error("path", absl::StrCat("'", disk.path(), "' is disk '", other,
                                    "' already: each has a file of its own"));
    }
    const disk::CopySpec spec = CopySpecOf(config, i);
    if (other.empty() && !disk.read_only()) {
      // Images of one name in several folders would share the files in one `state_dir`.
      const auto [side_file, fresh] = side_files.emplace(WithoutLinks(spec), disk.name());
      if (!fresh) {
        at.Error(disk.has_state_dir() ? "state_dir" : "path",
                 absl::StrCat("'", side_file->first, "' is disk '", side_file->second,
                              "'s already: choose another `state_dir`, or another name for the "
                              "image"));
      }
    }
    if (!options.check_files) continue;
    bool usable = CheckDiskFile(disk, at);
    if (disk.read_only()) continue;
    if (usable || disk.has_state_dir()) usable &= CheckSideFolder(spec, at);
    if (usable && options.check_stamps && config.has_uuid()) CheckDiskStamp(spec, at);
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

void CheckNics(const romulus::v1::Guest& guest, const ConfigOptions& options,
               const ConfigPlace& root) {
  std::set<std::string> taps;
  std::set<devices::MacAddress> macs;
  for (int i = 0; i < guest.nics_size(); ++i) {
    const Nic& nic = guest.nics(i);
    const ConfigPlace at = root.Sub("nics", i);
    if (const std::string wrong = TapNameError(nic.tap()); !wrong.empty()) {
      at.Error("tap", wrong);
    } else if (!taps.insert(nic.tap()).second) {
      at.Error("tap", absl::StrCat("'", nic.tap(), "' is another card's already"));
    } else if (options.check_files) {
      if (const absl::Status tap = devices::Tap::Check(nic.tap(), nic.mtu()); !tap.ok()) {
        at.Error("tap", std::string(tap.message()));
      }
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
  CheckDisks(config, options, guest);
  CheckNics(wanted, options, guest);
}

}  // namespace romulus::daemon
