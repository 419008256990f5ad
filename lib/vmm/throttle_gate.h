// Where a vCPU asks, after handling an exit and before entering the guest again, whether it has to
// wait: output is held over its cap (P6). Owned by vmm, implemented downstream. Called from vCPU
// threads, often: one atomic load. When the gate opens again its owner calls
// Machine::WakeThrottled().
#ifndef ROMULUS_VMM_THROTTLE_GATE_H_
#define ROMULUS_VMM_THROTTLE_GATE_H_

namespace romulus::vmm {

class ThrottleGate {
 public:
  virtual ~ThrottleGate() = default;
  virtual bool MustWait() const = 0;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_THROTTLE_GATE_H_
