// virtio-blk (virtio 1.2, 5.2), up to kMaxDepth requests in flight, each with a place of its own
// for header, data and status.
#include "disk.h"

enum { kTypeIn = 0, kTypeOut = 1, kTypeFlush = 4, kTypeDiscard = 11, kTypeZeroes = 13 };
#define VIRTIO_BLK_F_FLUSH (1ull << 9)
#define VIRTIO_BLK_F_DISCARD (1ull << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (1ull << 14)

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
struct Range {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
struct Slot {
  struct Header header;
  volatile uint8_t status;
  bool busy;
  uint64_t block;
};

enum { kDescsPerRequest = 3, kRingSize = 64, kRingBytes = 2048 };
_Static_assert(kDescsPerRequest* kMaxDepth <= kRingSize, "descriptors");

static struct VirtioDevice g_device;
static struct VirtioRing g_ring;
static struct Slot g_slots[kMaxDepth];
static uint64_t g_sectors;  // of the whole disk
_Alignas(16) static uint8_t g_ring_memory[kRingBytes];

static uint64_t* Data(uint64_t slot) {
  return (uint64_t*)(uintptr_t)(GUEST_DATA_PA + slot * kMaxBlockBytes);
}

void OpenDevice(void) {
  g_device = VirtioFind(kVirtioBlock, g_options.window);
  const uint64_t needed = VIRTIO_BLK_F_FLUSH | (g_options.discard != 0 ? VIRTIO_BLK_F_DISCARD : 0) |
                          (g_options.zeroes != 0 ? VIRTIO_BLK_F_WRITE_ZEROES : 0);
  const uint64_t wanted = needed | (g_options.event_index != 0 ? VIRTIO_F_EVENT_IDX : 0);
  if (!VirtioNegotiate(&g_device, wanted)) Fail("the device refuses the features", "");
  if ((g_device.features & needed) != needed) {
    Fail("the device lacks flush, discard or write zeroes", "");
  }
  const uint64_t config = g_device.window + kVirtioConfig;
  g_sectors = (uint64_t)Mmio32(config + 4) << 32 | Mmio32(config);
  const uint64_t end = g_options.first + g_options.blocks * (g_options.block_bytes / kSectorBytes);
  if (end > g_sectors) FailNumber("the area does not fit, sectors of the disk: ", g_sectors);
  if (RingSetUp(&g_ring, &g_device, 0, kRingSize, (uint64_t)(uintptr_t)g_ring_memory) >
          kRingBytes ||
      g_ring.size != kRingSize) {
    FailNumber("the device's queue has less entries than ", kRingSize);
  }
  VirtioStart(&g_device);
}

void PrintDevice(struct Line* line) {
  Text(line, " sectors=");
  Decimal(line, g_sectors, 1);
}

void PollRequests(void) {
  struct VirtioUsedElement used;
  while (RingTake(&g_ring, &used)) {
    const uint64_t slot = used.id / kDescsPerRequest;
    if (slot >= kMaxDepth || !g_slots[slot].busy) FailNumber("bad used element ", used.id);
    if (g_slots[slot].status != 0) FailNumber("request failed, type ", g_slots[slot].header.type);
    g_slots[slot].busy = false;
  }
}

static bool Conflicts(uint64_t block) {
  for (uint64_t i = 0; i < kMaxDepth; ++i) {
    if (g_slots[i].busy && g_slots[i].block == block) return true;
  }
  return false;
}

static uint64_t FreeSlot(void) {
  for (;;) {
    for (uint64_t i = 0; i < g_options.depth; ++i) {
      if (!g_slots[i].busy) return i;
    }
    PollRequests();
    Pause();
  }
}

static void WaitForAll(void) {
  for (uint64_t i = 0; i < kMaxDepth; ++i) {
    while (g_slots[i].busy) {
      PollRequests();
      Pause();
    }
  }
}

static void Begin(uint64_t slot, uint32_t type, uint64_t sector, uint32_t data_bytes) {
  struct Slot* const request = &g_slots[slot];
  const uint16_t head = (uint16_t)(slot * kDescsPerRequest);
  request->header = (struct Header){.type = type, .sector = sector};
  request->status = 0xff;
  request->busy = true;
  volatile struct VirtioDesc* desc = &g_ring.desc[head];
  desc[0] = (struct VirtioDesc){(uint64_t)(uintptr_t)&request->header, sizeof(struct Header),
                                kDescNext, (uint16_t)(head + (data_bytes != 0 ? 1 : 2))};
  desc[1] = (struct VirtioDesc){(uint64_t)(uintptr_t)Data(slot), data_bytes,
                                (uint16_t)(kDescNext | (type == kTypeIn ? kDescWrite : 0)),
                                (uint16_t)(head + 2)};
  desc[2] = (struct VirtioDesc){(uint64_t)(uintptr_t)&request->status, 1, kDescWrite, 0};
  RingAdd(&g_ring, head);
  RingPublish(&g_ring, &g_device);
}

uint64_t SubmitWrite(uint64_t write) {
  const uint64_t block = WrittenBlock(write);
  const uint64_t sectors = g_options.block_bytes / kSectorBytes;
  const uint64_t sector = g_options.first + block * sectors;
  const enum Kind kind = KindOf(write);
  // Which of two requests in flight wins is not said; so the second waits.
  while (Conflicts(block)) {
    PollRequests();
    Pause();
  }
  const uint64_t slot = FreeSlot();
  g_slots[slot].block = block;
  if (kind == kKindWrite) {
    const uint64_t sum = FillBlock(Data(slot), block, write);
    Begin(slot, kTypeOut, sector, (uint32_t)g_options.block_bytes);
    return sum;
  }
  *(struct Range*)Data(slot) = (struct Range){.sector = sector, .sectors = (uint32_t)sectors};
  Begin(slot, kind == kKindZeroes ? kTypeZeroes : kTypeDiscard, 0, sizeof(struct Range));
  return write;
}

void Flush(void) {
  WaitForAll();
  g_slots[0].block = UINT64_MAX;
  Begin(0, kTypeFlush, 0, 0);
  WaitForAll();
}

const uint64_t* ReadBlock(uint64_t block) {
  WaitForAll();
  uint64_t* const words = Data(0);
  // So that a read which reads nothing is not taken for the write that was here before.
  for (uint64_t at = 0; at < g_options.block_bytes / 8; at += kSectorWords) words[at] = ~0ull;
  g_slots[0].block = block;
  Begin(0, kTypeIn, g_options.first + block * (g_options.block_bytes / kSectorBytes),
        (uint32_t)g_options.block_bytes);
  WaitForAll();
  return words;
}
