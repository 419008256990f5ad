// Both ends of the handshake as this node knows them: what its own Hello says, and what a primary's
// Hello is judged by. Values and pure functions; any thread.
#ifndef ROMULUS_DAEMON_HELLO_FACTS_H_
#define ROMULUS_DAEMON_HELLO_FACTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/cpuid.h"
#include "base/types.h"
#include "kvm/system.h"
#include "romulus/v1/config.pb.h"
#include "romulus/v1/replication.pb.h"
#include "vmm/machine.h"
#include "wire/handshake.h"

namespace romulus::daemon {

inline constexpr uint64_t kMaxFrameBytes = 4u << 20;
std::string BuildName();

// What must be equal on both nodes.
absl::StatusOr<wire::MachineIdentity> IdentityOf(const romulus::v1::Config& config);
// Of KVM on this host, as far as a guest's state depends on them.
std::vector<std::string> CapabilityNames(const kvm::Capabilities& capabilities);

// The primary's Hello; `stream_term` and `current_term` are filled in by the caller.
absl::StatusOr<wire::HelloInput> HelloFor(const romulus::v1::Config& config,
                                          const kvm::Capabilities& capabilities,
                                          const vmm::Machine& machine);

// What changes with the role, for judging.
struct HelloFacts {
  bool plays_secondary = true;
  std::string role_detail;
  bool has_claim = false;  // the arbiter has not answered
  Term newest_term;
  romulus::v1::Holds holds = romulus::v1::HOLDS_NOTHING;
  Lineage lineage;
  uint64_t instance = 0;
  // Of the primary whose stream stands and is heard: wire::HelloJudge.
  uint64_t heard_instance = 0;
  std::string heard_from;
  std::vector<wire::DiskCopy> disks;  // that are replicated to this node
};

struct HostFacts {
  std::vector<arch::CpuidEntry> supported_cpuid;
  uint32_t tsc_khz = 0;  // 0: unknown
  bool tsc_control = false;
  bool tsc_deadline_timer = false;
  std::vector<std::string> capabilities;
};
absl::StatusOr<HostFacts> HostFactsOf(const kvm::System& system);

romulus::v1::HelloReply JudgeHello(const romulus::v1::Hello& hello,
                                   const romulus::v1::Config& config, const HelloFacts& facts,
                                   const HostFacts& host);

std::vector<arch::CpuidEntry> CpuidOf(const romulus::v1::Hello& hello);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_HELLO_FACTS_H_
