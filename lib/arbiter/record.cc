#include "arbiter/record.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "romulus/v1/arbiter.pb.h"

namespace romulus::arbiter {
namespace {

constexpr uint32_t kFormat = 1;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxBuildBytes = 200;

// For messages: whoever wrote it may have written anything.
std::string Shown(absl::string_view bytes) {
  return absl::CHexEscape(absl::ClippedSubstr(bytes, 0, kMaxNameBytes));
}

}  // namespace

std::string EncodeRecord(absl::string_view vm_uuid, const failover::ArbiterRecord& record) {
  v1::ArbiterRecord message;
  message.set_format(kFormat);
  message.set_vm_uuid(absl::AsciiStrToLower(vm_uuid));
  message.set_term(record.term.value());
  message.set_holder(record.holder);
  message.set_promoted_term(record.promoted_term.value());
  message.set_build(record.build.substr(0, kMaxBuildBytes));
  message.set_host_id(record.host_id.substr(0, kMaxNameBytes));
  message.set_host_name(record.host_name.substr(0, kMaxNameBytes));
  return message.SerializeAsString();
}

absl::StatusOr<failover::ArbiterRecord> DecodeRecord(absl::string_view vm_uuid,
                                                     absl::string_view bytes) {
  if (bytes.size() > kMaxRecordBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("holds ", bytes.size(), " bytes, a record has at most ", kMaxRecordBytes));
  }
  v1::ArbiterRecord message;
  // A string field that is no UTF-8 does not parse.
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      message.format() == 0) {
    return absl::FailedPreconditionError("holds something that is no record of romulusd");
  }
  if (message.format() != kFormat) {
    return absl::FailedPreconditionError(absl::StrCat("holds a record of format ", message.format(),
                                                      " (by romulusd '", Shown(message.build()),
                                                      "'); this romulusd reads format ", kFormat));
  }
  if (!absl::EqualsIgnoreCase(message.vm_uuid(), vm_uuid)) {
    return absl::FailedPreconditionError(
        absl::StrCat("holds the record of another VM, '", Shown(message.vm_uuid()), "'"));
  }
  failover::ArbiterRecord record;
  record.term = Term(message.term());
  record.holder = message.holder();
  record.promoted_term = Term(message.promoted_term());
  record.build = Shown(message.build());
  record.host_id = message.host_id();
  record.host_name = Shown(message.host_name());
  if (record.term == Term() || record.term > kMaxPeerTerm || record.promoted_term > record.term ||
      record.holder.empty() || record.holder.size() > kMaxNameBytes ||
      Shown(record.holder) != record.holder || Shown(record.host_id) != record.host_id) {
    return absl::FailedPreconditionError(
        absl::StrCat("holds a record that makes no sense: holder '", Shown(record.holder),
                     "' on host '", Shown(record.host_id), "', term ", record.term.value(),
                     ", promoted in term ", record.promoted_term.value()));
  }
  return record;
}

}  // namespace romulus::arbiter
