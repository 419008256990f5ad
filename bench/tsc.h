// The frequency that guests on this host see, told to the ledger so that it need not measure it
// against the PIT: on a machine that is busy it gives that up.
#ifndef ROMULUS_BENCH_TSC_H_
#define ROMULUS_BENCH_TSC_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"

namespace romulus::bench {

// " tsc_khz=N", for the end of a command line. Errors: of the ioctls.
inline absl::StatusOr<std::string> TscWord() {
  ROMULUS_ASSIGN_OR_RETURN(const auto system, kvm::System::Open());
  ROMULUS_ASSIGN_OR_RETURN(const auto vm, system->CreateVm());
  ROMULUS_ASSIGN_OR_RETURN(const auto vcpu, vm->CreateVcpu(0));
  ROMULUS_ASSIGN_OR_RETURN(const uint32_t tsc_khz, vcpu->GetTscKhz());
  return absl::StrCat(" tsc_khz=", tsc_khz);
}

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_TSC_H_
