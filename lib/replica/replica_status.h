// What a replica says of itself: by state, and in words for a person. Values.
#ifndef ROMULUS_REPLICA_REPLICA_STATUS_H_
#define ROMULUS_REPLICA_REPLICA_STATUS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "base/types.h"
#include "replica/epoch_key.h"

namespace romulus::replica {

enum class ReplicaState : uint8_t { kEmpty, kSyncing, kCommitted, kGuestFinished, kPromoted };
constexpr absl::string_view ReplicaStateName(ReplicaState state) {
  constexpr absl::string_view kNames[] = {"empty", "syncing", "committed", "guest_finished",
                                          "promoted"};
  return kNames[static_cast<size_t>(state)];
}

struct ReplicaStatus {
  ReplicaState state = ReplicaState::kEmpty;
  EpochKey newest;               // committed; {0, 0} if none
  EpochKey given_up;             // committed before, overwritten by the full sync under way
  Term known_term;               // newest heard of
  uint64_t sync_pages_done = 0;  // distinct pages
  uint64_t sync_pages_total = 0;
  bool sync_complete = false;
  uint64_t console_end = 0;
  uint64_t console_tail_bytes = 0;
  uint64_t staged_bytes = 0;
  uint64_t sync_disk_bytes = 0;  // written by the full sync under way, or the last
  std::string detail;            // for a person: why there is (not) something to promote
};

// "epoch 7 of term 2".
std::string NameOf(const EpochKey& key);
// Why there is (not) something to promote. `detail_of_state`: what the state itself has to say, if
// anything.
std::string DetailOf(const ReplicaStatus& status, absl::string_view detail_of_state);

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_REPLICA_STATUS_H_
