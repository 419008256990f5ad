// First C code of every vCPU, already at CPL3.
#include "ledger.h"

const char g_guest_name[] = "LEDGER";

__attribute__((section(".cpu"))) volatile struct CpuPage ledger_progress[GUEST_MAX_VCPUS];

static uint64_t SliceStart(uint64_t index) { return g_options.pages * index / g_options.vcpus; }

// Generation tables of slices too large for a CpuPage: after the data, page-aligned per vCPU.
static uint64_t GensEnd(uint64_t index) {
  uint64_t at = GUEST_DATA_PA + g_options.pages * GUEST_PAGE_SIZE;
  for (uint64_t i = 0; i <= index; ++i) {
    const uint64_t count = SliceStart(i + 1) - SliceStart(i);
    if (count > LEDGER_GEN_INLINE) at += (count * 8 + 4095) & ~4095ull;
  }
  return at;
}

static void PrintBanner(void) {
  struct Line line = {0};
  Text(&line, "ledger: vcpus=");
  Decimal(&line, g_options.vcpus, 1);
  Text(&line, " pages=");
  Decimal(&line, g_options.pages, 1);
  Text(&line, " bytes=");
  Decimal(&line, g_options.bytes, 1);
  Text(&line, " workload=");
  Text(&line, WorkloadName(g_options.workload));
  Text(&line, " data=0x");
  Hex(&line, GUEST_DATA_PA, 8);
  Text(&line, " progress=0x");
  Hex(&line, GUEST_CPU_PA, 8);
  Text(&line, " tsc_khz=");
  Decimal(&line, g_guest_options.tsc_khz, 1);
  Send(&line);
}

static void PrepareCpu(volatile struct CpuPage* cpu, uint64_t index) {
  cpu->index = index;
  cpu->stack_guard = LEDGER_MAGIC;
  cpu->first = SliceStart(index);
  cpu->count = SliceStart(index + 1) - cpu->first;
  cpu->gens = cpu->count > LEDGER_GEN_INLINE
                  ? (uint64_t*)(uintptr_t)(GensEnd(index) - ((cpu->count * 8 + 4095) & ~4095ull))
                  : (uint64_t*)cpu->inline_gens;
  cpu->rng = (g_options.seed + index + 1) * 0x9e3779b97f4a7c15ull | 1;
  cpu->magic = LEDGER_MAGIC;
  cpu->state = kPreparing;
  PrepareSlice(cpu);
  if (g_options.fill) {
    for (uint64_t i = 0; i < cpu->count; ++i) WritePage(cpu, cpu->first + i);
  }
  cpu->state = kRunning;
}

// Not every VMM zeroes memory again for a reset.
static void ClearCounters(void) {
  for (uint64_t i = 0; i < GUEST_MAX_VCPUS; ++i) {
    volatile uint64_t* word = (volatile uint64_t*)&ledger_progress[i];
    for (uint64_t j = 0; j < LEDGER_GEN_OFFSET / 8; ++j) word[j] = 0;
  }
}

static void BootFirstCpu(const struct StartInfo* info) {
  ConsoleInit();
  ClearCounters();
  ParseLedgerOptions(info);
  RequireRam(info, GUEST_CPU_PA, GensEnd(g_options.vcpus - 1));
  if (g_guest_options.tsc_khz == 0) g_guest_options.tsc_khz = FindTscKhz();
  if (g_options.power_button) Out8(LEDGER_PM1A_STATUS + 3, 1);  // enable: its second byte
  PrintBanner();
}

void guest_main(uint64_t index, const struct StartInfo* info) {
  volatile struct CpuPage* cpu = &ledger_progress[index];
  if (index == 0) {
    BootFirstCpu(info);
    for (uint64_t i = 1; i < g_options.vcpus; ++i) StartCpu(i, &ledger_progress[i].state);
  }
  PrepareCpu(cpu, index);
  // No step is reported before every slice is ready.
  for (uint64_t i = 0; i < g_options.vcpus; ++i) {
    while (ledger_progress[i].state < kRunning) Pause();
  }
  Work(cpu);
}
