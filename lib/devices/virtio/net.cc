#include "devices/virtio/net.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::devices {
namespace {

constexpr size_t kHeaderBytes = sizeof(NetHeader);
constexpr uint16_t kLinkUp = 1;  // 5.1.4, status

// What must be the same on the host that restores.
struct NetState {
  std::array<uint8_t, 8> mac{};  // and two zeros
  uint64_t mtu = 0;
};
static_assert(sizeof(NetState) == 16);

NetHeader LoadHeader(std::span<const std::byte> bytes) {
  NetHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return header;
}

void StoreHeader(std::span<std::byte> bytes, const NetHeader& header) {
  std::memcpy(bytes.data(), &header, sizeof(header));
}

void Raise(std::atomic<uint64_t>& counter, uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

}  // namespace

VirtioNet::VirtioNet(const MacAddress& mac, uint16_t mtu, NetSource& source, NetSink& sink,
                     NetCardCounters& counters)
    : mac_(mac),
      mtu_(mtu),
      source_(source),
      sink_(sink),
      counters_(counters),
      incoming_(kHeaderBytes + kMaxFrameBytes) {
  std::memcpy(config_.data(), mac_.data(), mac_.size());
  std::memcpy(config_.data() + 6, &kLinkUp, sizeof(kLinkUp));
  std::memcpy(config_.data() + 10, &mtu_, sizeof(mtu_));
  outgoing_.reserve(incoming_.size());
  source_.Plug(this);
}

VirtioNet::~VirtioNet() { source_.Plug(nullptr); }

uint64_t VirtioNet::features() const {
  const NetOffloads host = source_.offloads();
  uint64_t features =
      virtio::kNetMac | virtio::kNetMtu | virtio::kNetStatus | virtio::kNetMergeBuffers;
  // What a host can do for others it can leave undone for them.
  if (host.checksum) features |= virtio::kNetChecksum | virtio::kNetGuestChecksum;
  if (host.tso4) features |= virtio::kNetHostTso4 | virtio::kNetGuestTso4;
  if (host.tso6) features |= virtio::kNetHostTso6 | virtio::kNetGuestTso6;
  if (host.ecn) features |= virtio::kNetHostEcn | virtio::kNetGuestEcn;
  return features;
}

// The dependencies of 5.1.3.1 are the driver's to keep; here a feature without the one it needs is
// as good as not agreed on.
void VirtioNet::SetFeatures(uint64_t features) {
  features_ = features;
  const auto offloads = [this](uint64_t checksum, uint64_t tso4, uint64_t tso6, uint64_t ecn) {
    NetOffloads agreed;
    agreed.checksum = Agreed(checksum);
    agreed.tso4 = agreed.checksum && Agreed(tso4);
    agreed.tso6 = agreed.checksum && Agreed(tso6);
    agreed.ecn = (agreed.tso4 || agreed.tso6) && Agreed(ecn);
    return agreed;
  };
  sent_offloads_ = offloads(virtio::kNetChecksum, virtio::kNetHostTso4, virtio::kNetHostTso6,
                            virtio::kNetHostEcn);
  received_offloads_ = offloads(virtio::kNetGuestChecksum, virtio::kNetGuestTso4,
                                virtio::kNetGuestTso6, virtio::kNetGuestEcn);
  source_.SetGuestOffloads(received_offloads_);
}

void VirtioNet::OnQueueStopped(int queue) {
  if (queue == kTransmitQueue) {
    transmitting_.reset();
  } else {
    buffers_.clear();
    buffer_bytes_ = 0;
  }
}

void VirtioNet::Reset() {
  OnQueueStopped(kTransmitQueue);
  OnQueueStopped(kReceiveQueue);
  incoming_bytes_ = 0;
  SetFeatures(0);
}

Progress VirtioNet::Process(int queue) { return queue == kTransmitQueue ? Transmit() : Receive(); }

// --- from the guest ------------------------------------------------------------------------------

Progress VirtioNet::Transmit() {
  size_t sent = 0;
  while (sent < kBytesPerTurn) {
    if (!transmitting_) {
      std::optional<Chain> chain = host().Pop(kTransmitQueue);
      if (!chain) return Progress::kDrained;
      if (!TakeOut(*chain)) continue;
      transmitting_ = *std::move(chain);
    }
    if (!sink_.TakeFrame(outgoing_)) return Progress::kStalled;
    sent += outgoing_.size();
    host().Push(kTransmitQueue, *transmitting_, 0);
    transmitting_.reset();
  }
  return Progress::kAgain;
}

bool VirtioNet::TakeOut(const Chain& chain) {
  // A header at least, and nothing to write to (5.1.6.2).
  if (!chain.writable.empty() || chain.readable_bytes < kHeaderBytes) {
    host().Fail(VirtioFault::kRequest);
    return false;
  }
  std::optional<NetHeader> header;
  if (chain.readable_bytes <= kHeaderBytes + kMaxFrameBytes) {
    outgoing_.resize(chain.readable_bytes);
    const absl::StatusOr<size_t> read = Gather(host().memory(), chain.readable, 0, outgoing_);
    if (read.ok() && *read == outgoing_.size()) {
      header = CheckNetHeader(LoadHeader(outgoing_), std::span(outgoing_).subspan(kHeaderBytes),
                              sent_offloads_, Agreed(virtio::kNetMtu) ? mtu_ : 0);
    }
  }
  if (!header) {
    Raise(counters_.bad_out);
    host().Push(kTransmitQueue, chain, 0);
    return false;
  }
  header->flags &= NetHeader::kNeedsChecksum;  // the others are for drivers only
  StoreHeader(outgoing_, *header);
  return true;
}

// --- to the guest --------------------------------------------------------------------------------

Progress VirtioNet::Receive() {
  size_t received = 0;
  while (received < kBytesPerTurn) {
    if (incoming_bytes_ == 0 && !TakeIn()) return Progress::kStalled;  // OnFramesReady() kicks
    switch (FindRoom()) {
      case Room::kEnough:
        received += incoming_bytes_;
        Deliver();
        break;
      case Room::kNotYet:
        return Progress::kDrained;
      case Room::kNever:
        received += incoming_bytes_;
        Raise(counters_.dropped_in);
        incoming_bytes_ = 0;
        break;
      case Room::kFault:
        host().Fail(VirtioFault::kRequest);
        return Progress::kStalled;
    }
  }
  return Progress::kAgain;
}

bool VirtioNet::TakeIn() {
  // Frames that must be dropped cost time, too.
  for (size_t seen = 0; seen < kBytesPerTurn;) {
    const size_t size = source_.ReadFrame(incoming_);
    if (size == 0) return false;
    seen += size + kHeaderBytes;
    if (size >= kHeaderBytes) {
      const std::optional<NetHeader> header = CheckNetHeader(
          LoadHeader(incoming_), std::span(incoming_).first(size).subspan(kHeaderBytes),
          received_offloads_, Agreed(virtio::kNetMtu) ? mtu_ : 0);
      if (header) {
        StoreHeader(incoming_, *header);
        incoming_bytes_ = size;
        return true;
      }
    }
    Raise(counters_.dropped_in);
  }
  host().Kick(kReceiveQueue);
  return false;
}

// Collects buffers for the frame. Those that are too few, or too small to be one frame's, stay for
// the next.
VirtioNet::Room VirtioNet::FindRoom() {
  const bool merge = Agreed(virtio::kNetMergeBuffers);
  while (buffer_bytes_ < incoming_bytes_) {
    if (!buffers_.empty() && (!merge || buffers_.size() >= host().QueueSize(kReceiveQueue))) {
      return Room::kNever;
    }
    std::optional<Chain> chain = host().Pop(kReceiveQueue);
    if (!chain) return Room::kNotYet;
    if (!chain->readable.empty() || chain->writable_bytes < kHeaderBytes) return Room::kFault;
    buffer_bytes_ += chain->writable_bytes;
    buffers_.push_back(*std::move(chain));
  }
  return Room::kEnough;
}

void VirtioNet::Deliver() {
  // How many are needed: a smaller frame may have been waited for with more.
  size_t count = 0;
  for (uint64_t room = 0; room < incoming_bytes_; ++count) room += buffers_[count].writable_bytes;
  NetHeader header = LoadHeader(incoming_);
  header.buffers = static_cast<uint16_t>(count);
  StoreHeader(incoming_, header);
  // All but the last to their end (5.1.6.4.1).
  std::vector<UsedChain> used;
  used.reserve(count);
  size_t written = 0;
  for (const Chain& chain : std::span(buffers_).first(count)) {
    const size_t size = std::min<uint64_t>(chain.writable_bytes, incoming_bytes_ - written);
    // A checked chain takes all of it.
    const absl::StatusOr<size_t> copied =
        Scatter(host().memory(), chain.writable, 0, std::span(incoming_).subspan(written, size));
    used.push_back({&chain, static_cast<uint32_t>(copied.value_or(0))});
    written += size;
    buffer_bytes_ -= chain.writable_bytes;
  }
  host().PushTogether(kReceiveQueue, used);
  buffers_.erase(buffers_.begin(), buffers_.begin() + static_cast<ptrdiff_t>(count));
  Raise(counters_.frames_in);
  Raise(counters_.bytes_in, incoming_bytes_ - kHeaderBytes);
  incoming_bytes_ = 0;
}

// --- state ---------------------------------------------------------------------------------------

void VirtioNet::Save(base::ByteWriter& out) const {
  NetState state{.mtu = mtu_};
  std::copy(mac_.begin(), mac_.end(), state.mac.begin());
  out.Write(state);
}

absl::Status VirtioNet::Restore(base::ByteReader& in, uint64_t features) {
  const auto saved = in.Read<NetState>();
  if (!in.ok() || saved.mac[6] != 0 || saved.mac[7] != 0 || saved.mtu > UINT16_MAX) {
    return absl::InvalidArgumentError("the network card's state is malformed");
  }
  MacAddress mac;
  std::copy_n(saved.mac.begin(), mac.size(), mac.begin());
  if (mac != mac_ || saved.mtu != mtu_) {
    return absl::FailedPreconditionError(
        absl::StrCat("the guest's network card is ", FormatMac(mac), " with an MTU of ", saved.mtu,
                     "; the one here is ", FormatMac(mac_), " with ", mtu_));
  }
  OnQueueStopped(kTransmitQueue);
  OnQueueStopped(kReceiveQueue);
  incoming_bytes_ = 0;
  SetFeatures(features);
  return absl::OkStatus();
}

}  // namespace romulus::devices
