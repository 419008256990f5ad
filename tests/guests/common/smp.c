// Starts the other processors with INIT and start-up IPIs (Intel SDM vol. 3, 9.4.4). The local
// APIC's MMIO window is mapped for CPL3, so even this needs no CPL0.
#include "guest.h"

extern const uint8_t guest_trampoline[];
extern const uint8_t guest_trampoline_end[];
volatile uint32_t guest_ap_index;  // which vCPU is being started; read by boot.S

enum { kSvr = 0xf0, kIcrLow = 0x300, kIcrHigh = 0x310, kLvt0 = 0x350, kLvt1 = 0x360 };

static volatile uint32_t* Apic(uint32_t offset) {
  return (volatile uint32_t*)(uintptr_t)(0xfee00000u + offset);
}

static void SendIpi(uint64_t target, uint32_t command) {
  while (*Apic(kIcrLow) & 0x1000) Pause();  // previous one still on its way
  *Apic(kIcrHigh) = (uint32_t)target << 24;
  *Apic(kIcrLow) = command;
}

static bool Started(const volatile uint64_t* started, uint64_t wait_us) {
  for (uint64_t us = 0; us < wait_us; us += 10) {
    if (*started != 0) return true;
    DelayUs(10);
  }
  return false;
}

void StartCpu(uint64_t index, const volatile uint64_t* started) {
  volatile uint8_t* trampoline = (volatile uint8_t*)(uintptr_t)GUEST_TRAMPOLINE_PA;
  for (size_t i = 0; i < (size_t)(guest_trampoline_end - guest_trampoline); ++i) {
    trampoline[i] = guest_trampoline[i];
  }
  *Apic(kLvt0) = 0x10000;  // masked, so that enabling the APIC lets no old interrupt in
  *Apic(kLvt1) = 0x10000;
  *Apic(kSvr) = 0x1ff;

  // One at a time, so that one mailbox is enough. APIC id = index, as VMMs number small machines.
  guest_ap_index = (uint32_t)index;
  SendIpi(index, 0x4500);  // INIT
  DelayUs(10000);
  SendIpi(index, 0x4600 | GUEST_TRAMPOLINE_PA >> 12);
  if (Started(started, 20000)) return;
  SendIpi(index, 0x4600 | GUEST_TRAMPOLINE_PA >> 12);
  if (!Started(started, 5000000)) FailNumber("vCPU does not start: ", index);
}
