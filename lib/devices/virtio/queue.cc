#include "devices/virtio/queue.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace romulus::devices {
namespace {

constexpr uint16_t kNext = 1;  // 2.7.5
constexpr uint16_t kWrite = 2;
constexpr uint16_t kIndirect = 4;
constexpr uint16_t kNoInterrupt = 1;  // 2.7.6
constexpr uint16_t kNoNotify = 1;     // 2.7.8
constexpr uint64_t kDescriptorBytes = 16;
constexpr uint64_t kUsedElementBytes = 8;
constexpr uint64_t kIndexOffset = 2;  // of `idx` in both rings
constexpr uint64_t kRingOffset = 4;   // of `ring` in both rings
constexpr uint64_t kMaxChainBytes = uint64_t{1} << 32;

struct UsedElement {
  uint32_t id;
  uint32_t size_bytes;
};
static_assert(sizeof(UsedElement) == kUsedElementBytes);

// The queue's part of its device's section; the heads in flight follow, 16 bits each.
struct QueueState {
  uint64_t descriptors = 0;
  uint64_t driver = 0;
  uint64_t device = 0;
  uint32_t size = 0;
  uint16_t next_avail = 0;
  uint16_t next_used = 0;
  uint16_t signalled_used = 0;
  uint16_t in_flight = 0;
  uint32_t ready = 0;
};
static_assert(sizeof(QueueState) == 40);

}  // namespace

struct VirtQueue::Descriptor {
  uint64_t address;
  uint32_t size_bytes;
  uint16_t flags;
  uint16_t next;
};

std::optional<VirtioFault> VirtQueue::CheckSetup(const QueueSetup& setup) const {
  if (!std::has_single_bit(setup.size) || setup.size > max_size_) return VirtioFault::kQueueSize;
  const memory::MemoryLayout& layout = memory_.layout();
  const uint64_t size = setup.size;
  // With the event fields, which are there even if nobody uses them.
  if (setup.descriptors % 16 != 0 || setup.driver % 2 != 0 || setup.device % 4 != 0 ||
      layout.Find(Gpa(setup.descriptors), kDescriptorBytes * size) == nullptr ||
      layout.Find(Gpa(setup.driver), 6 + 2 * size) == nullptr ||
      layout.Find(Gpa(setup.device), 6 + kUsedElementBytes * size) == nullptr) {
    return VirtioFault::kQueueAddress;
  }
  return std::nullopt;
}

std::optional<VirtioFault> VirtQueue::Enable(const QueueSetup& setup, QueueFeatures features) {
  Reset();
  if (std::optional<VirtioFault> fault = CheckSetup(setup)) return fault;
  setup_ = setup;
  features_ = features;
  is_in_flight_.assign(setup.size, false);
  ready_ = true;
  return std::nullopt;
}

void VirtQueue::Reset() {
  ++generation_;
  ready_ = false;
  setup_ = {};
  features_ = {};
  fault_.reset();
  next_avail_ = next_used_ = signalled_used_ = 0;
  in_flight_.clear();
  is_in_flight_.clear();
  replay_.clear();
}

absl::Status VirtQueue::Break(VirtioFault fault) {
  fault_ = fault;
  return VirtioFaultStatus(fault);
}

std::atomic_ref<uint16_t> VirtQueue::Field(uint64_t gpa) const {
  absl::StatusOr<std::span<std::byte>> bytes = memory_.WritableSpan(Gpa(gpa), sizeof(uint16_t));
  ROMULUS_CHECK(bytes.ok());
  // SAFETY: two bytes of guest memory, aligned as CheckSetup() has seen (the mapping begins at a
  // page). Both sides access them as a whole, so that neither sees half of an index.
  return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(bytes->data()));
}

// The driver's barrier (2.7.13.3.1) is paired with this load: what is read after it is at least as
// new as the index. Sequentially consistent, since SetNotifications() stores before it.
uint16_t VirtQueue::LoadAvailIndex() const {
  return Field(setup_.driver + kIndexOffset).load(std::memory_order_seq_cst);
}

