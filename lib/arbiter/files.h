// Certificates, keys and passwords. Any thread.
#ifndef ROMULUS_ARBITER_FILES_H_
#define ROMULUS_ARBITER_FILES_H_

#include <string>

#include "absl/status/statusor.h"

namespace romulus::arbiter {

// The whole of a regular file of at most 1 MiB. Errors: what the system says, and InvalidArgument
// for anything else, naming the file.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

}  // namespace romulus::arbiter

#endif  // ROMULUS_ARBITER_FILES_H_
