// Attacks virtio devices, one attack a round, each followed by a reset and by honest work: whatever
// a driver does, the device must survive it, say NEEDS_RESET where the driver broke a rule, and
// work again once it is reset. A round follows from (seed, its number) alone, so it can be
// repeated.
#include "hostile.h"

const char g_guest_name[] = "HOSTILE";

enum { kRomulusVendor = 0x554d4f52 };

uint64_t g_ram_end;
uint64_t g_kicks = 300;
static uint64_t g_seed = 1;
static uint64_t g_first = 1;
static uint64_t g_rounds = 100;
static uint64_t g_window = UINT64_MAX;
static uint64_t g_strict = 2;  // 2: with romulusd's devices only
static char g_attack[32];

static const struct NumberOption kNumbers[] = {
    VIRTIO_OPTIONS,
    {"seed", &g_seed, 0, UINT64_MAX},
    {"first", &g_first, 1, UINT64_MAX >> 1},
    {"rounds", &g_rounds, 1, UINT64_MAX >> 1},
    {"device", &g_window, 0, 31},
    {"kicks", &g_kicks, 1, 1000000},
    {"strict", &g_strict, 0, 2},
};

static bool ParseAttack(const char* name, const char* value) {
  if (!SameText(name, "attack")) return false;
  size_t i = 0;
  for (; value[i] != 0; ++i) {
    if (i == sizeof(g_attack) - 1) Fail("no such attack: ", value);
    g_attack[i] = value[i];
  }
  return true;
}

static uint64_t g_random;

uint64_t Random(void) {
  uint64_t x = g_random;  // xorshift64*
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  g_random = x;
  return x * 0x2545f4914f6cdd1dull;
}

uint64_t Below(uint64_t limit) { return (uint64_t)((unsigned __int128)Random() * limit >> 64); }

static void SeedRound(uint64_t round) {
  g_random = (g_seed * 0x9e3779b97f4a7c15ull + round * 0xa0761d6478bd642full) | 1;
  for (int i = 0; i < 4; ++i) Random();
}

uint64_t RandomBuffer(uint32_t size) { return ARENA_BUFFERS + Below(ARENA_BUFFER_BYTES - size); }

void PutDesc(struct Target* target, uint16_t head, uint64_t address, uint32_t size, uint16_t flags,
             uint16_t next) {
  target->ring.desc[head] = (struct VirtioDesc){address, size, flags, next};
}

void Offer(struct Target* target, uint16_t head) {
  RingAdd(&target->ring, head);
  CompilerFence();
  target->ring.avail[1] = target->ring.published = target->ring.next_avail;
}

void Kick(const struct Target* target) {
  FullFence();
  VirtioPut(&target->device, kVirtioQueueNotify, target->queue);
}

void Launch(struct Target* target) {
  Offer(target, 0);
  VirtioStart(&target->device);
  Kick(target);
}

void Prepare(struct Target* target, uint64_t without) {
  if (!VirtioNegotiate(&target->device, target->offered & ~without)) {
    FailNumber("features are refused, window ", target->window);
  }
  if (RingSetUp(&target->ring, &target->device, target->queue, kRingSize, ARENA_RING) == 0) {
    FailNumber("a queue is gone, window ", target->window);
  }
}

// The queues of the device types that we know to be served without anything from outside.
static bool IsEager(uint32_t id, uint32_t queue) {
  switch (id) {
    case kVirtioNet:
    case kVirtioConsole:
      return queue == 1;
    case kVirtioBlock:
    case kVirtioRng:
      return queue == 0;
    default:
      return false;
  }
}

static struct Target PickTarget(void) {
  struct Target targets[32];
  uint64_t count = 0;
  for (uint64_t i = 0; i < g_virtio_place.count; ++i) {
    if (g_window != UINT64_MAX && i != g_window) continue;
    const struct VirtioDevice device = VirtioProbe(i);
    if (device.id == 0) continue;
    targets[count].device = device;
    targets[count++].window = i;
  }
  if (count == 0) Fail("no virtio device", "");
  struct Target target = targets[Below(count)];
  target.offered = VirtioOffered(&target.device);
  target.queues = 0;
  while (target.queues < kMaxQueues) {
    VirtioPut(&target.device, kVirtioQueueSel, target.queues);
    if (VirtioGet(&target.device, kVirtioQueueNumMax) == 0) break;
    target.queues++;
  }
  if (target.queues == 0) FailNumber("a device without queues, window ", target.window);
  target.queue = (uint32_t)Below(target.queues);
  // Where it counts most.
  if (!IsEager(target.device.id, target.queue) && Below(4) != 0) {
    target.queue = (uint32_t)Below(target.queues);
  }
  target.eager = IsEager(target.device.id, target.queue);
  target.strict = g_strict == 1 || (g_strict == 2 && target.device.vendor == kRomulusVendor);
  return target;
}

