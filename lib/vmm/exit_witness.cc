#include "vmm/exit_witness.h"

#include <utility>

namespace romulus::vmm {

std::optional<ExitWitness::Unchanged> ExitWitness::Judge(const kvm::VcpuExits& before,
                                                         const kvm::VcpuExits& now,
                                                         bool* may_be_open) {
  const uint64_t all = now.all - before.all;
  const uint64_t explained =
      (now.page_faults - before.page_faults) + (now.interrupts - before.interrupts);
  // An exit that counts twice could hide another one.
  if (explained > all) return std::nullopt;
  if (explained != all || now.emulated != before.emulated) {
    *may_be_open = true;
    return Unchanged{};
  }
  const Unchanged unchanged{.intercepted = true, .debug_registers = !*may_be_open};
  if (all > 0) *may_be_open = false;  // that exit closed them
  return unchanged;
}

ExitWitness::Unchanged ExitWitness::Look(const kvm::Vcpu& vcpu) {
  if (!std::exchange(asked_for_stats_, true)) {
    if (absl::StatusOr<kvm::VcpuStats> stats = vcpu.OpenStats(); stats.ok()) {
      stats_.emplace(*std::move(stats));
    }
  }
  if (!stats_) return {};
  const absl::StatusOr<kvm::VcpuExits> now = stats_->Read();
  if (!now.ok()) {
    stats_.reset();
    return {};
  }
  const std::optional<kvm::VcpuExits> before = std::exchange(last_, *now);
  if (!before) return {};
  const std::optional<Unchanged> unchanged = Judge(*before, *now, &may_be_open_);
  if (unchanged) return *unchanged;
  stats_.reset();
  return {};
}

}  // namespace romulus::vmm
