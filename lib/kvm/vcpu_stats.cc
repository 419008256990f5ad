#include "kvm/vcpu_stats.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kvm/abi.h"
#include "kvm/ioctl.h"

namespace romulus::kvm {
namespace {

constexpr const char* kNames[] = {"exits", "pf_taken", "irq_exits", "insn_emulation"};
// More than any KVM has: what it says is used as sizes.
constexpr uint32_t kMaxDescriptors = 4096;
constexpr uint32_t kMaxNameBytes = 256;
constexpr uint32_t kMaxDataBytes = 64u << 10;

absl::Status ReadAll(int fd, void* into, size_t size, uint64_t offset) {
  const ssize_t got = ::pread(fd, into, size, static_cast<off_t>(offset));
  if (got < 0) return base::ErrnoStatus(errno, "reading a vCPU's statistics");
  if (static_cast<size_t>(got) == size) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("a vCPU's statistics end after ", got, " bytes"));
}

}  // namespace

absl::StatusOr<VcpuStats> VcpuStats::Open(int vcpu_fd) {
  const int raw = ::ioctl(vcpu_fd, KVM_GET_STATS_FD, 0);
  if (raw < 0) return base::ErrnoStatus(errno, "KVM_GET_STATS_FD");
  base::UniqueFd fd(raw);
  kvm_stats_header header{};
  ROMULUS_RETURN_IF_ERROR(ReadAll(fd.get(), &header, sizeof(header), 0));
  if (header.num_desc > kMaxDescriptors || header.name_size > kMaxNameBytes) {
    return absl::UnimplementedError("statistics of an unknown form");
  }
  // A kvm_stats_desc and its name after it; the struct has a flexible array (kvm/abi.h).
  constexpr size_t kDescriptorBytes = 16;
  std::array<uint32_t, kCounters> offsets{};
  std::array<bool, kCounters> found{};
  size_t bytes = 0;
  std::string descriptor(kDescriptorBytes + header.name_size, '\0');
  for (uint64_t i = 0; i < header.num_desc; ++i) {
    ROMULUS_RETURN_IF_ERROR(ReadAll(fd.get(), descriptor.data(), descriptor.size(),
                                    header.desc_offset + i * descriptor.size()));
    uint32_t offset = 0;
    std::memcpy(&offset, descriptor.data() + 8, sizeof(offset));
    const std::string name(descriptor.c_str() + kDescriptorBytes);
    const auto wanted = std::find(std::begin(kNames), std::end(kNames), name);
    if (wanted == std::end(kNames) || offset > kMaxDataBytes) continue;
    const auto index = static_cast<size_t>(wanted - std::begin(kNames));
    offsets[index] = offset;
    found[index] = true;
    bytes = std::max(bytes, offset + sizeof(uint64_t));
  }
  for (size_t i = 0; i < kCounters; ++i) {
    if (!found[i]) return absl::UnimplementedError(absl::StrCat("KVM does not count ", kNames[i]));
  }
  return VcpuStats(std::move(fd), header.data_offset, offsets, bytes);
}

absl::StatusOr<VcpuExits> VcpuStats::Read() const {
  std::array<std::byte, 4096> data;
  if (bytes_ > data.size()) return absl::UnimplementedError("a vCPU's statistics are too large");
  ROMULUS_RETURN_IF_ERROR(ReadAll(fd_.get(), data.data(), bytes_, data_offset_));
  const auto value = [&](size_t index) {
    uint64_t read = 0;
    std::memcpy(&read, data.data() + offsets_[index], sizeof(read));
    return read;
  };
  return VcpuExits{value(0), value(1), value(2), value(3)};
}

}  // namespace romulus::kvm
