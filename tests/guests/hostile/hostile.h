// The hostile guest: types and functions of all its files.
#ifndef ROMULUS_TESTS_GUESTS_HOSTILE_HOSTILE_H_
#define ROMULUS_TESTS_GUESTS_HOSTILE_HOSTILE_H_

#include "virtio.h"

// What a device may write to is in here, so that an attack does not hit ourselves.
#define ARENA_RING (GUEST_DATA_PA)
#define ARENA_TABLES (GUEST_DATA_PA + 0x100000)
#define ARENA_BUFFERS (GUEST_DATA_PA + 0x200000)
#define ARENA_BUFFER_BYTES 0x200000
#define ARENA_END (ARENA_BUFFERS + ARENA_BUFFER_BYTES)

enum { kMaxQueues = 4, kRingSize = 32 };

// The device under attack, one of its queues in particular.
struct Target {
  struct VirtioDevice device;
  uint64_t window;  // index
  uint64_t offered;
  uint32_t queues;
  uint32_t queue;
  // The device takes chains from this queue at once: so what is wrong with them must show.
  bool eager;
  bool strict;  // what an attack expects is asserted
  struct VirtioRing ring;
};

enum Expect {
  kExpectAny,    // to go on working and to ask for a reset are both right
  kExpectReset,  // NEEDS_RESET must be set
  kExpectAlive,  // must not
};

struct Attack {
  const char* name;
  enum Expect (*run)(struct Target* target);
};
extern const struct Attack kRingAttacks[];
extern const size_t kRingAttackCount;
extern const struct Attack kRegisterAttacks[];
extern const size_t kRegisterAttackCount;
extern const struct Attack kRequestAttacks[];
extern const size_t kRequestAttackCount;

// main.c
uint64_t Random(void);
uint64_t Below(uint64_t limit);  // 0 to limit - 1
extern uint64_t g_ram_end;       // first address after the RAM that we are in
extern uint64_t g_kicks;
// Negotiates all that is offered but `without`, and sets the target's queue up; not started.
void Prepare(struct Target* target, uint64_t without);
void Kick(const struct Target* target);  // whatever the device wishes
// A chain of one buffer at `head` of the target's ring.
void PutDesc(struct Target* target, uint16_t head, uint64_t address, uint32_t size, uint16_t flags,
             uint16_t next);
void Offer(struct Target* target, uint16_t head);
// Offers the chain at descriptor 0, starts the device and kicks it.
void Launch(struct Target* target);
uint64_t RandomBuffer(uint32_t size);  // an address in the arena's buffers

// requests.c. Whether the device, reset and set up as it should be, does its work: reads, writes,
// gives bytes, takes a frame. Ends the guest if not.
void CheckHealth(struct Target* target);

#endif  // ROMULUS_TESTS_GUESTS_HOSTILE_HOSTILE_H_
