// Status helpers: errno to absl::Status, and the two propagation macros.
// Any thread. Nothing here owns anything.
#ifndef ROMULUS_BASE_STATUS_H_
#define ROMULUS_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace romulus::base {

// A Status from an errno value: "<what>: <strerror>". The code follows absl::ErrnoToStatus.
absl::Status ErrnoStatus(int error_number, absl::string_view what);

// The same status with "<context>: " in front of its message; an OK status stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace romulus::base

#define ROMULUS_RETURN_IF_ERROR(expression)          \
  do {                                               \
    absl::Status romulus_status = (expression);      \
    if (!romulus_status.ok()) return romulus_status; \
  } while (false)

#define ROMULUS_MACRO_CONCAT_INNER(a, b) a##b
#define ROMULUS_MACRO_CONCAT(a, b) ROMULUS_MACRO_CONCAT_INNER(a, b)

// ROMULUS_ASSIGN_OR_RETURN(auto x, Expression()): x is the value, or the status is returned.
#define ROMULUS_ASSIGN_OR_RETURN(lhs, expression) \
  ROMULUS_ASSIGN_OR_RETURN_IMPL(ROMULUS_MACRO_CONCAT(romulus_status_or_, __LINE__), lhs, expression)
#define ROMULUS_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expression) \
  auto tmp = (expression);                                  \
  if (!tmp.ok()) return std::move(tmp).status();            \
  lhs = *std::move(tmp)

#endif  // ROMULUS_BASE_STATUS_H_
