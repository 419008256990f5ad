// One network card of the guest with all that it needs on this host: the tap, the gate that holds
// its frames (P1), and what moves frames between tap, gate and guest on the device loop.
//
// Life: Open() on both nodes, before the machine is made; Spec() into MachineSpec.virtio; output()
// into CheckpointParts.outputs; Activate() when the guest is about to run here (after Boot or
// Restore, before Start); on a promotion Announce() after that. Until Activate() nothing is read
// from the tap or written to it: what comes for a guest that is only prepared is thrown away.
//
// Open() and the destructor on the controlling thread, the rest from any. The machine is destroyed
// before the object, and the object before the device loop, which may run or be stopped. The
// destructor gives the tap back: it can be opened again at once.
#ifndef ROMULUS_DAEMON_NIC_H_
#define ROMULUS_DAEMON_NIC_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/asio_executor.h"
#include "devices/net_address.h"
#include "epoch/held_output.h"
#include "romulus/v1/config.pb.h"
#include "vmm/machine.h"

namespace romulus::daemon {

struct NicOptions {
  std::string name;  // of the device in the machine: "virtio.net.0"; the same on both nodes
  std::string tap;   // of this host
  devices::MacAddress mac{};
  uint16_t mtu = 1500;                           // bytes
  std::vector<devices::IpAddress> announce_ips;  // beside the MAC
  uint64_t cap_bytes = 8u << 20;                 // held and unwritten frames, with what holds them
  // Between the first two rounds of announcements; each gap is twice the one before.
  uint64_t announce_gap_ms = 50;
};

// From a configuration in which "{node}" is already this node's name; `index` counts from 0.
// Errors: InvalidArgument that names the field.
absl::StatusOr<NicOptions> NicOptionsFrom(const romulus::v1::Nic& nic,
                                          const romulus::v1::Checkpoint& checkpoint, int index);

// Told on the device loop or a vCPU thread, seldom; must not block; may be empty. For the log.
struct NicEvents {
  // A frame came in that says it is from this card. Told once; counters().mac_clashes goes on.
  std::function<void()> on_mac_clash;
  // The tap takes or gives no frames (it is down, it is gone), or, with an OK status, does again.
  std::function<void(const absl::Status&)> on_tap_failure;
};

struct NicCounters {
  uint64_t frames_out = 0;  // the guest's, written to the tap
  uint64_t bytes_out = 0;   // without virtio's headers
  uint64_t frames_in = 0;   // delivered to the guest
  uint64_t bytes_in = 0;
  uint64_t held_frames = 0;         // wait for their epoch's ack, now
  uint64_t held_bytes = 0;          // of the same
  uint64_t queued_bytes = 0;        // may leave, and wait for the tap, now
  uint64_t cap_bytes_used = 0;      // by these, with what holds them
  uint64_t frames_dropped_in = 0;   // came for a prepared guest, or in no form for this one
  uint64_t frames_dropped_out = 0;  // the tap was down or refused them
  uint64_t bad_frames = 0;          // of the guest: dropped, no network could carry them
  uint64_t mac_clashes = 0;         // frames that came in from our own MAC
  uint64_t frames_announced = 0;    // by Announce()
};

class Nic {
 public:
  // Opens the tap, which must be there. Errors: Tap::Open.
  static absl::StatusOr<std::unique_ptr<Nic>> Open(const NicOptions& options,
                                                   AsioExecutor& device_loop, NicEvents events);
  ~Nic();
  Nic(const Nic&) = delete;
  Nic& operator=(const Nic&) = delete;

  // For MachineSpec.virtio; `make` is to be called at most once, on this or another thread.
  vmm::VirtioSpec Spec();
  // For CheckpointParts.outputs and the node's roles. Starts open.
  epoch::HeldOutput& output();
  // Told, once per cut, when frames begin to wait; for the governor. Before Activate().
  void SetOutputWaiting(std::function<void()> callback);

  // The guest is here: what waits in the tap was for another and is thrown away, and from then on
  // frames flow. Idempotent.
  void Activate();
  // Tells the network that the card is here now: kAnnounceRounds times, with growing gaps, for some
  // seconds. Ends early when output() is told to Discard(); begins anew when called again.
  void Announce();
  static constexpr int kAnnounceRounds = 7;

  NicCounters counters() const;
  const NicOptions& options() const;

 private:
  class Core;
  explicit Nic(std::shared_ptr<Core> core);

  const std::shared_ptr<Core> core_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_NIC_H_
