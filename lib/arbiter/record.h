// The bytes of an arbiter's record (romulus.v1.ArbiterRecord). Values; any thread.
#ifndef ROMULUS_ARBITER_RECORD_H_
#define ROMULUS_ARBITER_RECORD_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "failover/arbiter.h"

namespace romulus::arbiter {

inline constexpr size_t kMaxRecordBytes = 1024;

// At most kMaxRecordBytes, if names are at most 64 bytes and the build is sensible; a longer one is
// cut.
std::string EncodeRecord(absl::string_view vm_uuid, const failover::ArbiterRecord& record);

// Errors: FailedPrecondition, saying what is wrong, unless the bytes are a record of this format
// and of this VM.
absl::StatusOr<failover::ArbiterRecord> DecodeRecord(absl::string_view vm_uuid,
                                                     absl::string_view bytes);

}  // namespace romulus::arbiter

#endif  // ROMULUS_ARBITER_RECORD_H_
