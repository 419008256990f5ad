// A secondary in a process of its own, on loopback: what the primary of a bench ships its epochs
// to.
#ifndef ROMULUS_BENCH_LOOPBACK_SECONDARY_H_
#define ROMULUS_BENCH_LOOPBACK_SECONDARY_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace romulus::bench {

// Runs in the child: serves one replication stream until stdin closes. Prints its port on stdout.
absl::Status ServeSecondary(uint64_t memory_mib);

// The child, started from this program's own file; ends with the object.
class SecondaryProcess {
 public:
  static absl::StatusOr<SecondaryProcess> Start(uint64_t memory_mib);
  SecondaryProcess(SecondaryProcess&& other) noexcept;
  SecondaryProcess& operator=(SecondaryProcess&&) = delete;
  ~SecondaryProcess();

  const std::string& address() const { return address_; }

 private:
  SecondaryProcess(pid_t pid, int stdin_fd, std::string address)
      : pid_(pid), stdin_fd_(stdin_fd), address_(std::move(address)) {}

  pid_t pid_ = -1;
  int stdin_fd_ = -1;
  std::string address_;
};

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_LOOPBACK_SECONDARY_H_
