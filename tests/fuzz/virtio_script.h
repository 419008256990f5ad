// What the virtio fuzzer's input means: a first byte that chooses the device, then steps.
#ifndef ROMULUS_TESTS_FUZZ_VIRTIO_SCRIPT_H_
#define ROMULUS_TESTS_FUZZ_VIRTIO_SCRIPT_H_

#include <cstdint>

namespace romulus::devices::testing {

enum class VirtioStep : uint8_t {
  kPutWord,     // memory[place * 4] = value (4 bytes), in the first 256 KiB
  kPutAddress,  // the same with 8 bytes: value, its top byte also that of the address
  kDescriptor,  // entry place & 0xf of queue low's table: place >> 4 says flags and next
  kOffer,       // offers head `value` on queue low
  kAvailIndex,  // sets queue low's available index to `value`
  kRegister,    // writes register 4 * low
  kAccess,      // any access: low is the shape, place the offset, value the data
  kNotify,      // notifies queue `low` and runs the device
  kRun,         // runs at most `low` pieces of work
  kBringUp,     // negotiates features by low, sets up all queues with 2^(value % 8) entries
  kOutside,     // the host's side: a disk's request is done, the console gets room or input, the
                // network card room and frames of `place` bytes with a header out of `value`
  kPause,       // pauses; compares with a restored device; bends byte `place` of the state by low
  kCount,
};

struct VirtioStepBytes {
  uint8_t step = 0;
  uint8_t low = 0;
  uint16_t place = 0;
  uint32_t value = 0;
};
static_assert(sizeof(VirtioStepBytes) == 8);

}  // namespace romulus::devices::testing

#endif  // ROMULUS_TESTS_FUZZ_VIRTIO_SCRIPT_H_
