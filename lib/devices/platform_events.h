// What the guest asks of its machine through a device. vmm implements it; called from vCPU threads,
// with a device's lock held: must not block and must not call back into a device.
#ifndef ROMULUS_DEVICES_PLATFORM_EVENTS_H_
#define ROMULUS_DEVICES_PLATFORM_EVENTS_H_

namespace romulus::devices {

class PlatformEvents {
 public:
  virtual ~PlatformEvents() = default;
  virtual void OnPowerOff() = 0;
  virtual void OnReset() = 0;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_PLATFORM_EVENTS_H_