static const struct Attack* AttackAt(size_t index) {
  if (index < kRingAttackCount) return &kRingAttacks[index];
  index -= kRingAttackCount;
  if (index < kRegisterAttackCount) return &kRegisterAttacks[index];
  return &kRequestAttacks[index - kRegisterAttackCount];
}

static const struct Attack* PickAttack(void) {
  const size_t all = kRingAttackCount + kRegisterAttackCount + kRequestAttackCount;
  const size_t first = Below(all);
  for (size_t i = 0; i < all; ++i) {
    const struct Attack* const attack = AttackAt((first + i) % all);
    if (g_attack[0] == 0 || SameText(attack->name, g_attack)) return attack;
  }
  Fail("no such attack: ", g_attack);
}

static bool NeedsReset(const struct Target* target) {
  return (VirtioGet(&target->device, kVirtioStatus) & kVirtioNeedsReset) != 0;
}

// The device works on its own thread: gives it two seconds if it must say so.
static bool AwaitNeedsReset(const struct Target* target, enum Expect expect) {
  const uint64_t begin = ReadTsc();
  const uint64_t patience = g_guest_options.tsc_khz * (expect == kExpectReset ? 2000 : 2);
  while (ReadTsc() - begin < patience) {
    if (NeedsReset(target)) return true;
    DelayUs(200);
  }
  return NeedsReset(target);
}

static void FailRound(uint64_t round, const char* name, const char* what) {
  struct Line line = {0};
  Text(&line, what);
  Text(&line, name);
  Text(&line, ", round ");
  Decimal(&line, round, 1);
  line.text[line.length] = 0;
  Fail(line.text, "");
}

static void PrintRound(uint64_t round, const struct Target* target, const char* name,
                       bool needs_reset) {
  struct Line line = {0};
  Text(&line, "round ");
  Decimal(&line, round, 6);
  Text(&line, " window ");
  Decimal(&line, target->window, 1);
  Text(&line, " type ");
  Decimal(&line, target->device.id, 1);
  Text(&line, " queue ");
  Decimal(&line, target->queue, 1);
  Text(&line, " ");
  Text(&line, name);
  Text(&line, needs_reset ? " needs_reset" : " alive");
  Text(&line, " ok");
  Send(&line);
}

static bool Round(uint64_t round) {
  SeedRound(round);
  struct Target target = PickTarget();
  const struct Attack* const attack = PickAttack();
  const enum Expect expect = attack->run(&target);
  const bool needs_reset = AwaitNeedsReset(&target, target.strict ? expect : kExpectAny);
  if (target.strict && expect == kExpectReset && !needs_reset) {
    FailRound(round, attack->name, "no NEEDS_RESET after ");
  }
  if (target.strict && expect == kExpectAlive && needs_reset) {
    FailRound(round, attack->name, "NEEDS_RESET without a reason after ");
  }
  if (!VirtioReset(&target.device)) FailRound(round, attack->name, "no end of a reset after ");
  CheckHealth(&target);
  VirtioReset(&target.device);
  PrintRound(round, &target, attack->name, needs_reset);
  return needs_reset;
}

// The RAM that the arena lies in.
static void FindRam(const struct StartInfo* info) {
  struct Entry {
    uint64_t address, size;
    uint32_t type, reserved;
  };
  const struct Entry* entry = (const void*)(uintptr_t)info->memory_map;
  RequireRam(info, GUEST_CPU_PA, ARENA_END);
  for (uint32_t i = 0; entry != NULL && i < info->memory_map_entries; ++i, ++entry) {
    if (entry->type == 1 && entry->address <= GUEST_CPU_PA)
      g_ram_end = entry->address + entry->size;
  }
  if (g_ram_end == 0) Fail("no memory map", "");
}

void guest_main(uint64_t index, const struct StartInfo* info) {
  (void)index;
  struct Line line = {0};
  ConsoleInit();
  ParseOptions(info, kNumbers, sizeof(kNumbers) / sizeof(kNumbers[0]), ParseAttack);
  FindRam(info);
  if (g_guest_options.tsc_khz == 0) g_guest_options.tsc_khz = FindTscKhz();
  Text(&line, "hostile: seed=");
  Decimal(&line, g_seed, 1);
  Text(&line, " first=");
  Decimal(&line, g_first, 1);
  Text(&line, " rounds=");
  Decimal(&line, g_rounds, 1);
  Send(&line);
  uint64_t resets = 0;
  for (uint64_t i = 0; i < g_rounds; ++i) resets += Round(g_first + i) ? 1 : 0;
  Text(&line, "hostile: done rounds ");
  Decimal(&line, g_rounds, 1);
  Text(&line, " needs_reset ");
  Decimal(&line, resets, 1);
  Text(&line, " ok");
  Send(&line);
  PowerOff();
}
