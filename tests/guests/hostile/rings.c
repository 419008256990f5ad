// Attacks through the rings: descriptors, indices, indirect tables. Sections are of virtio 1.2.
#include "hostile.h"

// A fault in a chain shows when the device takes it; from some queues it does not until something
// comes from outside.
static enum Expect Fault(const struct Target* target) {
  return target->eager ? kExpectReset : kExpectAny;
}

static enum Expect BadBuffer(struct Target* target, uint64_t address, uint32_t size) {
  Prepare(target, 0);
  PutDesc(target, 0, address, size, Below(2) != 0 ? kDescWrite : 0, 0);
  Launch(target);
  return Fault(target);
}

static enum Expect OutOfRange(struct Target* target) {
  const uint64_t places[] = {g_ram_end,  g_ram_end + (Random() & 0xfffff000), 0xd0000000,
                             0xfee00000, 1ull << 40 | Below(1ull << 32),      ~0ull << 12};
  return BadBuffer(target, places[Below(6)], (uint32_t)Below(1 << 20) + 1);
}

static enum Expect AcrossTheEnd(struct Target* target) {
  const uint32_t before = (uint32_t)Below(4096) + 1;
  return BadBuffer(target, g_ram_end - before, before + (uint32_t)Below(1 << 16) + 1);
}

static enum Expect Wrapping(struct Target* target) {
  const uint32_t before = (uint32_t)Below(1 << 16) + 1;
  return BadBuffer(target, 0 - (uint64_t)before, before + (uint32_t)Below(1 << 20) + 1);
}

static enum Expect ZeroLength(struct Target* target) {
  return BadBuffer(target, RandomBuffer(16), 0);
}

static enum Expect HugeLength(struct Target* target) {
  return BadBuffer(target, RandomBuffer(16), 0xffffffff - (uint32_t)Below(16));
}

static enum Expect Loop(struct Target* target) {
  Prepare(target, 0);
  const uint16_t length = (uint16_t)(1 + Below(kRingSize));
  for (uint16_t i = 0; i < length; ++i) {
    PutDesc(target, i, RandomBuffer(16), 16, kDescNext, (uint16_t)((i + 1) % length));
  }
  Launch(target);
  return Fault(target);
}

static enum Expect HeadIndex(struct Target* target) {
  Prepare(target, 0);
  Offer(target, (uint16_t)(target->ring.size + Below(65536 - target->ring.size)));
  VirtioStart(&target->device);
  Kick(target);
  return Fault(target);
}

static enum Expect NextIndex(struct Target* target) {
  Prepare(target, 0);
  const uint16_t next = (uint16_t)(target->ring.size + Below(65536 - target->ring.size));
  PutDesc(target, 0, RandomBuffer(16), 16, kDescNext, next);
  Launch(target);
  return Fault(target);
}

static enum Expect AvailIndex(struct Target* target) {
  Prepare(target, 0);
  PutDesc(target, 0, RandomBuffer(16), 16, 0, 0);
  target->ring.avail[1] = (uint16_t)(target->ring.size + 1 + Below(65535 - target->ring.size));
  VirtioStart(&target->device);
  Kick(target);
  return Fault(target);
}

static enum Expect SameHead(struct Target* target) {
  Prepare(target, 0);
  PutDesc(target, 0, RandomBuffer(512), 512, kDescWrite, 0);
  for (uint16_t i = 0; i < target->ring.size; ++i) Offer(target, 0);
  VirtioStart(&target->device);
  Kick(target);
  return kExpectAny;  // honest if each was used before the next was looked at
}

static enum Expect ReadableLast(struct Target* target) {
  Prepare(target, 0);
  PutDesc(target, 0, RandomBuffer(512), 512, kDescWrite | kDescNext, 1);
  PutDesc(target, 1, RandomBuffer(512), 512, 0, 0);
  Launch(target);
  return Fault(target);
}

// A chain whose only descriptor is the indirect table that was written to ARENA_TABLES.
static enum Expect LaunchTable(struct Target* target, uint32_t size, uint16_t flags) {
  PutDesc(target, 0, ARENA_TABLES, size, (uint16_t)(kDescIndirect | flags), 1);
  PutDesc(target, 1, RandomBuffer(16), 16, kDescWrite, 0);
  Launch(target);
  return (target->offered & VIRTIO_F_INDIRECT_DESC) != 0 ? Fault(target) : kExpectAny;
}

static volatile struct VirtioDesc* Table(void) {
  return (volatile struct VirtioDesc*)(uintptr_t)ARENA_TABLES;
}

static enum Expect IndirectNotAgreed(struct Target* target) {
  Prepare(target, VIRTIO_F_INDIRECT_DESC);
  Table()[0] = (struct VirtioDesc){RandomBuffer(512), 512, kDescWrite, 0};
  return LaunchTable(target, 16, 0);
}

static enum Expect IndirectNested(struct Target* target) {
  Prepare(target, 0);
  Table()[0] = (struct VirtioDesc){ARENA_TABLES, 16, kDescIndirect, 0};
  return LaunchTable(target, 16, 0);
}

static enum Expect IndirectWithNext(struct Target* target) {
  Prepare(target, 0);
  Table()[0] = (struct VirtioDesc){RandomBuffer(512), 512, kDescWrite, 0};
  return LaunchTable(target, 16, kDescNext);
}

static enum Expect IndirectLength(struct Target* target) {
  Prepare(target, 0);
  Table()[0] = (struct VirtioDesc){RandomBuffer(512), 512, kDescWrite, 0};
  return LaunchTable(target, (uint32_t)(Below(4096) * 16 + Below(15) + 1), 0);
}

