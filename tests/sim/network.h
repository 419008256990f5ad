// The simulated network: connections that keep the order of what they carry (as TCP does), and lose
// it, delay it, cut it, in either direction, as the schedule says. Two connections know nothing of
// each other: what an old one still carries may come after all of a new one.
#ifndef ROMULUS_TESTS_SIM_NETWORK_H_
#define ROMULUS_TESTS_SIM_NETWORK_H_

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sim/scheduler.h"
#include "sim/tally.h"
#include "wire/link.h"

namespace romulus::sim {

class Network {
 public:
  Network(Scheduler* scheduler, Tally* tally) : scheduler_(scheduler), tally_(tally) {}

  // Whoever listens on a node: given a new connection's end, names its listener, or null.
  using Accept = std::function<wire::LinkListener*(std::shared_ptr<wire::Link> link)>;
  void Listen(int node, std::shared_ptr<Process> process, Accept accept);
  // From `node` to the other. Null: nobody listens there, or the way is cut.
  std::unique_ptr<wire::Link> Connect(int node, wire::LinkListener* listener);
  bool Reachable(int from) const;  // the other node, there and back

  // The node's process is gone: its ends too. The other node hears so at once (its kernel lives),
  // or only when the host is back.
  void Kill(int node, bool host_too);
  void HostIsBack(int node);

  // Nothing passes from `from` to the other node, until Heal().
  void Cut(int from);
  void Heal();
  bool cut(int from) const { return cut_[from]; }
  // All standing connections end; what is under way may be lost.
  void Reset();
  // From now until then everything towards the node takes longer, by up to `extra_ns`.
  void Slow(int towards, uint64_t until_ns, uint64_t extra_ns);
  // What comes to the node's streams lies unread until then.
  void Unread(int node, uint64_t until_ns);
  // Something under way is doubled, dropped, or swapped with the next.
  enum class Mangle { kDouble, kDrop, kSwap };
  bool MangleOne(Mangle how);
  // How many messages are under way towards the node.
  size_t UnderWay(int node) const;

 private:
  struct Message {
    uint64_t ready_ns;
    bool is_end;
    std::string bytes;
    absl::Status why;
  };
  struct End {
    int node = 0;
    wire::LinkListener* listener = nullptr;
    std::shared_ptr<Process> process;
    bool held = true;      // the link object lives
    bool closing = false;  // nothing can be sent any more
    bool closed = false;   // the listener has heard the end, or never will
    bool pumping = false;
    std::deque<Message> inbox;
  };
  struct Connection {
    uint64_t number = 0;
    std::array<End, 2> ends;  // of who connected, of who accepted
  };
  class SimLink;

  absl::Status Send(const std::shared_ptr<Connection>& connection, int side, std::string bytes);
  void CloseEnd(const std::shared_ptr<Connection>& connection, int side, const absl::Status& why);
  void LetGo(const std::shared_ptr<Connection>& connection, int side);
  void Enqueue(const std::shared_ptr<Connection>& connection, int side, Message message);
  void Pump(const std::shared_ptr<Connection>& connection, int side);
  void Deliver(const std::shared_ptr<Connection>& connection, int side);
  void TellClosed(End& end, const absl::Status& why);
  uint64_t Delay(int towards);

  Scheduler* scheduler_;
  Tally* tally_;
  std::array<Accept, 2> accept_;
  std::array<std::shared_ptr<Process>, 2> process_;
  std::array<bool, 2> host_down_{};
  std::array<bool, 2> cut_{};  // from the node to the other
  std::array<uint64_t, 2> slow_until_ns_{};
  std::array<uint64_t, 2> slow_extra_ns_{};
  std::array<uint64_t, 2> unread_until_ns_{};
  uint64_t connections_made_ = 0;
  std::vector<std::shared_ptr<Connection>> connections_;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_NETWORK_H_
