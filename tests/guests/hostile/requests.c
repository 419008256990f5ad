// Attacks with what each type of device takes, resets in mid-flight, and the honest work that shows
// that a device is well.
#include "hostile.h"

enum { kBlkIn = 0, kBlkOut = 1, kBlkGetId = 8, kBlkDiscard = 11, kBlkWriteZeroes = 13 };
#define VIRTIO_BLK_F_RO (1ull << 5)

struct BlockHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};

static uint64_t At(uint64_t offset) { return ARENA_BUFFERS + offset; }
static volatile uint8_t* Bytes(uint64_t offset) { return (volatile uint8_t*)(uintptr_t)At(offset); }

// --- honest work ---------------------------------------------------------------------------------

static uint32_t Await(struct Target* target, const char* what) {
  const uint64_t begin = ReadTsc();
  struct VirtioUsedElement used;
  while (!RingTake(&target->ring, &used)) {
    if (ReadTsc() - begin > g_guest_options.tsc_khz * 5000) Fail("no answer from: ", what);
    Pause();
  }
  return used.size;
}

enum { kHeaderAt = 0, kStatusAt = 64, kDataAt = 4096 };

// 16 bytes of header, data, a byte of status (5.2.6).
static void BlockChain(struct Target* target, uint32_t type, uint64_t sector, uint32_t size,
                       bool device_writes) {
  *(volatile struct BlockHeader*)Bytes(kHeaderAt) = (struct BlockHeader){type, 0, sector};
  *Bytes(kStatusAt) = 0xff;
  PutDesc(target, 0, At(kHeaderAt), sizeof(struct BlockHeader), kDescNext, 1);
  PutDesc(target, 1, At(kDataAt), size, device_writes ? kDescNext | kDescWrite : kDescNext, 2);
  PutDesc(target, 2, At(kStatusAt), 1, kDescWrite, 0);
}

static void BlockWork(struct Target* target, uint32_t type, uint64_t sector, uint32_t size,
                      bool device_writes) {
  BlockChain(target, type, sector, size, device_writes);
  Offer(target, 0);
  Kick(target);
  Await(target, "block");
  if (*Bytes(kStatusAt) != 0) FailNumber("after a reset a request fails, type ", type);
}

static void CheckBlockDevice(struct Target* target) {
  const uint64_t config = target->device.window + kVirtioConfig;
  const uint64_t sectors = (uint64_t)Mmio32(config + 4) << 32 | Mmio32(config);
  BlockWork(target, kBlkGetId, 0, 20, true);
  BlockWork(target, kBlkIn, 0, 512, true);
  if ((target->offered & VIRTIO_BLK_F_RO) != 0) return;
  const uint8_t mark = (uint8_t)Random();
  for (int i = 0; i < 512; ++i) Bytes(kDataAt)[i] = (uint8_t)(mark + i);
  BlockWork(target, kBlkOut, sectors - 1, 512, false);
  for (int i = 0; i < 512; ++i) Bytes(kDataAt)[i] = 0;
  BlockWork(target, kBlkIn, sectors - 1, 512, true);
  for (int i = 0; i < 512; ++i) {
    if (Bytes(kDataAt)[i] != (uint8_t)(mark + i)) Fail("a sector lost what was written", "");
  }
}

static void SendBytes(struct Target* target, const char* bytes, uint32_t header, uint32_t size) {
  for (uint32_t i = 0; i < header + size; ++i) Bytes(kDataAt)[i] = 0;
  for (uint32_t i = 0; i < size; ++i) Bytes(kDataAt)[header + i] = (uint8_t)bytes[i];
  PutDesc(target, 0, At(kDataAt), header + size, 0, 0);
  Offer(target, 0);
  Kick(target);
  Await(target, "transmit");
}

static void CheckRng(struct Target* target) {
  PutDesc(target, 0, At(kDataAt), 64, kDescWrite, 0);
  Offer(target, 0);
  Kick(target);
  const uint32_t size = Await(target, "rng");
  if (size == 0 || size > 64) FailNumber("rng gives bytes: ", size);
}

void CheckHealth(struct Target* target) {
  // To everybody, of the type for local experiments (IEEE 802, 0x88b5).
  static const char kFrame[60] =
      "\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x01\x88\xb5 honest again";
  static const char kText[] = "hostile: honest again\n";
  const uint32_t queue = target->queue;
  const uint32_t id = target->device.id;
  target->queue = id == kVirtioNet || id == kVirtioConsole ? 1 : 0;
  Prepare(target, VIRTIO_F_EVENT_IDX);
  VirtioStart(&target->device);
  if (id == kVirtioBlock) CheckBlockDevice(target);
  if (id == kVirtioRng) CheckRng(target);
  if (id == kVirtioNet) SendBytes(target, kFrame, 12, sizeof(kFrame));
  if (id == kVirtioConsole) SendBytes(target, kText, 0, sizeof(kText) - 1);
  if ((VirtioGet(&target->device, kVirtioStatus) & kVirtioNeedsReset) != 0) {
    FailNumber("honest work needs a reset, type ", id);
  }
  target->queue = queue;
}

// --- attacks -------------------------------------------------------------------------------------

// A chain of random readable and writable buffers, all in the arena.
static void RandomChain(struct Target* target, uint32_t max_size) {
  const uint16_t length = (uint16_t)(1 + Below(8));
  const uint64_t readable = Below(length + 1u);
  for (uint16_t i = 0; i < length; ++i) {
    const uint32_t size = 1 + (uint32_t)Below(max_size);
    const uint16_t flags =
        (uint16_t)((i + 1 < length ? kDescNext : 0) | (i >= readable ? kDescWrite : 0));
    PutDesc(target, i, RandomBuffer(size), size, flags, (uint16_t)(i + 1));
  }
}

