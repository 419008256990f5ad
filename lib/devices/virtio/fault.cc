#include "devices/virtio/fault.h"

#include "absl/strings/str_cat.h"

namespace romulus::devices {

absl::string_view VirtioFaultName(VirtioFault fault) {
  switch (fault) {
    case VirtioFault::kAvailIndex:
      return "avail_index";
    case VirtioFault::kHeadIndex:
      return "head_index";
    case VirtioFault::kHeadInUse:
      return "head_in_use";
    case VirtioFault::kDescriptorIndex:
      return "descriptor_index";
    case VirtioFault::kChainTooLong:
      return "chain_too_long";
    case VirtioFault::kChainBytes:
      return "chain_bytes";
    case VirtioFault::kZeroLength:
      return "zero_length";
    case VirtioFault::kBufferAddress:
      return "buffer_address";
    case VirtioFault::kReadableAfterWritable:
      return "readable_after_writable";
    case VirtioFault::kIndirectNotOffered:
      return "indirect_not_offered";
    case VirtioFault::kIndirectNested:
      return "indirect_nested";
    case VirtioFault::kIndirectWithNext:
      return "indirect_with_next";
    case VirtioFault::kIndirectTable:
      return "indirect_table";
    case VirtioFault::kQueueSize:
      return "queue_size";
    case VirtioFault::kQueueAddress:
      return "queue_address";
    case VirtioFault::kQueueLive:
      return "queue_live";
    case VirtioFault::kQueueIndex:
      return "queue_index";
    case VirtioFault::kStatus:
      return "status";
    case VirtioFault::kFeatures:
      return "features";
    case VirtioFault::kRegisterWidth:
      return "register_width";
    case VirtioFault::kRequest:
      return "request";
    case VirtioFault::kRegister:
      return "register";
    case VirtioFault::kCount:
      break;
  }
  return "unknown";
}

absl::Status VirtioFaultStatus(VirtioFault fault) {
  return absl::InvalidArgumentError(
      absl::StrCat("the virtio driver broke a rule: ", VirtioFaultName(fault)));
}

uint64_t VirtioFaultCounters::total() const {
  uint64_t sum = 0;
  for (const std::atomic<uint64_t>& count : counts_) sum += count.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace romulus::devices
