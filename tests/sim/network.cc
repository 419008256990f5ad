#include "sim/network.h"

#include <algorithm>
#include <utility>

namespace romulus::sim {
namespace {

constexpr uint64_t kUsualDelayNs = kMillisecond / 2;
constexpr uint64_t kRareDelayNs = 20 * kMillisecond;

}  // namespace

class Network::SimLink final : public wire::Link {
 public:
  SimLink(Network* network, std::shared_ptr<Connection> connection, int side)
      : network_(network), connection_(std::move(connection)), side_(side) {}
  ~SimLink() override { network_->LetGo(connection_, side_); }
  absl::Status Send(std::string frames) override {
    return network_->Send(connection_, side_, std::move(frames));
  }
  void Close(const absl::Status& why) override { network_->CloseEnd(connection_, side_, why); }

 private:
  Network* network_;
  std::shared_ptr<Connection> connection_;
  int side_;
};

void Network::Listen(int node, std::shared_ptr<Process> process, Accept accept) {
  process_[node] = std::move(process);
  accept_[node] = std::move(accept);
}

bool Network::Reachable(int from) const {
  return accept_[1 - from] != nullptr && !cut_[0] && !cut_[1];
}

std::unique_ptr<wire::Link> Network::Connect(int node, wire::LinkListener* listener) {
  const int other = 1 - node;
  if (!Reachable(node)) return nullptr;
  auto connection = std::make_shared<Connection>();
  connection->number = ++connections_made_;
  connection->ends[0].node = node;
  connection->ends[0].process = process_[node];
  connection->ends[0].listener = listener;
  connection->ends[1].node = other;
  connection->ends[1].process = process_[other];
  wire::LinkListener* const accepted =
      accept_[other](std::make_shared<SimLink>(this, connection, 1));
  if (accepted == nullptr) return nullptr;
  connection->ends[1].listener = accepted;
  std::erase_if(connections_,
                [](const auto& old) { return old->ends[0].closed && old->ends[1].closed; });
  connections_.push_back(connection);
  return std::make_unique<SimLink>(this, connection, 0);
}

uint64_t Network::Delay(int towards) {
  uint64_t delay_ns = kMillisecond / 20 + scheduler_->Pick(kUsualDelayNs);
  if (scheduler_->Chance(32)) delay_ns += scheduler_->Pick(kRareDelayNs);
  if (slow_until_ns_[towards] > scheduler_->now_ns()) {
    delay_ns += scheduler_->Pick(slow_extra_ns_[towards] + 1);
  }
  return delay_ns;
}

absl::Status Network::Send(const std::shared_ptr<Connection>& connection, int side,
                           std::string bytes) {
  if (connection->ends[side].closing) return absl::UnavailableError("the link is closed");
  const int towards = connection->ends[1 - side].node;
  Enqueue(connection, 1 - side,
          {scheduler_->now_ns() + Delay(towards), false, std::move(bytes), absl::OkStatus()});
  return absl::OkStatus();
}

void Network::Enqueue(const std::shared_ptr<Connection>& connection, int side, Message message) {
  End& end = connection->ends[side];
  if (end.closed) return;
  if (!end.inbox.empty()) {
    message.ready_ns = std::max(message.ready_ns, end.inbox.back().ready_ns);
  }
  end.inbox.push_back(std::move(message));
  Pump(connection, side);
}

void Network::Pump(const std::shared_ptr<Connection>& connection, int side) {
  End& end = connection->ends[side];
  if (end.pumping || end.closed || end.inbox.empty()) return;
  if (cut_[1 - end.node] || host_down_[end.node]) return;
  uint64_t at_ns = std::max(end.inbox.front().ready_ns, scheduler_->now_ns());
  at_ns = std::max({at_ns, unread_until_ns_[end.node], end.process->stopped_until_ns});
  end.pumping = true;
  scheduler_->After(at_ns - scheduler_->now_ns(), [this, connection, side] {
    connection->ends[side].pumping = false;
    Deliver(connection, side);
    Pump(connection, side);
  });
}

void Network::Deliver(const std::shared_ptr<Connection>& connection, int side) {
  End& end = connection->ends[side];
  if (end.closed || end.inbox.empty() || cut_[1 - end.node] || host_down_[end.node]) return;
  const uint64_t now_ns = scheduler_->now_ns();
  if (unread_until_ns_[end.node] > now_ns || end.process->stopped_until_ns > now_ns) return;
  if (end.inbox.front().ready_ns > now_ns) return;
  Message message = std::move(end.inbox.front());
  end.inbox.pop_front();
  if (message.is_end) return TellClosed(end, message.why);
  if (connection->number < connections_made_) tally_->Count(Fault::kOldStream);
  end.listener->OnMessage(message.bytes);
}

void Network::TellClosed(End& end, const absl::Status& why) {
  if (end.closed) return;
  end.closed = end.closing = true;
  end.inbox.clear();
  end.listener->OnClosed(why);
}

// As a gRPC call that is cancelled: this end hears it soon, whatever still comes; the other, if the
// network lets it, behind what was sent before, of which some may be lost.
void Network::CloseEnd(const std::shared_ptr<Connection>& connection, int side,
                       const absl::Status& why) {
  End& end = connection->ends[side];
  if (end.closing) return;
  end.closing = true;
  scheduler_->After(scheduler_->Pick(kMillisecond / 2),
                    [this, connection, side, why] { TellClosed(connection->ends[side], why); });
  End& peer = connection->ends[1 - side];
  if (scheduler_->Chance(4)) peer.inbox.clear();
  Enqueue(connection, 1 - side,
          {scheduler_->now_ns() + Delay(peer.node), true, "",
           absl::UnavailableError("the peer closed the stream")});
}

// A link's destructor waits for the listener's last call.
void Network::LetGo(const std::shared_ptr<Connection>& connection, int side) {
  End& end = connection->ends[side];
  end.held = false;
  if (end.closed) return;
  CloseEnd(connection, side, absl::CancelledError("link destroyed"));
  if (end.listener == nullptr) {
    end.closed = true;  // nobody was there to take it
    return;
  }
  TellClosed(end, absl::CancelledError("link destroyed"));
}

void Network::Kill(int node, bool host_too) {
  accept_[node] = nullptr;
  host_down_[node] = host_too;
  for (const auto& connection : std::vector(connections_)) {
    for (int side = 0; side < 2; ++side) {
      End& end = connection->ends[side];
      if (end.node != node || end.closed) continue;
      end.closed = end.closing = true;
      end.inbox.clear();
      if (host_too) continue;
      Enqueue(connection, 1 - side,
              {scheduler_->now_ns() + Delay(1 - node), true, "",
               absl::UnavailableError("the peer's process ended")});
    }
  }
}

// Its kernel knows nothing of the old connections, and says so to whoever still sends.
void Network::HostIsBack(int node) {
  host_down_[node] = false;
  for (const auto& connection : std::vector(connections_)) {
    for (int side = 0; side < 2; ++side) {
      if (connection->ends[side].node != node || !connection->ends[side].closed) continue;
      Enqueue(connection, 1 - side,
              {scheduler_->now_ns() + Delay(1 - node), true, "",
               absl::UnavailableError("connection reset by peer")});
    }
  }
}

void Network::Cut(int from) { cut_[from] = true; }

void Network::Heal() {
  cut_ = {};
  for (const auto& connection : std::vector(connections_)) {
    Pump(connection, 0);
    Pump(connection, 1);
  }
}

void Network::Reset() {
  for (const auto& connection : std::vector(connections_)) {
    for (int side = 0; side < 2; ++side) {
      End& end = connection->ends[side];
      if (end.closed) continue;
      if (scheduler_->Chance(2)) end.inbox.clear();
      end.closing = true;
      Enqueue(connection, side,
              {scheduler_->now_ns() + Delay(end.node), true, "",
               absl::UnavailableError("connection reset")});
    }
  }
}

void Network::Slow(int towards, uint64_t until_ns, uint64_t extra_ns) {
  slow_until_ns_[towards] = until_ns;
  slow_extra_ns_[towards] = extra_ns;
}

void Network::Unread(int node, uint64_t until_ns) { unread_until_ns_[node] = until_ns; }

bool Network::MangleOne(Mangle how) {
  for (auto it = connections_.rbegin(); it != connections_.rend(); ++it) {
    for (int side = 0; side < 2; ++side) {
      std::deque<Message>& inbox = (*it)->ends[side].inbox;
      if (inbox.empty() || inbox.front().is_end) continue;
      if (how == Mangle::kSwap) {
        if (inbox.size() < 2 || inbox[1].is_end) continue;
        std::swap(inbox[0].bytes, inbox[1].bytes);
      } else if (how == Mangle::kDouble) {
        inbox.insert(inbox.begin(), inbox.front());
      } else {
        inbox.pop_front();
      }
      return true;
    }
  }
  return false;
}

size_t Network::UnderWay(int node) const {
  size_t count = 0;
  for (const auto& connection : connections_) {
    for (const End& end : connection->ends) count += end.node == node ? end.inbox.size() : 0;
  }
  return count;
}

}  // namespace romulus::sim
