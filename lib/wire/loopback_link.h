// Two links joined back to back in memory, with a network between them that a test drives by hand:
// nothing moves until Step(), and faults can be put on what is in flight. Listeners are called from
// the thread that steps. Send() never blocks and memory is not bounded: for tests and simulation.
//
// Destruction order: links may go before or after the network.
#ifndef ROMULUS_WIRE_LOOPBACK_LINK_H_
#define ROMULUS_WIRE_LOOPBACK_LINK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "wire/link.h"

namespace romulus::wire {

enum class LoopbackEnd : uint8_t { kPrimary = 0, kSecondary = 1 };

class LoopbackNetwork {
 public:
  // Listeners may be set later (SetListener), but before the first Step().
  LoopbackNetwork();
  ~LoopbackNetwork();
  LoopbackNetwork(const LoopbackNetwork&) = delete;
  LoopbackNetwork& operator=(const LoopbackNetwork&) = delete;

  // The end's link. Each may be taken once.
  std::unique_ptr<Link> TakeLink(LoopbackEnd end);
  void SetListener(LoopbackEnd end, LinkListener* listener);

  // Delivers one message (or close) that waits for `to`. False if nothing waits.
  bool Step(LoopbackEnd to);
  // Delivers until both directions are empty; at most `max_steps`. Returns how many were delivered.
  size_t Pump(size_t max_steps = 1u << 20);

  // How many messages wait for `to`.
  size_t InFlight(LoopbackEnd to) const;

  // Faults on the message at `index` (0 is the next) of those that wait for `to`. False if there is
  // no such message, or no such byte.
  bool Drop(LoopbackEnd to, size_t index);
  bool Duplicate(LoopbackEnd to, size_t index);
  bool Swap(LoopbackEnd to, size_t index, size_t other);
  bool Truncate(LoopbackEnd to, size_t index, size_t keep_bytes);
  bool FlipBit(LoopbackEnd to, size_t index, size_t bit);
  // Or anything else, also to look inside.
  bool Edit(LoopbackEnd to, size_t index, const std::function<void(std::string&)>& edit);

  // Both listeners hear OnClosed(why) at their next step; what is in flight is lost.
  void Cut(const absl::Status& why);

  // Calls from now on are delivered at once by the sender's own thread (no Step() needed).
  void DeliverAtOnce();

 private:
  struct State;
  class End;
  std::shared_ptr<State> state_;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_LOOPBACK_LINK_H_
