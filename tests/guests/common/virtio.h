// A polling virtio driver for guests: transport MMIO version 2 (virtio 1.2, 4.2), split rings
// (2.7).
//
// Interrupts are never used: the driver asks for none and looks at the used ring in memory, which
// needs no exit. A notification is one exit, and is left out when the device does not want it.
#ifndef ROMULUS_TESTS_GUESTS_COMMON_VIRTIO_H_
#define ROMULUS_TESTS_GUESTS_COMMON_VIRTIO_H_

#include "guest.h"

// Register offsets, 4.2.2.
enum {
  kVirtioMagic = 0x000,
  kVirtioVersion = 0x004,
  kVirtioDeviceId = 0x008,
  kVirtioVendorId = 0x00c,
  kVirtioDeviceFeatures = 0x010,
  kVirtioDeviceFeaturesSel = 0x014,
  kVirtioDriverFeatures = 0x020,
  kVirtioDriverFeaturesSel = 0x024,
  kVirtioQueueSel = 0x030,
  kVirtioQueueNumMax = 0x034,
  kVirtioQueueNum = 0x038,
  kVirtioQueueReady = 0x044,
  kVirtioQueueNotify = 0x050,
  kVirtioInterruptStatus = 0x060,
  kVirtioInterruptAck = 0x064,
  kVirtioStatus = 0x070,
  kVirtioQueueDesc = 0x080,  // low half, high half behind it; as the next two
  kVirtioQueueDriver = 0x090,
  kVirtioQueueDevice = 0x0a0,
  kVirtioConfig = 0x100,
};

// Device status, 2.1.
enum {
  kVirtioAcknowledge = 1,
  kVirtioDriver = 2,
  kVirtioDriverOk = 4,
  kVirtioFeaturesOk = 8,
  kVirtioNeedsReset = 64,
};

enum { kVirtioNet = 1, kVirtioBlock = 2, kVirtioConsole = 3, kVirtioRng = 4 };  // 5

#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

enum { kDescNext = 1, kDescWrite = 2, kDescIndirect = 4 };  // 2.7.5

struct VirtioDesc {
  uint64_t address;
  uint32_t size;
  uint16_t flags;
  uint16_t next;
};
struct VirtioUsedElement {
  uint32_t id;
  uint32_t size;
};

struct VirtioDevice {
  uint64_t window;  // guest physical address
  uint32_t id;      // 0: none there
  uint32_t vendor;
  uint64_t features;  // agreed on
};

struct VirtioRing {
  uint32_t queue;
  uint16_t size;
  bool event_index;
  volatile struct VirtioDesc* desc;
  volatile uint16_t* avail;  // flags, index, ring[size], used_event
  volatile uint16_t* used;   // flags, index, then elements, avail_event
  uint16_t next_avail;       // filled so far; published by RingPublish
  uint16_t published;
  uint16_t next_used;
};

// Where the windows are: romulusd's by default, others by option (put VIRTIO_OPTIONS in the table).
struct VirtioPlace {
  uint64_t base, stride, count;
};
extern struct VirtioPlace g_virtio_place;
#define VIRTIO_OPTIONS                                           \
  {"mmio_base", &g_virtio_place.base, 0x1000, 0xfffff000},       \
      {"mmio_stride", &g_virtio_place.stride, 0x200, 0x10000}, { \
    "mmio_count", &g_virtio_place.count, 1, 32                   \
  }

// Exactly one access of that width, whatever the compiler thinks.
static inline uint32_t Mmio32(uint64_t address) {
  uint32_t value;
  __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
  return value;
}
static inline void MmioPut32(uint64_t address, uint32_t value) {
  __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
}
static inline uint8_t Mmio8(uint64_t address) {
  uint8_t value;
  __asm__ volatile("movb (%1), %0" : "=q"(value) : "r"(address) : "memory");
  return value;
}
static inline uint32_t VirtioGet(const struct VirtioDevice* device, uint32_t offset) {
  return Mmio32(device->window + offset);
}
static inline void VirtioPut(const struct VirtioDevice* device, uint32_t offset, uint32_t value) {
  MmioPut32(device->window + offset, value);
}
static inline void CompilerFence(void) { __asm__ volatile("" : : : "memory"); }
static inline void FullFence(void) { __asm__ volatile("mfence" : : : "memory"); }

// What is in window `index`; id 0 if nothing or no modern transport.
struct VirtioDevice VirtioProbe(uint64_t index);
// The device in window `index`, or with `index` UINT64_MAX the first with that id; ends the guest
// if it is not there.
struct VirtioDevice VirtioFind(uint32_t id, uint64_t index);
// False if the device does not finish its reset within a second.
bool VirtioReset(const struct VirtioDevice* device);
uint64_t VirtioOffered(const struct VirtioDevice* device);
// Reset, and agreement on those of `wanted` that are offered; VERSION_1 always. False if refused.
bool VirtioNegotiate(struct VirtioDevice* device, uint64_t wanted);
// Puts a ring of at most `size` entries at `memory` (16-aligned) and hands it to the device;
// returns the bytes it takes, a multiple of 16; 0 if the device has no such queue.
uint64_t RingSetUp(struct VirtioRing* ring, const struct VirtioDevice* device, uint32_t queue,
                   uint16_t size, uint64_t memory);
void VirtioStart(const struct VirtioDevice* device);  // DRIVER_OK

// Adds a chain that begins at descriptor `head`; the device sees it after RingPublish.
void RingAdd(struct VirtioRing* ring, uint16_t head);
// Publishes what was added, and notifies unless the device said that it need not be.
void RingPublish(struct VirtioRing* ring, const struct VirtioDevice* device);
// The next used element, if there is one.
bool RingTake(struct VirtioRing* ring, struct VirtioUsedElement* element);

#endif  // ROMULUS_TESTS_GUESTS_COMMON_VIRTIO_H_
