// The loop that every vCPU runs, and the steps that vCPU 0 reports.
#include "ledger.h"

static uint64_t Random(volatile struct CpuPage* cpu) {
  uint64_t x = cpu->rng;  // xorshift64*
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  cpu->rng = x;
  return x * 0x2545f4914f6cdd1dull;
}

static uint64_t Below(volatile struct CpuPage* cpu, uint64_t limit) {
  return (uint64_t)((unsigned __int128)Random(cpu) * limit >> 64);
}

static uint64_t PickPage(volatile struct CpuPage* cpu) {
  const uint64_t count = cpu->count;
  const uint64_t hot = count < 10 ? 1 : count / 10;
  switch (g_options.workload) {
    case kHotCold:  // nine of ten writes go to a tenth of the pages
      if (hot == count || Below(cpu, 10) != 0) return cpu->first + Below(cpu, hot);
      return cpu->first + hot + Below(cpu, count - hot);
    case kSequential:
      cpu->next_page = cpu->next_page + 1 < count ? cpu->next_page + 1 : 0;
      return cpu->first + cpu->next_page;
    default:
      return cpu->first + Below(cpu, count);
  }
}

static bool WriteAndVerify(volatile struct CpuPage* cpu) {
  uint64_t ignored = 0;
  if (g_options.workload == kCounter) {
    cpu->writes++;
    return true;
  }
  if (!WritePage(cpu, PickPage(cpu))) return false;
  if (!g_options.check) return true;
  cpu->next_verify = cpu->next_verify + 1 < cpu->count ? cpu->next_verify + 1 : 0;
  if (!VerifyPage(cpu, cpu->first + cpu->next_verify, &ignored)) return false;
  cpu->verified++;
  return true;
}

static void PrintTotals(struct Line* line) {
  uint64_t sum = 0;
  uint64_t writes = 0;
  for (uint64_t i = 0; i < g_options.vcpus; ++i) {
    volatile struct CpuPage* cpu = &ledger_progress[i];
    uint64_t seq, cpu_sum, cpu_writes;
    do {
      while ((seq = cpu->seq) & 1) Pause();
      cpu_sum = cpu->sum;
      cpu_writes = cpu->writes;
    } while (cpu->seq != seq);
    sum += cpu_sum;
    writes += cpu_writes;
  }
  Text(line, " sum ");
  Hex(line, sum, 16);
  Text(line, " writes ");
  Decimal(line, writes, 1);
  Text(line, " vcpus ");
  Decimal(line, g_options.vcpus, 1);
  Text(line, " ok");
}

static void ReportCorrupt(volatile struct CpuPage* cpu) {
  struct Line line = {0};
  Text(&line, "LEDGER CORRUPT page ");
  Decimal(&line, cpu->fault.page, 1);
  Text(&line, " word ");
  Decimal(&line, cpu->fault.word, 1);
  Text(&line, " gen ");
  Decimal(&line, cpu->fault.gen, 1);
  Text(&line, " vcpu ");
  Decimal(&line, cpu->index, 1);
  Text(&line, " want ");
  Hex(&line, cpu->fault.want, 16);
  Text(&line, " got ");
  Hex(&line, cpu->fault.got, 16);
  Send(&line);
  PowerOff();
}

// Only vCPU 0 speaks; the others leave their fault in their page and wait.
static void Corrupt(volatile struct CpuPage* cpu) {
  cpu->state = kCorrupt;
  if (cpu->index == 0) ReportCorrupt(cpu);
  for (;;) Pause();
}

static void CheckOthers(void) {
  for (uint64_t i = 1; i < g_options.vcpus; ++i) {
    if (ledger_progress[i].state == kCorrupt) ReportCorrupt(&ledger_progress[i]);
  }
}

static void Finish(volatile struct CpuPage* cpu) {
  if (!VerifySlice(cpu)) Corrupt(cpu);
  cpu->state = kDone;
  if (cpu->index != 0) {
    for (;;) Pause();
  }
  for (uint64_t i = 1; i < g_options.vcpus; ++i) {
    while (ledger_progress[i].state != kDone) {
      CheckOthers();
      Pause();
    }
  }
  struct Line line = {0};
  Text(&line, "ledger: done steps ");
  Decimal(&line, cpu->steps, 1);
  PrintTotals(&line);
  Send(&line);
  PowerOff();
}

// What happens at a new step, to the vCPU's own slice.
static void EnterStep(volatile struct CpuPage* cpu, uint64_t step) {
  if (g_options.corrupt_at == step && g_options.corrupt_vcpu == cpu->index && cpu->count != 0) {
    const uint64_t page = cpu->first + cpu->count / 2;
    *(volatile uint64_t*)(uintptr_t)(GUEST_DATA_PA + page * GUEST_PAGE_SIZE + 64) ^= 0x10;
  }
  if (cpu->stack_guard != LEDGER_MAGIC) FailNumber("stack overrun on vCPU ", cpu->index);
  if (g_options.verify != 0 && step % g_options.verify == 0 && !VerifySlice(cpu)) Corrupt(cpu);
}

// ACPI 6.4, 4.8.3.1: the status block, two bytes; writing a one clears it. The second byte has the
// button.
static bool PowerButtonPressed(void) {
  if (!g_options.power_button || (In8(LEDGER_PM1A_STATUS + 1) & 1) == 0) return false;
  Out8(LEDGER_PM1A_STATUS + 1, 1);
  return true;
}

static void ReportStep(volatile struct CpuPage* cpu) {
  struct Line line = {0};
  const uint64_t step = cpu->steps + 1;
  EnterStep(cpu, step);
  CheckOthers();
  cpu->steps = step;
  Text(&line, "step ");
  Decimal(&line, step, 6);
  if (g_options.clock) {
    Text(&line, " ms ");
    Decimal(&line, ReadTsc() / g_guest_options.tsc_khz, 1);
  }
  PrintTotals(&line);
  Send(&line);
  if (step == g_options.steps || PowerButtonPressed()) Finish(cpu);
}

// `last` is in no page that could have gone back with the clock, but in a register or on the stack
// of this very moment.
static uint64_t LaterThan(uint64_t last) {
  const uint64_t now = ReadTsc();
  if (now < last) FailNumber("the clock went back, by TSC ticks: ", last - now);
  return now;
}

void Work(volatile struct CpuPage* cpu) {
  const bool writing = g_options.workload != kIdle && cpu->count != 0;
  const uint64_t write_period =
      g_options.rate == 0 ? 0 : g_guest_options.tsc_khz * 1000 / g_options.rate;
  const uint64_t report_period = g_options.report_ms * g_guest_options.tsc_khz;
  uint64_t now = ReadTsc();
  uint64_t next_write = now;
  uint64_t next_report = now + report_period;
  uint64_t next_report_writes = cpu->writes + g_options.report_every;
  for (;;) {
    if (cpu->index == 0) {
      CheckOthers();
      if (g_options.report_every != 0 ? cpu->writes >= next_report_writes
                                      : Due(next_report, now, report_period)) {
        ReportStep(cpu);
        next_report_writes += g_options.report_every;
        next_report = NextDeadline(next_report, now, report_period);
      }
    } else if (ledger_progress[0].steps != cpu->steps) {
      cpu->steps++;
      EnterStep(cpu, cpu->steps);
    } else if (ledger_progress[0].state == kDone) {
      Finish(cpu);
    }
    now = LaterThan(now);
    if (writing && (write_period == 0 || Due(next_write, now, write_period))) {
      if (!WriteAndVerify(cpu)) Corrupt(cpu);
      next_write = NextDeadline(next_write, now, write_period);
    } else {
      Pause();
    }
  }
}
