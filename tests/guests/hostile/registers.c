// Attacks through the transport's registers. Sections are of virtio 1.2.
#include "hostile.h"

static void Put(const struct Target* target, uint32_t offset, uint32_t value) {
  VirtioPut(&target->device, offset, value);
}

static void PutAddress(const struct Target* target, uint32_t offset, uint64_t address) {
  Put(target, offset, (uint32_t)address);
  Put(target, offset + 4, (uint32_t)(address >> 32));
}

// Takes the queue away again, to set it up wrongly.
static void Unready(struct Target* target) {
  Prepare(target, 0);
  Put(target, kVirtioQueueSel, target->queue);
  Put(target, kVirtioQueueReady, 0);
}

static enum Expect QueueSize(struct Target* target) {
  Unready(target);
  const uint32_t max = VirtioGet(&target->device, kVirtioQueueNumMax);
  const uint32_t sizes[] = {0, 3, max + 1, max * 2, 0x10000, 0xffffffff, 0x80000000};
  Put(target, kVirtioQueueNum, sizes[Below(7)]);
  Put(target, kVirtioQueueReady, 1);
  return kExpectReset;
}

static enum Expect QueueAddress(struct Target* target) {
  Unready(target);
  const uint32_t registers[] = {kVirtioQueueDesc, kVirtioQueueDriver, kVirtioQueueDevice};
  const uint64_t addresses[] = {ARENA_RING + 1,     g_ram_end - 4,   g_ram_end, 0xd0000000,
                                0xffffffffffffff00, 0xfffffffffffff, 1ull << 63};
  PutAddress(target, registers[Below(3)], addresses[Below(7)]);
  Put(target, kVirtioQueueReady, 1);
  return kExpectReset;
}

static enum Expect QueueLive(struct Target* target) {
  Prepare(target, 0);
  VirtioStart(&target->device);
  const uint32_t registers[] = {kVirtioQueueNum,       kVirtioQueueDesc,   kVirtioQueueDesc + 4,
                                kVirtioQueueDriver,    kVirtioQueueDevice, kVirtioQueueDriver + 4,
                                kVirtioQueueDevice + 4};
  Put(target, kVirtioQueueSel, target->queue);
  Put(target, registers[Below(7)], (uint32_t)Random());
  return kExpectReset;
}

static uint32_t NoSuchQueue(const struct Target* target) {
  return target->queues + (uint32_t)Below(0xfffffff0u - target->queues);
}

static enum Expect QueueIndex(struct Target* target) {
  Prepare(target, 0);
  if (target->queues == kMaxQueues) return kExpectAny;  // perhaps there are more
  Put(target, kVirtioQueueSel, NoSuchQueue(target));
  Put(target, kVirtioQueueNum, 16);
  Put(target, kVirtioQueueReady, 1);
  return kExpectReset;
}

static enum Expect NotifyIndex(struct Target* target) {
  Prepare(target, 0);
  VirtioStart(&target->device);
  if (target->queues == kMaxQueues) return kExpectAny;
  Put(target, kVirtioQueueNotify, NoSuchQueue(target));
  return kExpectReset;
}

// Ready before the features are agreed on (3.1.1).
static enum Expect ReadyEarly(struct Target* target) {
  VirtioReset(&target->device);
  Put(target, kVirtioStatus, kVirtioAcknowledge | kVirtioDriver);
  Put(target, kVirtioQueueSel, target->queue);
  Put(target, kVirtioQueueNum, 16);
  PutAddress(target, kVirtioQueueDesc, ARENA_RING);
  PutAddress(target, kVirtioQueueDriver, ARENA_RING + 4096);
  PutAddress(target, kVirtioQueueDevice, ARENA_RING + 8192);
  Put(target, kVirtioQueueReady, 1);
  return kExpectReset;
}

static enum Expect StatusCleared(struct Target* target) {
  Prepare(target, 0);
  Put(target, kVirtioStatus, kVirtioAcknowledge);
  return kExpectReset;
}

static enum Expect DriverOkEarly(struct Target* target) {
  VirtioReset(&target->device);
  Put(target, kVirtioStatus, kVirtioAcknowledge | kVirtioDriver);
  Put(target, kVirtioStatus, kVirtioAcknowledge | kVirtioDriver | kVirtioDriverOk);
  return kExpectReset;
}

static enum Expect StatusRandom(struct Target* target) {
  for (int i = 0; i < 20; ++i) Put(target, kVirtioStatus, (uint32_t)Below(256));
  return kExpectAny;
}

