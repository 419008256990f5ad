// The TSC is the only clock: reading it needs no exit.
#include "ledger.h"

static void Cpuid(uint32_t leaf, uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d) {
  __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(0));
}

static uint16_t ReadPit(uint64_t* tsc) {
  const uint64_t before = ReadTsc();
  Out8(0x43, 0x00);  // latch channel 0
  *tsc = before + (ReadTsc() - before) / 2;
  const uint8_t low = In8(0x40);
  return (uint16_t)(In8(0x40) << 8 | low);
}

// Counts TSC ticks for some 20 ms of the 1,193,182 Hz timer. Channel 0, as its gate is always open.
static uint64_t MeasureByPit(void) {
  uint64_t begin_tsc;
  uint64_t end_tsc;
  uint16_t ticks;
  Out8(0x43, 0x30);  // channel 0, both bytes, one shot: no timer keeps ticking in the VMM
  Out8(0x40, 0);
  Out8(0x40, 0);
  const uint16_t begin = ReadPit(&begin_tsc);
  uint32_t tries = 0;
  do {
    if (++tries > 1000000) Fail("no PIT to measure the TSC with, give tsc_khz", "");
    ticks = (uint16_t)(begin - ReadPit(&end_tsc));
  } while (ticks < 23864);
  return (end_tsc - begin_tsc) * 1193182 / ticks / 1000;
}

uint64_t FindTscKhz(void) {
  uint32_t a, b, c, d;
  Cpuid(1, &a, &b, &c, &d);
  if (c >> 31) {  // a hypervisor
    Cpuid(0x40000000, &a, &b, &c, &d);
    if (a >= 0x40000010 && a < 0x40010000) {
      Cpuid(0x40000010, &a, &b, &c, &d);
      if (a != 0) return a;
    }
  }
  Cpuid(0, &a, &b, &c, &d);
  if (a >= 0x15) {
    Cpuid(0x15, &a, &b, &c, &d);
    if (a != 0 && b != 0 && c != 0) return (uint64_t)c * b / a / 1000;
  }
  return MeasureByPit();
}

void DelayUs(uint64_t us) {
  const uint64_t begin = ReadTsc();
  const uint64_t ticks = us * g_options.tsc_khz / 1000;
  while (ReadTsc() - begin < ticks) Pause();
}
