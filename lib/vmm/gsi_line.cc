#include "vmm/gsi_line.h"

#include "base/check.h"

namespace romulus::vmm {

// A line that cannot be set is a GSI that does not exist: the machine's own mistake.
void GsiLine::Set(bool high) { ROMULUS_CHECK(vm_.SetIrqLine(gsi_, high).ok()); }

}  // namespace romulus::vmm
