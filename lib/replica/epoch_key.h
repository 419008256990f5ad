// Names one committed image: the store speaks of epochs, not of "the" image. A value; any thread.
#ifndef ROMULUS_REPLICA_EPOCH_KEY_H_
#define ROMULUS_REPLICA_EPOCH_KEY_H_

#include <compare>

#include "base/types.h"

namespace romulus::replica {

struct EpochKey {
  Term term;
  EpochId epoch;

  friend auto operator<=>(const EpochKey&, const EpochKey&) = default;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_EPOCH_KEY_H_
