// The kernel's KVM structures, for C++. The only includer of <linux/kvm.h>; consumers of lib/kvm
// that need a struct's fields include this. Plain types; any thread.
//
// Why not the header alone: in C++ __DECLARE_FLEX_ARRAY puts an empty struct of size 1 before each
// flexible array (include/uapi/linux/stddef.h). sizeof() of such a struct, and with it the number
// of every ioctl made from it, and the offset of the entries differ from the kernel's. So those
// structs are never used here: they have header types of their own, and ioctl numbers made from
// these.
#ifndef ROMULUS_KVM_ABI_H_
#define ROMULUS_KVM_ABI_H_

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace romulus::kvm {

// struct kvm_cpuid2, kvm_msrs, kvm_msr_list and kvm_xsave as C sees them, without their tails.
struct CpuidHeader {
  uint32_t nent;
  uint32_t padding;
};
struct MsrsHeader {
  uint32_t nmsrs;
  uint32_t pad;
};
struct MsrListHeader {
  uint32_t nmsrs;
};
struct XsaveHeader {
  uint32_t region[1024];
};
struct SignalMaskHeader {
  uint32_t len;
};

static_assert(sizeof(CpuidHeader) == 8);
static_assert(sizeof(MsrsHeader) == 8);
static_assert(sizeof(MsrListHeader) == 4);
static_assert(sizeof(XsaveHeader) == 4096);
static_assert(sizeof(SignalMaskHeader) == 4);
static_assert(sizeof(kvm_cpuid_entry2) == 40);
static_assert(sizeof(kvm_msr_entry) == 16);
static_assert(sizeof(kvm_dirty_gfn) == 16);
static_assert(sizeof(kvm_run) == 2352);
static_assert(sizeof(kvm_regs) == 144);
static_assert(sizeof(kvm_sregs) == 312);
static_assert(sizeof(kvm_sregs2) == 320);
static_assert(sizeof(kvm_vcpu_events) == 64);
static_assert(sizeof(kvm_xcrs) == 392);
static_assert(sizeof(kvm_debugregs) == 128);
static_assert(sizeof(kvm_lapic_state) == 1024);
static_assert(sizeof(kvm_irqchip) == 520);
static_assert(sizeof(kvm_pit_state2) == 112);
static_assert(sizeof(kvm_clock_data) == 48);

// The ioctls whose numbers the C++ header gets wrong (Documentation/virt/kvm/api.rst has the rest).
inline constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, CpuidHeader);
inline constexpr unsigned long kGetMsrIndexList = _IOWR(KVMIO, 0x02, MsrListHeader);
inline constexpr unsigned long kGetMsrs = _IOWR(KVMIO, 0x88, MsrsHeader);
inline constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, MsrsHeader);
inline constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, CpuidHeader);
inline constexpr unsigned long kGetXsave = _IOR(KVMIO, 0xa4, XsaveHeader);
inline constexpr unsigned long kSetXsave = _IOW(KVMIO, 0xa5, XsaveHeader);
inline constexpr unsigned long kGetXsave2 = _IOR(KVMIO, 0xcf, XsaveHeader);
inline constexpr unsigned long kSetSignalMask = _IOW(KVMIO, 0x8b, SignalMaskHeader);

// What `sizeof` gives in C, hence what the kernel dispatches on.
static_assert(kGetSupportedCpuid == 0xc008ae05);
static_assert(kGetMsrIndexList == 0xc004ae02);
static_assert(kGetXsave == 0x9000aea4);
static_assert(kGetXsave2 == 0x9000aecf);

// A header followed at once by `capacity` entries, in memory aligned for both: what the kernel
// takes for a struct with a flexible array. Owns its memory; move-only semantics of std::vector.
template <typename Header, typename Entry>
class FlexibleStruct {
  static_assert(sizeof(Header) % alignof(Entry) == 0, "entries must follow the header at once");

 public:
  explicit FlexibleStruct(size_t capacity)
      : words_((sizeof(Header) + capacity * sizeof(Entry) + 7) / 8), capacity_(capacity) {}

  size_t capacity() const { return capacity_; }
  void* data() { return words_.data(); }
  // SAFETY: words_ is 8-byte aligned and large enough for the header and `capacity` entries, which
  // are trivially copyable kernel structs.
  Header& header() { return *reinterpret_cast<Header*>(words_.data()); }
  const Header& header() const { return *reinterpret_cast<const Header*>(words_.data()); }
  std::span<Entry> entries() {
    return {reinterpret_cast<Entry*>(reinterpret_cast<std::byte*>(words_.data()) + sizeof(Header)),
            capacity_};
  }
  std::span<const Entry> entries() const {
    return {reinterpret_cast<const Entry*>(reinterpret_cast<const std::byte*>(words_.data()) +
                                           sizeof(Header)),
            capacity_};
  }

 private:
  std::vector<uint64_t> words_;
  size_t capacity_;
};

using CpuidStruct = FlexibleStruct<CpuidHeader, kvm_cpuid_entry2>;
using MsrsStruct = FlexibleStruct<MsrsHeader, kvm_msr_entry>;
using MsrListStruct = FlexibleStruct<MsrListHeader, uint32_t>;

// One guest-visible CPUID leaf, as KVM_SET_CPUID2 takes it.
using CpuidEntries = std::vector<kvm_cpuid_entry2>;

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_ABI_H_
