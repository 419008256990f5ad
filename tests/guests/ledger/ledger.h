// The ledger guest: types and functions of all its files. Its stack has less than 2 KiB.
#ifndef ROMULUS_TESTS_GUESTS_LEDGER_LEDGER_H_
#define ROMULUS_TESTS_GUESTS_LEDGER_LEDGER_H_

#include "guest.h"

#define LEDGER_PM1A_STATUS 0x600  // ACPI's PM1a event block; the machine's FADT says the same
#define LEDGER_GEN_OFFSET 256     // within a CpuPage
#define LEDGER_GEN_INLINE 256     // generation counters that fit into a CpuPage

enum Workload { kUniform, kHotCold, kSequential, kIdle, kCounter };
enum CpuState { kOff, kPreparing, kRunning, kDone, kCorrupt };

// Written at boot by vCPU 0 before any other starts; constant afterwards.
struct Options {
  uint64_t vcpus;
  uint64_t pages;         // working set, 4 KiB pages over all vCPUs
  uint64_t bytes;         // per write, a multiple of 8
  uint64_t rate;          // page writes per second and vCPU; 0: no limit
  uint64_t steps;         // 0: no end
  uint64_t report_every;  // writes of vCPU 0 per step
  uint64_t report_ms;     // or milliseconds per step
  uint64_t verify;        // whole slice is verified every so many steps; 0: never
  uint64_t check;         // 1: a page is verified with each write
  uint64_t seed;
  uint64_t fill;          // write every page once before the first step
  uint64_t clock;         // steps tell the time
  uint64_t power_button;  // end when it is pressed
  uint64_t corrupt_at;    // test aid: at this step
  uint64_t corrupt_vcpu;  //   this vCPU damages a page of its own
  uint64_t workload;      // enum Workload
};
extern struct Options g_options;

// What a failed verification found. `page` counts within the whole working set.
struct Fault {
  uint64_t page;
  uint64_t word;  // 8-byte word in the page; 512: the vCPU's sum, 513: its number of writes
  uint64_t gen;
  uint64_t want;
  uint64_t got;
};

// All that one vCPU writes besides its data: counters, generations of a small slice, stack. One
// page, so that a working vCPU dirties its data and this. Offsets up to `state` are public: hosts
// read them to see progress (README.md).
struct CpuPage {
  uint64_t magic;     // 0x00 LEDGER_MAGIC
  uint64_t seq;       // 0x08 odd while writes and sum change together
  uint64_t steps;     // 0x10 vCPU 0: steps reported; others: last step of vCPU 0 that they saw
  uint64_t writes;    // 0x18 page writes so far
  uint64_t sum;       // 0x20 sum of all words of the slice, kept write by write
  uint64_t verified;  // 0x28 single pages verified
  uint64_t sweeps;    // 0x30 verifications of the whole slice
  uint64_t state;     // 0x38 enum CpuState
  struct Fault fault;
  uint64_t index;
  uint64_t first;  // slice: first page and number of pages
  uint64_t count;
  uint64_t* gens;  // write counters of the slice's pages: inline_gens, or a table after the data
  uint64_t rng;
  uint64_t next_page;    // sequential workload
  uint64_t next_verify;  // page that is verified next
  uint8_t pad[LEDGER_GEN_OFFSET - 160];
  uint64_t inline_gens[LEDGER_GEN_INLINE];
  uint64_t stack_guard;
  uint8_t stack[GUEST_PAGE_SIZE - LEDGER_GEN_OFFSET - 8 * LEDGER_GEN_INLINE - 8];
};
_Static_assert(sizeof(struct CpuPage) == GUEST_PAGE_SIZE, "one page per vCPU");
_Static_assert(offsetof(struct CpuPage, inline_gens) == LEDGER_GEN_OFFSET, "layout");
_Static_assert(offsetof(struct CpuPage, state) == 0x38, "public offsets");

#define LEDGER_MAGIC 0x003152454744454cull  // "LEDGER1"
extern volatile struct CpuPage ledger_progress[GUEST_MAX_VCPUS];

// options.c. Unknown or senseless options end the guest with a message.
void ParseLedgerOptions(const struct StartInfo* info);
const char* WorkloadName(uint64_t workload);

// model.c. What each page must hold, as a function of its number of writes.
void PrepareSlice(volatile struct CpuPage* cpu);
bool WritePage(volatile struct CpuPage* cpu, uint64_t page);
bool VerifyPage(volatile struct CpuPage* cpu, uint64_t page, uint64_t* sum);
bool VerifySlice(volatile struct CpuPage* cpu);

// work.c
void Work(volatile struct CpuPage* cpu) __attribute__((noreturn));

#endif  // ROMULUS_TESTS_GUESTS_LEDGER_LEDGER_H_
