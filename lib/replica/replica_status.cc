#include "replica/replica_status.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace romulus::replica {

std::string NameOf(const EpochKey& key) {
  return absl::StrCat("epoch ", key.epoch.value(), " of term ", key.term.value());
}

std::string DetailOf(const ReplicaStatus& status, absl::string_view detail_of_state) {
  switch (status.state) {
    case ReplicaState::kEmpty:
      return detail_of_state.empty() ? "no full sync has begun" : std::string(detail_of_state);
    case ReplicaState::kSyncing: {
      std::string detail;
      if (status.sync_complete) {
        detail = "full sync done, no epoch committed yet";
      } else {
        const uint64_t total = std::max<uint64_t>(status.sync_pages_total, 1);
        detail = absl::StrCat("full sync ", status.sync_pages_done * 100 / total, " % done (",
                              status.sync_pages_done, " of ", status.sync_pages_total,
                              " pages), no epoch committed yet");
      }
      if (status.given_up != EpochKey()) {
        absl::StrAppend(&detail, "; the replica of ", NameOf(status.given_up),
                        " was given up for this full sync");
      }
      return detail;
    }
    case ReplicaState::kCommitted:
      return absl::StrCat(NameOf(status.newest), " is committed");
    case ReplicaState::kGuestFinished:
      return absl::StrCat("the guest has ended on the primary: ", detail_of_state);
    case ReplicaState::kPromoted:
      return absl::StrCat("the replica was promoted from ", NameOf(status.newest));
  }
  return "";
}

}  // namespace romulus::replica