static enum Expect RandomShape(struct Target* target) {
  Prepare(target, 0);
  RandomChain(target, Below(2) != 0 ? 64 : 1 << 20);
  Launch(target);
  return kExpectAny;
}

// Every sort of request, at every sector, of every size.
static enum Expect BlockNonsense(struct Target* target) {
  if (target->device.id != kVirtioBlock) return RandomShape(target);
  Prepare(target, 0);
  const uint32_t types[] = {kBlkIn,          kBlkOut,           4, kBlkGetId, kBlkDiscard,
                            kBlkWriteZeroes, (uint32_t)Random()};
  const uint64_t sectors[] = {0, Below(1 << 16), ~0ull, 1ull << 55, Random()};
  const uint32_t sizes[] = {1, 511, 513, 16, 512 * (1 + (uint32_t)Below(128)), 1 << 20};
  VirtioStart(&target->device);
  BlockChain(target, types[Below(7)], sectors[Below(5)], sizes[Below(6)], Below(2) != 0);
  for (int i = 0; i < 64; ++i) Bytes(kDataAt)[i] = (uint8_t)Random();
  Offer(target, 0);
  Kick(target);
  Await(target, "block, nonsense");  // a refusal is an answer
  return kExpectAlive;
}

static enum Expect BlockNoStatus(struct Target* target) {
  if (target->device.id != kVirtioBlock) return RandomShape(target);
  Prepare(target, 0);
  BlockChain(target, kBlkOut, 0, 512, false);
  PutDesc(target, 1, At(kDataAt), 512, 0, 0);
  Launch(target);
  return kExpectReset;
}

static enum Expect BlockShortHeader(struct Target* target) {
  if (target->device.id != kVirtioBlock) return RandomShape(target);
  Prepare(target, 0);
  BlockChain(target, kBlkIn, 0, 512, true);
  PutDesc(target, 0, At(kHeaderAt), 1 + (uint32_t)Below(15), kDescNext, 1);
  Launch(target);
  return kExpectReset;
}

// Offloads that make no sense, or frames of no length, or of a megabyte.
static enum Expect NetNonsense(struct Target* target) {
  if (target->device.id != kVirtioNet) return RandomShape(target);
  target->queue = 1;
  Prepare(target, 0);
  VirtioStart(&target->device);
  for (int round = 0; round < 16; ++round) {
    for (int i = 0; i < 128; ++i) Bytes(kDataAt)[i] = (uint8_t)Random();
    const uint32_t sizes[] = {1, 11, 12, 13, 26, 72, 1526, 65550, 1 << 20};
    PutDesc(target, 0, At(kDataAt), sizes[Below(9)], Below(8) == 0 ? kDescWrite : 0, 0);
    Offer(target, 0);
    Kick(target);
    DelayUs(100);
  }
  return kExpectAny;
}

static void FillRing(struct Target* target) {
  for (uint16_t i = 0; i + 3 <= target->ring.size; i += 3) {
    volatile struct BlockHeader* const header =
        (volatile struct BlockHeader*)Bytes(kHeaderAt + 64ull * i);
    *header = (struct BlockHeader){kBlkIn, 0, 0};
    PutDesc(target, i, At(kHeaderAt + 64ull * i), sizeof(*header), kDescNext, (uint16_t)(i + 1));
    PutDesc(target, (uint16_t)(i + 1), At(65536 + 8192ull * i), 8192, kDescNext | kDescWrite,
            (uint16_t)(i + 2));
    PutDesc(target, (uint16_t)(i + 2), At(kHeaderAt + 64ull * i + 32), 1, kDescWrite, 0);
    Offer(target, i);
  }
}

// What was in flight at a reset is the driver's again: nothing may be written to it afterwards.
static enum Expect ResetInFlight(struct Target* target) {
  enum { kMark = 0xa5 };
  for (int round = 0; round < 4; ++round) {
    Prepare(target, 0);
    FillRing(target);
    VirtioStart(&target->device);
    Kick(target);
    if (Below(2) != 0) DelayUs(Below(200));
    if (!VirtioReset(&target->device)) Fail("no end of a reset in mid-flight", "");
    volatile uint64_t* const words = (volatile uint64_t*)Bytes(0);
    for (uint64_t i = 0; i < ARENA_BUFFER_BYTES / 8; ++i) words[i] = kMark;
    DelayUs(30000);  // longer than a disk takes
    for (uint64_t i = 0; i < ARENA_BUFFER_BYTES / 8; ++i) {
      if (words[i] != kMark) Fail("a device writes after its reset", "");
    }
  }
  return kExpectAlive;
}

static enum Expect ReadyToggles(struct Target* target) {
  Prepare(target, 0);
  FillRing(target);
  VirtioStart(&target->device);
  for (int i = 0; i < 20; ++i) {
    Kick(target);
    VirtioPut(&target->device, kVirtioQueueSel, target->queue);
    VirtioPut(&target->device, kVirtioQueueReady, (uint32_t)Below(2));
  }
  return kExpectAny;
}

const struct Attack kRequestAttacks[] = {
    {"random_shape", RandomShape},      {"block_nonsense", BlockNonsense},
    {"block_no_status", BlockNoStatus}, {"block_short_header", BlockShortHeader},
    {"net_nonsense", NetNonsense},      {"reset_in_flight", ResetInFlight},
    {"ready_toggles", ReadyToggles},
};
const size_t kRequestAttackCount = sizeof(kRequestAttacks) / sizeof(kRequestAttacks[0]);