static enum Expect IndirectAddress(struct Target* target) {
  Prepare(target, 0);
  PutDesc(target, 0, Below(2) != 0 ? g_ram_end - 16 : 0xd0000000, 64, kDescIndirect, 0);
  Launch(target);
  return (target->offered & VIRTIO_F_INDIRECT_DESC) != 0 ? Fault(target) : kExpectAny;
}

// 65,536 descriptors, each leading to the next.
static enum Expect IndirectHuge(struct Target* target) {
  enum { kEntries = 65536 };
  _Static_assert(kEntries * 16ull <= ARENA_BUFFERS - ARENA_TABLES, "room");
  Prepare(target, 0);
  for (uint32_t i = 0; i < kEntries; ++i) {
    Table()[i] = (struct VirtioDesc){ARENA_BUFFERS + i, 1, kDescNext, (uint16_t)(i + 1)};
  }
  return LaunchTable(target, kEntries * 16, 0);
}

static enum Expect IndirectLoop(struct Target* target) {
  Prepare(target, 0);
  for (uint16_t i = 0; i < 8; ++i) {
    Table()[i] = (struct VirtioDesc){RandomBuffer(16), 16, kDescNext, (uint16_t)((i + 1) % 8)};
  }
  return LaunchTable(target, 8 * 16, 0);
}

// Random flags, lengths and links. Addresses are the arena's or nobody's: never ours.
static void PutGarbage(volatile struct VirtioDesc* desc) {
  const uint32_t size = (uint32_t)Below(Below(4) == 0 ? 1ull << 32 : 70000);
  uint64_t address = Random() | 1ull << 52;
  if (Below(8) != 0 && size < ARENA_BUFFER_BYTES) address = RandomBuffer(size);
  const uint16_t next = (uint16_t)Below(Below(8) == 0 ? 65536 : kRingSize);
  *desc = (struct VirtioDesc){address, size, (uint16_t)(Below(8) == 0 ? Random() : Below(4)), next};
}

static enum Expect Garbage(struct Target* target) {
  Prepare(target, 0);
  for (uint16_t i = 0; i < target->ring.size; ++i) {
    PutGarbage(&target->ring.desc[i]);
    // An indirect table at random in the arena may hold descriptors to anywhere.
    target->ring.desc[i].flags &= (uint16_t)~kDescIndirect;
  }
  for (uint16_t i = 0; i < 1 + Below(target->ring.size); ++i) {
    Offer(target, (uint16_t)Below(target->ring.size));
  }
  VirtioStart(&target->device);
  Kick(target);
  return kExpectAny;
}

// Changes descriptors and indices while the device works on them.
static enum Expect Race(struct Target* target) {
  Prepare(target, 0);
  for (uint16_t i = 0; i < target->ring.size; ++i) {
    PutDesc(target, i, RandomBuffer(512), 512, i % 2 == 0 ? kDescNext : kDescWrite,
            (uint16_t)(i + 1));
  }
  for (uint16_t i = 0; i < target->ring.size; i += 2) Offer(target, i);
  VirtioStart(&target->device);
  Kick(target);
  const uint64_t begin = ReadTsc();
  while (ReadTsc() - begin < g_guest_options.tsc_khz * 3) {
    PutGarbage(&target->ring.desc[Below(target->ring.size)]);
    target->ring.desc[Below(target->ring.size)].flags &= (uint16_t)~kDescIndirect;
    if (Below(16) == 0) target->ring.avail[1] = (uint16_t)Random();
    if (Below(16) == 0) target->ring.used[Below(2)] = (uint16_t)Random();
    if (Below(256) == 0) Kick(target);
  }
  return kExpectAny;
}

// The used ring lies over the descriptors, the available ring over itself.
static enum Expect Overlap(struct Target* target) {
  Prepare(target, 0);
  VirtioPut(&target->device, kVirtioQueueSel, target->queue);
  VirtioPut(&target->device, kVirtioQueueReady, 0);
  VirtioPut(&target->device, kVirtioQueueDevice, ARENA_RING + 16 * (uint32_t)Below(4));
  VirtioPut(&target->device, kVirtioQueueReady, 1);
  for (uint16_t i = 0; i < target->ring.size; ++i) {
    PutDesc(target, i, RandomBuffer(512), 512, kDescWrite, 0);
    Offer(target, i);
  }
  VirtioStart(&target->device);
  Kick(target);
  return kExpectAny;
}

const struct Attack kRingAttacks[] = {
    {"out_of_range", OutOfRange},
    {"across_the_end", AcrossTheEnd},
    {"wrapping", Wrapping},
    {"zero_length", ZeroLength},
    {"huge_length", HugeLength},
    {"loop", Loop},
    {"head_index", HeadIndex},
    {"next_index", NextIndex},
    {"avail_index", AvailIndex},
    {"same_head", SameHead},
    {"readable_last", ReadableLast},
    {"indirect_not_agreed", IndirectNotAgreed},
    {"indirect_nested", IndirectNested},
    {"indirect_with_next", IndirectWithNext},
    {"indirect_length", IndirectLength},
    {"indirect_address", IndirectAddress},
    {"indirect_huge", IndirectHuge},
    {"indirect_loop", IndirectLoop},
    {"garbage", Garbage},
    {"race", Race},
    {"overlap", Overlap},
};
const size_t kRingAttackCount = sizeof(kRingAttacks) / sizeof(kRingAttacks[0]);
