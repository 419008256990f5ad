#include "virtio.h"

struct VirtioPlace g_virtio_place = {.base = 0xd0000000, .stride = 0x1000, .count = 8};

struct VirtioDevice VirtioProbe(uint64_t index) {
  struct VirtioDevice device = {0};
  device.window = g_virtio_place.base + index * g_virtio_place.stride;
  if (index >= g_virtio_place.count || VirtioGet(&device, kVirtioMagic) != 0x74726976 ||
      VirtioGet(&device, kVirtioVersion) != 2) {
    return device;
  }
  device.id = VirtioGet(&device, kVirtioDeviceId);
  device.vendor = VirtioGet(&device, kVirtioVendorId);
  return device;
}

struct VirtioDevice VirtioFind(uint32_t id, uint64_t index) {
  for (uint64_t i = 0; i < g_virtio_place.count; ++i) {
    if (index != UINT64_MAX && i != index) continue;
    const struct VirtioDevice device = VirtioProbe(i);
    if (device.id == id) return device;
  }
  FailNumber("no virtio device of type ", id);
}

bool VirtioReset(const struct VirtioDevice* device) {
  const uint64_t begin = ReadTsc();
  VirtioPut(device, kVirtioStatus, 0);
  while (VirtioGet(device, kVirtioStatus) != 0) {
    if (ReadTsc() - begin > g_guest_options.tsc_khz * 1000) return false;
  }
  return true;
}

uint64_t VirtioOffered(const struct VirtioDevice* device) {
  VirtioPut(device, kVirtioDeviceFeaturesSel, 1);
  const uint64_t high = VirtioGet(device, kVirtioDeviceFeatures);
  VirtioPut(device, kVirtioDeviceFeaturesSel, 0);
  return high << 32 | VirtioGet(device, kVirtioDeviceFeatures);
}

// The order is that of 3.1.1.
bool VirtioNegotiate(struct VirtioDevice* device, uint64_t wanted) {
  if (!VirtioReset(device)) return false;
  VirtioPut(device, kVirtioStatus, kVirtioAcknowledge);
  VirtioPut(device, kVirtioStatus, kVirtioAcknowledge | kVirtioDriver);
  device->features = VirtioOffered(device) & (wanted | VIRTIO_F_VERSION_1);
  VirtioPut(device, kVirtioDriverFeaturesSel, 0);
  VirtioPut(device, kVirtioDriverFeatures, (uint32_t)device->features);
  VirtioPut(device, kVirtioDriverFeaturesSel, 1);
  VirtioPut(device, kVirtioDriverFeatures, (uint32_t)(device->features >> 32));
  VirtioPut(device, kVirtioStatus, kVirtioAcknowledge | kVirtioDriver | kVirtioFeaturesOk);
  return (VirtioGet(device, kVirtioStatus) & kVirtioFeaturesOk) != 0;
}

static void PutAddress(const struct VirtioDevice* device, uint32_t offset, uint64_t address) {
  VirtioPut(device, offset, (uint32_t)address);
  VirtioPut(device, offset + 4, (uint32_t)(address >> 32));
}

uint64_t RingSetUp(struct VirtioRing* ring, const struct VirtioDevice* device, uint32_t queue,
                   uint16_t size, uint64_t memory) {
  VirtioPut(device, kVirtioQueueSel, queue);
  const uint32_t max = VirtioGet(device, kVirtioQueueNumMax);
  if (max == 0) return 0;
  while (size > max) size >>= 1;
  const uint64_t avail = memory + 16ull * size;
  const uint64_t used = (avail + 6 + 2ull * size + 3) & ~3ull;
  const uint64_t end = (used + 6 + 8ull * size + 15) & ~15ull;
  memset((void*)(uintptr_t)memory, 0, end - memory);
  ring->queue = queue;
  ring->size = size;
  ring->event_index = (device->features & VIRTIO_F_EVENT_IDX) != 0;
  ring->desc = (volatile struct VirtioDesc*)(uintptr_t)memory;
  ring->avail = (volatile uint16_t*)(uintptr_t)avail;
  ring->used = (volatile uint16_t*)(uintptr_t)used;
  ring->next_avail = ring->published = ring->next_used = 0;
  ring->avail[0] = 1;              // no interrupts, please (2.7.6)
  ring->avail[2 + size] = 0xffff;  // nor by event index, until the indices have come around
  VirtioPut(device, kVirtioQueueNum, size);
  PutAddress(device, kVirtioQueueDesc, memory);
  PutAddress(device, kVirtioQueueDriver, avail);
  PutAddress(device, kVirtioQueueDevice, used);
  VirtioPut(device, kVirtioQueueReady, 1);
  return end - memory;
}

void VirtioStart(const struct VirtioDevice* device) {
  VirtioPut(device, kVirtioStatus, VirtioGet(device, kVirtioStatus) | kVirtioDriverOk);
}

void RingAdd(struct VirtioRing* ring, uint16_t head) {
  ring->avail[2 + ring->next_avail % ring->size] = head;
  ring->next_avail++;
}

void RingPublish(struct VirtioRing* ring, const struct VirtioDevice* device) {
  const uint16_t old = ring->published;
  const uint16_t new = ring->next_avail;
  if (old == new) return;
  CompilerFence();
  ring->avail[1] = new;
  ring->published = new;
  FullFence();  // the index before the device's wish is read (2.7.13.4.1)
  const uint16_t event = ring->used[2 + 4 * ring->size];
  const bool wanted = ring->event_index ? (uint16_t)(new - event - 1) < (uint16_t)(new - old)
                                        : (ring->used[0] & 1) == 0;
  if (wanted) VirtioPut(device, kVirtioQueueNotify, ring->queue);
}

bool RingTake(struct VirtioRing* ring, struct VirtioUsedElement* element) {
  if (ring->used[1] == ring->next_used) return false;
  CompilerFence();
  const volatile struct VirtioUsedElement* elements =
      (const volatile struct VirtioUsedElement*)(ring->used + 2);
  const uint16_t slot = ring->next_used % ring->size;
  element->id = elements[slot].id;
  element->size = elements[slot].size;
  ring->next_used++;
  if (ring->event_index) ring->avail[2 + ring->size] = ring->next_used - 1;
  return true;
}