absl::StatusOr<std::optional<Chain>> VirtQueue::Pop() {
  if (fault_) return VirtioFaultStatus(*fault_);
  if (!ready_) return std::nullopt;
  if (!replay_.empty()) {
    const uint16_t head = replay_.front();
    absl::StatusOr<Chain> chain = Walk(head);
    if (!chain.ok()) return chain.status();
    replay_.pop_front();
    in_flight_.push_back(head);
    return std::optional<Chain>(*std::move(chain));
  }
  const uint16_t waiting = static_cast<uint16_t>(LoadAvailIndex() - next_avail_);
  if (waiting == 0) return std::nullopt;
  // What waits and what the device holds are different chains, each with a descriptor of its own.
  if (waiting + in_flight_.size() > setup_.size) return Break(VirtioFault::kAvailIndex);
  const uint64_t slot = next_avail_ % setup_.size;
  absl::StatusOr<uint16_t> head =
      memory_.ReadObject<uint16_t>(Gpa(setup_.driver + kRingOffset + 2 * slot));
  ROMULUS_CHECK(head.ok());
  if (*head >= setup_.size) return Break(VirtioFault::kHeadIndex);
  if (is_in_flight_[*head]) return Break(VirtioFault::kHeadInUse);
  absl::StatusOr<Chain> chain = Walk(*head);
  if (!chain.ok()) return chain.status();
  ++next_avail_;
  in_flight_.push_back(*head);
  is_in_flight_[*head] = true;
  return std::optional<Chain>(*std::move(chain));
}

absl::StatusOr<Chain> VirtQueue::Walk(uint16_t head) {
  Chain chain;
  chain.head = head;
  chain.generation = generation_;
  uint64_t table = setup_.descriptors;
  uint64_t entries = setup_.size;
  uint64_t left = setup_.size;  // descriptors until it must be a loop
  bool in_indirect = false;
  uint64_t index = head;
  for (;;) {
    if (left-- == 0) return Break(VirtioFault::kChainTooLong);
    const absl::StatusOr<Descriptor> read =
        memory_.ReadObject<Descriptor>(Gpa(table + kDescriptorBytes * index));
    ROMULUS_CHECK(read.ok());  // the whole table was checked
    const Descriptor& descriptor = *read;
    if ((descriptor.flags & kIndirect) != 0) {
      if (in_indirect) return Break(VirtioFault::kIndirectNested);
      if (!features_.indirect) return Break(VirtioFault::kIndirectNotOffered);
      if ((descriptor.flags & kNext) != 0) return Break(VirtioFault::kIndirectWithNext);
      if (descriptor.size_bytes == 0 || descriptor.size_bytes % kDescriptorBytes != 0 ||
          memory_.layout().Find(Gpa(descriptor.address), descriptor.size_bytes) == nullptr) {
        return Break(VirtioFault::kIndirectTable);
      }
      in_indirect = true;
      table = descriptor.address;
      entries = descriptor.size_bytes / kDescriptorBytes;
      left = std::min<uint64_t>(entries, kMaxChain);
      index = 0;
      continue;
    }
    if (std::optional<VirtioFault> fault = Add(descriptor, chain)) return Break(*fault);
    if ((descriptor.flags & kNext) == 0) return chain;
    if (descriptor.next >= entries) return Break(VirtioFault::kDescriptorIndex);
    index = descriptor.next;
  }
}

std::optional<VirtioFault> VirtQueue::Add(const Descriptor& descriptor, Chain& chain) const {
  if (descriptor.size_bytes == 0) return VirtioFault::kZeroLength;
  const Segment segment{Gpa(descriptor.address), descriptor.size_bytes};
  if (memory_.layout().Find(segment.gpa, segment.size_bytes) == nullptr) {
    return VirtioFault::kBufferAddress;
  }
  if ((descriptor.flags & kWrite) != 0) {
    chain.writable.push_back(segment);
    chain.writable_bytes += segment.size_bytes;
  } else {
    if (!chain.writable.empty()) return VirtioFault::kReadableAfterWritable;
    chain.readable.push_back(segment);
    chain.readable_bytes += segment.size_bytes;
  }
  if (chain.readable_bytes + chain.writable_bytes > kMaxChainBytes) return VirtioFault::kChainBytes;
  return std::nullopt;
}

void VirtQueue::Push(const Chain& chain, uint32_t written_bytes) {
  const UsedChain used{&chain, written_bytes};
  PushTogether(std::span(&used, 1));
}

void VirtQueue::PushTogether(std::span<const UsedChain> used) {
  bool pushed = false;
  for (const UsedChain& one : used) {
    if (!Holds(*one.chain)) continue;
    const uint16_t head = one.chain->head;
    const auto held = std::find(in_flight_.begin(), in_flight_.end(), head);
    ROMULUS_CHECK(held != in_flight_.end());  // no chain is given back twice
    in_flight_.erase(held);
    is_in_flight_[head] = false;
    const uint64_t slot = next_used_ % setup_.size;
    const absl::Status status =
        memory_.WriteObject(Gpa(setup_.device + kRingOffset + kUsedElementBytes * slot),
                            UsedElement{.id = head, .size_bytes = one.written_bytes});
    ROMULUS_CHECK(status.ok());
    ++next_used_;
    pushed = true;
  }
  if (!pushed) return;
  // The elements before the index (2.7.8.2). Sequentially consistent: NeedsInterrupt() loads after.
  const uint64_t index = setup_.device + kIndexOffset;
  Field(index).store(next_used_, std::memory_order_seq_cst);
  ROMULUS_CHECK(memory_.MarkWritten(Gpa(index), sizeof(uint16_t)).ok());
}

