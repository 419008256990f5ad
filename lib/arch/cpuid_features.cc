#include "arch/cpuid_features.h"

#include <array>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace romulus::arch {
namespace {

using enum CpuidRegister;

constexpr uint32_t Bit(int bit) { return uint32_t{1} << bit; }

constexpr std::array kWords{
    // tsc_deadline_timer is a capability of its own, osxsave follows CR4, hypervisor is ours to
    // set.
    FeatureWord{
        1, 0, kEcx, Bit(24) | Bit(27) | Bit(31),
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm "
        "- pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx "
        "f16c rdrand hypervisor"},
    FeatureWord{
        1, 0, kEdx, Bit(28),  // ht: the topology's
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - "
        "dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
    FeatureWord{6, 0, kEax, 0, "dtherm ida arat"},
    FeatureWord{
        7, 0, kEbx, 0,
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm "
        "zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb "
        "intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"},
    FeatureWord{
        7, 0, kEcx, Bit(4),  // ospke follows CR4
        "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq "
        "avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid kl "
        "bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks"},
    FeatureWord{
        7, 0, kEdx, 0,
        "- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear "
        "rtm_always_abort - tsx_force_abort serialize hybrid tsxldtrk - pconfig arch_lbr ibt - "
        "amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d "
        "arch_capabilities core_capabilities spec_ctrl_ssbd"},
    FeatureWord{
        7, 1, kEax, 0,
        "- - - - avx_vnni avx512_bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs wrmsrns - "
        "amx_fp16 hreset avx_ifma - - lam"},
    FeatureWord{
        7, 1, kEdx, 0,
        "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchiti "
        "- - - uiret_uif cet_sss avx10"},
    FeatureWord{7, 2, kEdx, 0, "psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no"},
    FeatureWord{
        0xd, 0, kEax, 0,
        "xsave_x87 xsave_sse xsave_avx xsave_bndregs xsave_bndcsr xsave_opmask xsave_zmm_hi256 "
        "xsave_hi16_zmm - xsave_pkru - - - - - - - xsave_tilecfg xsave_tiledata"},
    FeatureWord{0xd, 1, kEax, 0, "xsaveopt xsavec xgetbv1 xsaves xfd"},
    FeatureWord{0xd, 1, kEcx, 0,
                "- - - - - - - - xsaves_pt - xsaves_pasid xsaves_cet_u xsaves_cet_s xsaves_hdc "
                "xsaves_uintr xsaves_lbr xsaves_hwp"},
    // Also the features of KVM itself that we let through: see cpuid.cc.
    FeatureWord{
        0x40000001, 0, kEax, 0,
        "kvmclock_old kvm_nopiodelay kvm_mmu kvmclock kvm_asyncpf kvm_steal_time kvm_pv_eoi "
        "kvm_pv_unhalt - kvm_pv_tlb_flush kvm_asyncpf_vmexit kvm_pv_ipi kvm_poll_control "
        "kvm_pv_sched_yield kvm_asyncpf_int kvm_msi_ext_dest_id kvm_hc_map_gpa_range "
        "kvm_migration_control - - - - - - kvmclock_stable"},
    FeatureWord{
        0x80000001, 0, kEcx, Bit(1) | Bit(22),  // topology
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs "
        "xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - "
        "bpext ptsc perfctr_llc mwaitx"},
    FeatureWord{
        0x80000001, 0, kEdx, 0,
        "fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - mp nx - "
        "mmxext mmx fxsr fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
    FeatureWord{0x80000007, 0, kEdx, 0, "- - - - - - - - invtsc"},
    FeatureWord{
        0x80000008, 0, kEbx, 0,
        "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp "
        "ibrs_always_on stibp_always_on ibrs_preferred ibrs_same_mode - - - - amd_ssbd virt_ssbd "
        "amd_ssb_no - amd_psfd btc_no - -"},
    FeatureWord{
        0x80000021, 0, kEax, 0,
        "no_nested_data_bp - lfence_rdtsc - - - null_sel_clr_base - autoibrs no_smm_ctl_msr - - "
        "- - - - - - - - - - - - - - - sbpb ibpb_brtype srso_no srso_user_kernel_no"},
};

constexpr absl::string_view RegisterName(CpuidRegister reg) {
  constexpr std::array<absl::string_view, 4> kNames{"eax", "ebx", "ecx", "edx"};
  return kNames[static_cast<size_t>(reg)];
}

}  // namespace

std::span<const FeatureWord> FeatureWords() { return kWords; }

uint32_t ValueOf(const CpuidEntry& entry, CpuidRegister reg) {
  switch (reg) {
    case kEax:
      return entry.eax;
    case kEbx:
      return entry.ebx;
    case kEcx:
      return entry.ecx;
    case kEdx:
      return entry.edx;
  }
  return 0;
}

uint32_t& FieldOf(CpuidEntry& entry, CpuidRegister reg) {
  switch (reg) {
    case kEax:
      return entry.eax;
    case kEbx:
      return entry.ebx;
    case kEcx:
      return entry.ecx;
    case kEdx:
      break;
  }
  return entry.edx;
}

std::string FeatureName(const FeatureWord& word, int bit) {
  const std::string place = absl::StrFormat("cpuid 0x%x.%d %s bit %d", word.function, word.index,
                                            RegisterName(word.reg), bit);
  const std::vector<absl::string_view> names = absl::StrSplit(word.names, ' ');
  if (bit < 0 || static_cast<size_t>(bit) >= names.size() || names[bit] == "-") return place;
  return absl::StrFormat("%s (%s)", names[bit], place);
}

}  // namespace romulus::arch
