// Certificates, keys, passwords and identities. Any thread.
#ifndef ROMULUS_BASE_SMALL_FILE_H_
#define ROMULUS_BASE_SMALL_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace romulus::base {

// The whole of a regular file of at most 1 MiB. Errors: what the system says, and InvalidArgument
// for anything else, naming the file.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

}  // namespace romulus::base

#endif  // ROMULUS_BASE_SMALL_FILE_H_