static enum Expect FeaturesLate(struct Target* target) {
  Prepare(target, 0);
  Put(target, kVirtioDriverFeaturesSel, (uint32_t)Below(2));
  Put(target, kVirtioDriverFeatures, (uint32_t)Random());
  return kExpectReset;
}

// What nobody offered must not be agreed on (2.2.2).
static enum Expect FeaturesUnknown(struct Target* target) {
  VirtioReset(&target->device);
  Put(target, kVirtioStatus, kVirtioAcknowledge);
  Put(target, kVirtioStatus, kVirtioAcknowledge | kVirtioDriver);
  uint64_t features = target->offered;
  while ((features & ~target->offered) == 0) features |= 1ull << Below(64);
  Put(target, kVirtioDriverFeaturesSel, 0);
  Put(target, kVirtioDriverFeatures, (uint32_t)features);
  Put(target, kVirtioDriverFeaturesSel, 1);
  Put(target, kVirtioDriverFeatures, (uint32_t)(features >> 32));
  Put(target, kVirtioStatus, kVirtioAcknowledge | kVirtioDriver | kVirtioFeaturesOk);
  if (target->strict && (VirtioGet(&target->device, kVirtioStatus) & kVirtioFeaturesOk) != 0) {
    Fail("features that nobody offered are agreed on", "");
  }
  return kExpectAlive;
}

static void Access(uint64_t address, uint64_t width, bool write, uint64_t value) {
  switch (width) {
    case 0:
      if (write) {
        __asm__ volatile("movb %b0, (%1)" : : "q"(value), "r"(address) : "memory");
      } else {
        (void)Mmio8(address);
      }
      return;
    case 1:
      if (write) {
        __asm__ volatile("movw %w0, (%1)" : : "r"(value), "r"(address) : "memory");
      } else {
        __asm__ volatile("movw (%1), %w0" : "=r"(value) : "r"(address) : "memory");
      }
      return;
    case 2:
      if (write) {
        MmioPut32(address, (uint32_t)value);
      } else {
        (void)Mmio32(address);
      }
      return;
    default:
      if (write) {
        __asm__ volatile("movq %0, (%1)" : : "r"(value), "r"(address) : "memory");
      } else {
        __asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(address) : "memory");
      }
  }
}

// Any register, of any width, at any offset.
static enum Expect Widths(struct Target* target) {
  if (Below(2) != 0) Prepare(target, 0);
  for (uint64_t i = 0; i < g_kicks; ++i) {
    const uint64_t offset = Below(Below(4) == 0 ? g_virtio_place.stride - 8 : 0x120);
    Access(target->device.window + offset, Below(4), Below(2) != 0, Random());
  }
  return kExpectAny;
}

// A register at a width that it does not have must be refused (4.2.2.2).
static enum Expect WrongWidth(struct Target* target) {
  Prepare(target, 0);
  const uint64_t widths[] = {0, 1, 3};
  Access(target->device.window + 4 * Below(0x40), widths[Below(3)], Below(2) != 0, 0);
  return kExpectReset;
}

static enum Expect ConfigSpace(struct Target* target) {
  Prepare(target, 0);
  VirtioStart(&target->device);
  const uint64_t size = g_virtio_place.stride - kVirtioConfig - 8;
  for (int i = 0; i < 100; ++i) {
    Access(target->device.window + kVirtioConfig + Below(size), Below(4), Below(2) != 0, Random());
  }
  return kExpectAny;
}

static enum Expect Kicks(struct Target* target) {
  Prepare(target, 0);
  VirtioStart(&target->device);
  for (uint64_t i = 0; i < g_kicks; ++i) {
    Put(target, kVirtioQueueNotify, (uint32_t)Below(target->queues));
  }
  return kExpectAlive;
}

const struct Attack kRegisterAttacks[] = {
    {"queue_size", QueueSize},
    {"queue_address", QueueAddress},
    {"queue_live", QueueLive},
    {"queue_index", QueueIndex},
    {"notify_index", NotifyIndex},
    {"ready_early", ReadyEarly},
    {"status_cleared", StatusCleared},
    {"driver_ok_early", DriverOkEarly},
    {"status_random", StatusRandom},
    {"features_late", FeaturesLate},
    {"features_unknown", FeaturesUnknown},
    {"widths", Widths},
    {"wrong_width", WrongWidth},
    {"config_space", ConfigSpace},
    {"kicks", Kicks},
};
const size_t kRegisterAttackCount = sizeof(kRegisterAttacks) / sizeof(kRegisterAttacks[0]);
