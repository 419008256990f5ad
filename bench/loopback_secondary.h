// A secondary in a process of its own, on loopback: what the primary of a bench ships its epochs
// to.
#ifndef ROMULUS_BENCH_LOOPBACK_SECONDARY_H_
#define ROMULUS_BENCH_LOOPBACK_SECONDARY_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace romulus::bench {

// Runs in the child: serves one replication stream until stdin closes. Prints its port on stdout.
// `populate`: its memory is there before the first stream. A virtual machine gets its memory from
// its host at the first touch, which can take longer than all that a bench wants to measure.
absl::Status ServeSecondary(uint64_t memory_mib, bool populate = false);

// The child, started from this program's own file; ends with the object.
class SecondaryProcess {
 public:
  // `arguments` make this program a child that prints its port and ends when stdin closes.
  static absl::StatusOr<SecondaryProcess> Start(const std::vector<std::string>& arguments);
  SecondaryProcess(SecondaryProcess&& other) noexcept;
  SecondaryProcess& operator=(SecondaryProcess&&) = delete;
  ~SecondaryProcess();

  const std::string& address() const { return address_; }
  // Of all its threads so far.
  double cpu_seconds() const;

 private:
  SecondaryProcess(pid_t pid, int stdin_fd, std::string address)
      : pid_(pid), stdin_fd_(stdin_fd), address_(std::move(address)) {}

  pid_t pid_ = -1;
  int stdin_fd_ = -1;
  std::string address_;
};

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_LOOPBACK_SECONDARY_H_
