// The first exchange on a stream: what the primary needs the secondary to be (Hello), and the
// secondary's verdict (HelloReply), for people as well: it names the field and both values. Pure
// functions; any thread. CPUID and KVM capabilities are judged by callbacks, so that nothing here
// knows a processor.
#ifndef ROMULUS_WIRE_HANDSHAKE_H_
#define ROMULUS_WIRE_HANDSHAKE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/lineage.h"
#include "base/types.h"
#include "codec/dialect.h"
#include "memory/memory_layout.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::wire {

// One CPUID leaf as the guest sees it.
struct CpuidLeaf {
  uint32_t function = 0;
  uint32_t index = 0;
  uint32_t flags = 0;
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;

  friend bool operator==(const CpuidLeaf&, const CpuidLeaf&) = default;
};

// One replicated disk as a node has it.
struct DiskCopy {
  uint32_t disk = 0;  // index in the configuration
  std::string name;
  std::string path;  // here, for people; does not travel
  uint64_t size_bytes = 0;
  romulus::v1::DiskCopyRole role = romulus::v1::DISK_COPY_ROLE_UNSPECIFIED;
  std::string
      unusable;  // why a replica cannot be promoted as it is; empty: it can; does not travel
  Term term;     // of the epoch that the copy is known to be at
  EpochId epoch;
  bool all_zero = false;  // holds nothing but zeros
  // What the other node's copy holds of this term and of older ones is in this copy too.
  Term covers_term;
};

// What must be equal on both nodes; from the configuration.
struct MachineIdentity {
  std::string vm_name;
  std::string vm_uuid;
  uint32_t vcpu_count = 0;
  std::vector<memory::Region> memory;
  // Over all else that must be equal: devices, their order, command line.
  uint64_t machine_digest = 0;
  // The devices, a line each, so that a refusal can name what differs.
  std::vector<std::string> devices{};
};

struct HelloInput {
  MachineIdentity machine;
  std::string node_name;
  std::string build;
  Term current_term;  // in which this node runs the guest now
  Term stream_term;   // of the epochs to come
  Lineage lineage;
  std::vector<CpuidLeaf> cpuid;
  uint32_t tsc_khz = 0;
  std::vector<std::string> required_capabilities;
  uint64_t max_frame_bytes = 0;
  uint64_t instance = 0;  // drawn by each start of the node
  std::vector<DiskCopy> disks{};
  bool overwrite_disks = false;      // by an operator's word: even if the secondary's may be newer
  codec::ProtocolRange protocols{};  // what this build speaks; others for tests
  bool measure_link = false;         // the secondary's heartbeats are to tell what came
};

romulus::v1::Hello BuildHello(const HelloInput& input);

romulus::v1::Lineage LineageToProto(const Lineage& lineage);
Lineage LineageFrom(const romulus::v1::Lineage& lineage);

// What the secondary is, and what it knows.
struct HelloJudge {
  MachineIdentity machine;
  std::string node_name;
  std::string build;
  uint64_t max_frame_bytes = 0;
  bool plays_secondary = true;
  std::string role_detail;  // why not, for the reply: "this node runs the guest in term 5"
  // Of the daemon whose stream stands and is heard, if it said; and where it is, for the reply.
  uint64_t heard_instance = 0;
  std::string heard_from;
  Term newest_term;  // that this node took part in or heard of
  // What this node could go on from, and where that comes from. If a guest runs here lineage alone
  // decides which of the two is over.
  romulus::v1::Holds holds = romulus::v1::HOLDS_NOTHING;
  Lineage lineage;
  std::vector<DiskCopy> disks;
  // Names of the CPU features that the guest sees and this host cannot give ("avx512f"); empty:
  // fits. Null: not checked.
  std::function<std::vector<std::string>(const std::vector<CpuidLeaf>&, uint32_t tsc_khz)>
      missing_cpu_features;
  // Whether this host has a capability named in the Hello. Null: not checked.
  std::function<bool(absl::string_view)> has_capability;
  codec::ProtocolRange protocols{};  // as in HelloInput
};

// Total on any input: a hostile Hello gets a refusal. Never accepts with a reason set. The reply to
// an accepted one names the version that the stream speaks: the newest that both do.
//
// A secondary's disks are overwritten only if the primary's are known to hold all that they hold,
// by term (covers_term): a node that was started again from an old disk raises its own term
// each time, which proves nothing. On doubt both are left as they are, and people are told which is
// newer.
romulus::v1::HelloReply EvaluateHello(const romulus::v1::Hello& hello, const HelloJudge& judge);

// OK if accepted; else FailedPrecondition "node B refused (cpu): ...".
absl::Status StatusOf(const romulus::v1::HelloReply& reply);

// "cpu", "term", ...: as logs and metrics name it.
absl::string_view RefusalReasonName(romulus::v1::RefusalReason reason);

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_HANDSHAKE_H_