bool VirtQueue::NeedsInterrupt() {
  if (!ready_ || fault_) return false;
  const uint16_t old = std::exchange(signalled_used_, next_used_);
  if (old == next_used_) return false;
  if (!features_.event_index) {
    return (Field(setup_.driver).load(std::memory_order_seq_cst) & kNoInterrupt) == 0;
  }
  const uint64_t used_event = setup_.driver + kRingOffset + 2 * uint64_t{setup_.size};
  const uint16_t event = Field(used_event).load(std::memory_order_seq_cst);
  // Whether `event` is one of the indices from `old` on that were written since (2.7.7.2).
  return static_cast<uint16_t>(next_used_ - event - 1) < static_cast<uint16_t>(next_used_ - old);
}

bool VirtQueue::SetNotifications(bool wanted) {
  if (!ready_ || fault_) return false;
  if (features_.event_index) {
    // An event index that is already passed asks for nothing until the ring has come around.
    if (!wanted) return false;
    const uint64_t avail_event =
        setup_.device + kRingOffset + kUsedElementBytes * uint64_t{setup_.size};
    Field(avail_event).store(next_avail_, std::memory_order_seq_cst);
    ROMULUS_CHECK(memory_.MarkWritten(Gpa(avail_event), sizeof(uint16_t)).ok());
  } else {
    const uint16_t flags = wanted ? 0 : kNoNotify;
    if (Field(setup_.device).load(std::memory_order_relaxed) != flags) {
      Field(setup_.device).store(flags, std::memory_order_seq_cst);
      ROMULUS_CHECK(memory_.MarkWritten(Gpa(setup_.device), sizeof(uint16_t)).ok());
    }
    if (!wanted) return false;
  }
  return !replay_.empty() || LoadAvailIndex() != next_avail_;
}

std::vector<uint16_t> VirtQueue::InFlight() const {
  // Handed out again already, then not yet: that is the order in which they were popped.
  std::vector<uint16_t> heads = in_flight_;
  heads.insert(heads.end(), replay_.begin(), replay_.end());
  return heads;
}

void VirtQueue::Save(base::ByteWriter& out) const {
  const std::vector<uint16_t> heads = InFlight();
  out.Write(QueueState{.descriptors = setup_.descriptors,
                       .driver = setup_.driver,
                       .device = setup_.device,
                       .size = setup_.size,
                       .next_avail = next_avail_,
                       .next_used = next_used_,
                       .signalled_used = signalled_used_,
                       .in_flight = static_cast<uint16_t>(heads.size()),
                       .ready = ready_});
  for (const uint16_t head : heads) out.Write(head);
}

absl::Status VirtQueue::Restore(base::ByteReader& in, QueueFeatures features) {
  const auto saved = in.Read<QueueState>();
  std::vector<uint16_t> heads;
  for (uint32_t i = 0; i < saved.in_flight && in.ok(); ++i) heads.push_back(in.Read<uint16_t>());
  if (!in.ok()) return absl::InvalidArgumentError("the state of a virtqueue ends early");
  if (saved.ready > 1) return absl::InvalidArgumentError("a virtqueue is neither ready nor not");
  const QueueSetup setup{saved.size, saved.descriptors, saved.driver, saved.device};
  if (saved.ready == 0) {
    if (setup != QueueSetup{} || saved.next_avail != 0 || saved.next_used != 0 ||
        saved.signalled_used != 0 || saved.in_flight != 0) {
      return absl::InvalidArgumentError("a virtqueue that is not ready has a state");
    }
    Reset();
    return absl::OkStatus();
  }
  if (std::optional<VirtioFault> fault = CheckSetup(setup)) return VirtioFaultStatus(*fault);
  // Every chain that was popped is either used or in flight.
  if (static_cast<uint16_t>(saved.next_avail - saved.next_used) != saved.in_flight) {
    return absl::InvalidArgumentError("a virtqueue's indices do not fit its chains in flight");
  }
  std::vector<bool> is_in_flight(setup.size, false);
  for (const uint16_t head : heads) {
    if (head >= setup.size || is_in_flight[head]) {
      return absl::InvalidArgumentError(absl::StrCat("a virtqueue has ", head, " in flight"));
    }
    is_in_flight[head] = true;
  }
  Reset();
  setup_ = setup;
  features_ = features;
  ready_ = true;
  next_avail_ = saved.next_avail;
  next_used_ = saved.next_used;
  signalled_used_ = saved.signalled_used;
  is_in_flight_ = std::move(is_in_flight);
  replay_.assign(heads.begin(), heads.end());
  return absl::OkStatus();
}

}  // namespace romulus::devices
