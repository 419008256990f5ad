// The only ioctl calls of the project's KVM code, with an errno turned into a Status that names the
// ioctl. Internal to lib/kvm. Any thread.
#ifndef ROMULUS_KVM_IOCTL_H_
#define ROMULUS_KVM_IOCTL_H_

#include <sys/ioctl.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/status.h"

namespace romulus::kvm::internal {

// The ioctl's result, or its errno. Repeats when a signal interrupted it before it did anything:
// none of the ioctls called through here (KVM_RUN is not) does half its work and then says EINTR.
// SAFETY: every caller passes the struct that `request` was made from, or an array that outlives
// the call with the size that its header states.
template <typename Argument>
absl::StatusOr<int> Call(int fd, unsigned long request, Argument argument, absl::string_view name) {
  int result;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  if (result < 0) return base::ErrnoStatus(errno, name);
  return result;
}

template <typename Argument>
absl::Status Set(int fd, unsigned long request, Argument argument, absl::string_view name) {
  return Call(fd, request, argument, name).status();
}

template <typename T>
absl::StatusOr<T> Get(int fd, unsigned long request, absl::string_view name) {
  T value{};
  absl::StatusOr<int> result = Call(fd, request, &value, name);
  if (!result.ok()) return result.status();
  return value;
}

}  // namespace romulus::kvm::internal

#endif  // ROMULUS_KVM_IOCTL_H_
