// The guest as the checkpoint and the failover see it. Header-only and free of KVM: everything
// behind it could be another VMM. vmm::Machine implements it; tests/support has a fake.
#ifndef ROMULUS_VMM_GUEST_H_
#define ROMULUS_VMM_GUEST_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "state/machine_state.h"

namespace romulus::vmm {

enum class GuestStop {
  kPowerOff,     // the guest asked for it
  kReset,        // the guest asked for it; there is no warm reset: treated as a stop
  kTripleFault,  // KVM_EXIT_SHUTDOWN
  kError,        // KVM_RUN failed or an exit could not be handled; see the status
};

// Told by vCPU threads; must not block and must not call back into the guest.
class GuestListener {
 public:
  virtual ~GuestListener() = default;
  // A vCPU left the guest because its dirty ring is full; it stays out until a checkpoint. It may
  // pause the guest itself, and resume it (PauseOptions::if_free).
  virtual void OnDirtyRingFull() = 0;
  // Of a vCPU before it runs again: when it is to leave the guest by itself, by the monotonic
  // clock; 0: not at all. Then OnAlarm(), which may do what OnDirtyRingFull() may. Asked of a
  // guest's only vCPU, and of all where they have no processor beside them for whoever would kick
  // them.
  virtual uint64_t NextAlarmNs() { return 0; }
  virtual void OnAlarm() {}
  // The guest will not run again.
  virtual void OnGuestStopped(GuestStop reason, const absl::Status& detail) = 0;
};

// The guest standing still: every vCPU out of KVM_RUN with no half-done I/O, devices quiet. Resumes
// when destroyed, on every path; Resume() does it early. One thread at a time.
class PausedGuest {
 public:
  virtual ~PausedGuest() = default;
  // Everything but memory: vCPUs (each read by its own thread, in parallel), VM, devices.
  // The reading begins when the pause does; this waits for it and hands it over. Once per pause.
  virtual absl::StatusOr<state::MachineState> TakeState() = 0;
  // Fills every vCPU's dirty ring with ballast (vmm/ring_ballast.h). Its state has been taken.
  virtual absl::Status FillRings() { return absl::UnimplementedError("no dirty rings"); }
  virtual void Resume() = 0;
};

struct PauseOptions {
  bool capture_state = true;  // false: a pause only to harvest (full sync), TakeState() is an error
  // Unavailable at once if somebody else pauses the guest, or is about to. On a vCPU's own thread
  // there is no other way: whoever pauses waits for that thread.
  bool if_free = false;
};

class Guest {
 public:
  virtual ~Guest() = default;
  // Stops the guest (DESIGN, steps 1 and 2). Callable from one checkpoint thread at a time, before
  // Start() too, and after the guest stopped by itself (OnGuestStopped): the last epoch, with the
  // last output, is cut then. Errors: FailedPrecondition after Stop().
  virtual absl::StatusOr<std::unique_ptr<PausedGuest>> Pause(const PauseOptions& options) = 0;
  // Lets the vCPUs run for the first time.
  virtual absl::Status Start() = 0;
  // Ends all vCPU threads; the guest cannot run again. Idempotent; not from a vCPU thread.
  virtual void Stop() = 0;
  virtual int vcpu_count() const = 0;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_GUEST_H_
