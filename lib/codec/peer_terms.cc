#include "codec/peer_terms.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status.h"
#include "base/types.h"

namespace romulus::codec {
namespace {

absl::Status CheckTerm(absl::string_view field, uint64_t term) {
  if (Term(term) <= kMaxPeerTerm) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " ", term, " is out of range"));
}

absl::Status CheckTerms(absl::string_view field, const romulus::v1::Lineage& lineage) {
  ROMULUS_RETURN_IF_ERROR(CheckTerm(field, lineage.promoted_term()));
  ROMULUS_RETURN_IF_ERROR(CheckTerm(field, lineage.covers_term()));
  return CheckTerm(field, lineage.shared_term());
}

}  // namespace

absl::Status CheckTerms(const romulus::v1::Hello& hello) {
  ROMULUS_RETURN_IF_ERROR(CheckTerm("hello.term", hello.term()));
  ROMULUS_RETURN_IF_ERROR(CheckTerm("hello.current_term", hello.current_term()));
  ROMULUS_RETURN_IF_ERROR(CheckTerms("hello.lineage", hello.lineage()));
  for (const auto& disk : hello.disks()) {
    ROMULUS_RETURN_IF_ERROR(CheckTerm("hello.disks.term", disk.term()));
    ROMULUS_RETURN_IF_ERROR(CheckTerm("hello.disks.covers_term", disk.covers_term()));
  }
  return absl::OkStatus();
}

absl::Status CheckTerms(const romulus::v1::HelloReply& reply) {
  ROMULUS_RETURN_IF_ERROR(CheckTerm("hello_reply.term", reply.term()));
  ROMULUS_RETURN_IF_ERROR(CheckTerms("hello_reply.lineage", reply.lineage()));
  for (const auto& disk : reply.disks()) {
    ROMULUS_RETURN_IF_ERROR(CheckTerm("hello_reply.disks.term", disk.term()));
  }
  return absl::OkStatus();
}

absl::Status CheckTerms(const romulus::v1::Goodbye& goodbye) {
  return CheckTerm("goodbye.term", goodbye.term());
}

}  // namespace romulus::codec
