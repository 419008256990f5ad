// The TSC is the only clock: reading it needs no exit.
#include "guest.h"

static void Cpuid(uint32_t leaf, uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d) {
  __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(0));
}

// Reads channel 0 and the TSC at (nearly) the same moment. False once the count has run out: then
// its 16 bits no longer tell the time. Only the output bit, which stays high, shows that, and the
// read-back command latches both (Intel 8254 data sheet, "Read-Back Command" and "Mode 0").
static bool ReadPit(uint16_t* count, uint64_t* tsc) {
  const uint64_t before = ReadTsc();
  Out8(0x43, 0xc2);  // latch count and status of channel 0
  *tsc = before + (ReadTsc() - before) / 2;
  const uint8_t status = In8(0x40);
  const uint8_t low = In8(0x40);
  *count = (uint16_t)(In8(0x40) << 8 | low);
  return (status & 0x80) == 0;
}

// Counts TSC ticks for some 20 ms of the 1,193,182 Hz timer; 0 if the host stopped us for too long.
// Channel 0, as its gate is always open; one shot, so that no timer keeps ticking in the VMM.
static uint64_t MeasureOnce(void) {
  uint64_t begin_tsc;
  uint64_t end_tsc;
  uint16_t begin;
  uint16_t end;
  Out8(0x43, 0x30);  // channel 0, both bytes, mode 0
  Out8(0x40, 0);
  Out8(0x40, 0);
  if (!ReadPit(&begin, &begin_tsc)) return 0;
  for (uint32_t tries = 0; tries < 1000000; ++tries) {
    if (!ReadPit(&end, &end_tsc)) return 0;
    const uint16_t ticks = (uint16_t)(begin - end);
    if (ticks >= 23864) return (end_tsc - begin_tsc) * 1193182 / ticks / 1000;
  }
  Fail("no PIT to measure the TSC with, give tsc_khz", "");
}

// A busy host may also stop us between the two readings of one moment. That error has no fixed
// size, so three measurements in a row that agree within 0.5 % are taken as right.
static uint64_t MeasureByPit(void) {
  uint64_t last = 0;
  uint32_t agreeing = 0;
  for (uint32_t tries = 0; tries < 100; ++tries) {
    const uint64_t khz = MeasureOnce();
    if (khz == 0) continue;
    const uint64_t apart = khz > last ? khz - last : last - khz;
    agreeing = apart <= khz / 200 ? agreeing + 1 : 1;
    if (agreeing == 3) return khz;
    last = khz;
  }
  Fail("TSC measurements disagree, give tsc_khz", "");
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
  const uint64_t ticks = us * g_guest_options.tsc_khz / 1000;
  while (ReadTsc() - begin < ticks) Pause();
}

uint64_t NextDeadline(uint64_t deadline, uint64_t now, uint64_t period) {
  const uint64_t slack = period + g_guest_options.tsc_khz * 100;
  deadline += period;
  return deadline + slack < now || deadline > now + slack ? now + period : deadline;
}

bool Due(uint64_t deadline, uint64_t now, uint64_t period) {
  return now >= deadline || deadline - now > period + g_guest_options.tsc_khz * 100;
}
