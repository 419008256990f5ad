// What was wrong with a stream beyond its framing, kept on the Status so that the session can count
// by kind without reading messages. Any thread.
#ifndef ROMULUS_REPLICA_FAULT_H_
#define ROMULUS_REPLICA_FAULT_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace romulus::replica {

enum class Fault : uint8_t {
  kNone,
  kFraming,     // codec::FrameFault says which
  kUnexpected,  // a kind that has no place here now
  kBody,        // a message body that does not parse, or names a term out of range
  kTerm,        // an older term, or a term that changes inside an epoch
  kEpochOrder,  // not the epoch that is due
  kPages,       // a bad page record, a page twice in an epoch
  kCount,       // fewer or more pages than announced
  kDigest,      // pages or machine state are not what the primary hashed
  kMachine,     // a machine state that does not parse
  kConsole,     // console bytes out of place
  kCap,         // a configured cap would be exceeded
  kSuperseded,  // another stream took over, or the replica was promoted
  kDisks,       // a bad disk record, or one that leaves its disk
  kAudit,       // hashes of pages or blocks out of range, too many, or twice in an epoch
  kDiskIo,      // no fault of the primary's: this node's disks cannot take what came
};
inline constexpr size_t kFaultCount = 16;
inline constexpr std::array<absl::string_view, kFaultCount> kFaultNames = {
    "none",   "framing", "unexpected", "body", "term",       "epoch_order", "pages", "count",
    "digest", "machine", "console",    "cap",  "superseded", "disks",       "audit", "disk_io"};
static_assert(!kFaultNames.back().empty(), "every fault has a name");
constexpr absl::string_view FaultName(Fault fault) {
  return kFaultNames[static_cast<size_t>(fault)];
}

// InvalidArgument (kCap: ResourceExhausted; kTerm, kSuperseded: FailedPrecondition) with the kind.
absl::Status FaultStatus(Fault fault, absl::string_view message);
// `status`, an error, with the kind put on it.
absl::Status WithFault(Fault fault, absl::Status status);
// The kind on it; kNone if there is none.
Fault FaultOf(const absl::Status& status);

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_FAULT_H_
