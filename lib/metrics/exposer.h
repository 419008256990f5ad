// Serves a Metrics object over HTTP at /metrics, on threads of its own. Create and destroy on one
// thread; the Metrics must outlive it.
#ifndef ROMULUS_METRICS_EXPOSER_H_
#define ROMULUS_METRICS_EXPOSER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "metrics/metrics.h"

namespace romulus::metrics {

class Exposer {
 public:
  // `address` is "ip:port" ("[::1]:9100" for IPv6); port 0 lets the kernel choose. Errors:
  // InvalidArgument for an address that is none; AlreadyExists if the port is in use; else errno of
  // bind().
  static absl::StatusOr<std::unique_ptr<Exposer>> Listen(absl::string_view address,
                                                         const Metrics& metrics);
  ~Exposer();

  int port() const;

 private:
  struct Impl;
  explicit Exposer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace romulus::metrics

#endif  // ROMULUS_METRICS_EXPOSER_H_
