#include "replica/fault.h"

#include "absl/strings/cord.h"
#include "absl/types/optional.h"

namespace romulus::replica {
namespace {

constexpr absl::string_view kPayloadUrl = "romulus/replica-fault";

}  // namespace

absl::Status WithFault(Fault fault, absl::Status status) {
  const char value = static_cast<char>(fault);
  status.SetPayload(kPayloadUrl, absl::Cord(absl::string_view(&value, 1)));
  return status;
}

absl::Status FaultStatus(Fault fault, absl::string_view message) {
  switch (fault) {
    case Fault::kCap:
      return WithFault(fault, absl::ResourceExhaustedError(message));
    case Fault::kDiskIo:
      return WithFault(fault, absl::UnavailableError(message));
    case Fault::kTerm:
    case Fault::kSuperseded:
      return WithFault(fault, absl::FailedPreconditionError(message));
    default:
      return WithFault(fault, absl::InvalidArgumentError(message));
  }
}

Fault FaultOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value() || payload->size() != 1) return Fault::kNone;
  const auto value = static_cast<size_t>(static_cast<unsigned char>((*payload)[0]));
  return value < kFaultCount ? static_cast<Fault>(value) : Fault::kNone;
}

}  // namespace romulus::replica
