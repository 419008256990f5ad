// An arbiter whose record is one key of an etcd cluster, changed by compare-and-swap. Its word is
// as good as etcd's: linearizable as long as a majority of its members agree, silent while they do
// not.
//
// A claim reads the record, judges it (failover::JudgeClaim), and swaps it under the condition that
// it is still at the revision that was read. A swap whose answer is lost is not repeated blindly:
// the record is read again, and shows whether it took effect.
//
// Threads and lifetime: as failover::Arbiter.
#ifndef ROMULUS_ARBITER_ETCD_ARBITER_H_
#define ROMULUS_ARBITER_ETCD_ARBITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/executor.h"
#include "failover/arbiter.h"

namespace romulus::arbiter {

struct EtcdOptions {
  // "host:port" of members, tried in turn, beginning with the one that answered last. 1 to 16.
  std::vector<std::string> endpoints;
  // The key is the prefix and the VM's UUID in lower case.
  std::string prefix = "/romulus/";
  // Of whom answers are accepted; 0: of the cluster that answers first.
  uint64_t cluster_id = 0;
  bool tls = false;
  std::string ca_file;    // empty: the system's
  std::string cert_file;  // with key_file, or both empty
  std::string key_file;
  std::string user;  // empty: none, or the certificate's common name
  std::string password_file;
};

// Reads the files; connects with the first question. `executor` outlives the arbiter, and is the
// one that it is called on. Errors: those of a file, naming it; InvalidArgument for options that
// contradict each other.
absl::StatusOr<std::unique_ptr<failover::Arbiter>> MakeEtcdArbiter(
    const EtcdOptions& options, const failover::ArbiterIdentity& identity,
    base::Executor* executor);

}  // namespace romulus::arbiter

#endif  // ROMULUS_ARBITER_ETCD_ARBITER_H_
