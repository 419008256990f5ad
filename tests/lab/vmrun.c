// A hypervisor as small as can be, for injected_once.py: multiboot (QEMU's -kernel), 32 bits, no
// paging. Again and again it injects one interrupt into a guest whose handler counts, and says on
// the debug port (0xe9) how many it injected and how many were handled. AMD64 manual vol. 2, ch. 15
// and app. B (VMCB).

#include <stdint.h>

enum { kSpins = 2000, kReportEvery = 500, kVector = 0x20, kExitVmmcall = 0x81, kPage = 4096 };

__asm__(
    ".long 0x1badb002, 0, -0x1badb002\n"  // multiboot header: no wishes
    ".globl _start, guest, handler\n"
    "_start: mov $stack_end, %esp\n"
    "  call run\n"
    "guest: vmmcall\n"
    "handler: incl handled\n"
    "  mov spins, %ecx\n"
    "1: dec %ecx\n"  // long enough that most kicks of the processor find it here
    "  jnz 1b\n"
    "  iret\n");

extern void guest(void), handler(void);

uint8_t stack[kPage], stack_end[16], guest_stack[kPage];
static uint8_t vmcb[kPage] __attribute__((aligned(4096)));
static uint8_t host_save[kPage] __attribute__((aligned(4096)));
static uint8_t permissions[4 * kPage] __attribute__((aligned(4096)));  // I/O and MSRs: all allowed
volatile uint32_t handled, spins = kSpins;
static uint64_t gdt[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff};  // -, code, data: flat
static uint32_t idt[256][2];

static void Out(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "d"(port));
}

static void Say(const char* text) {
  while (*text != 0) Out(0xe9, (uint8_t)*text++);
}

static void SayNumber(uint32_t number) {
  if (number >= 10) SayNumber(number / 10);
  Out(0xe9, (uint8_t)('0' + number % 10));
}

static void WriteMsr(uint32_t msr, uint32_t value) {
  __asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0));
}

static void Set32(uint32_t offset, uint32_t value) { *(volatile uint32_t*)(vmcb + offset) = value; }

static void SetSegment(uint32_t offset, uint32_t selector, uint32_t attributes) {
  Set32(offset, attributes << 16 | selector);
  Set32(offset + 4, 0xffffffff);
}

static void PrepareTables(void) {
  const struct {
    uint16_t limit;
    uint32_t base;
  } __attribute__((packed)) table = {sizeof gdt - 1, (uint32_t)gdt};
  __asm__ volatile(
      "lgdt %0\n"
      "ljmp $8, $1f\n"
      "1: mov $16, %%eax\n"
      "mov %%eax, %%ds\n mov %%eax, %%es\n mov %%eax, %%ss\n mov %%eax, %%fs\n mov %%eax, %%gs\n"
      :
      : "m"(table)
      : "eax");
  for (int i = 0; i < 256; ++i) {
    idt[i][0] = 8u << 16 | ((uint32_t)handler & 0xffff);
    idt[i][1] = ((uint32_t)handler & 0xffff0000) | 0x8e00;  // interrupt gate
  }
  Out(0x21, 0xff);  // no interrupt but the injected one
  Out(0xa1, 0xff);
}

static void PrepareGuest(void) {
  Set32(0x10, 3);  // intercept VMRUN (has to be) and VMMCALL
  Set32(0x40, (uint32_t)permissions);
  Set32(0x48, (uint32_t)permissions);
  Set32(0x58, 1);                   // ASID
  Set32(0xa8, 1u << 31 | kVector);  // inject: valid, external interrupt
  for (uint32_t at = 0x400; at <= 0x430; at += 0x10) SetSegment(at, 16, 0xc93);  // es, ss, ds
  SetSegment(0x410, 8, 0xc9b);                                                   // cs
  Set32(0x464, sizeof gdt - 1);
  Set32(0x468, (uint32_t)gdt);
  Set32(0x484, sizeof idt - 1);
  Set32(0x488, (uint32_t)idt);
  Set32(0x4d0, 1 << 12);     // EFER.SVME
  Set32(0x558, 0x11);        // CR0: PE, ET
  Set32(0x560, 0x400);       // DR7
  Set32(0x568, 0xffff0ff0);  // DR6
  Set32(0x570, 0x202);       // RFLAGS: IF
  Set32(0x578, (uint32_t)guest);
  Set32(0x5d8, (uint32_t)guest_stack + sizeof guest_stack);
}

void run(void) {
  PrepareTables();
  WriteMsr(0xc0000080, 1 << 12);              // EFER.SVME
  WriteMsr(0xc0010117, (uint32_t)host_save);  // VM_HSAVE_PA
  for (uint32_t injected = 1;; ++injected) {
    PrepareGuest();
    __asm__ volatile("pusha\n clgi\n vmrun %%eax\n stgi\n popa" : : "a"(vmcb) : "memory", "cc");
    const uint32_t exit = *(volatile uint32_t*)(vmcb + 0x70);
    if (exit != kExitVmmcall || handled != injected || injected % kReportEvery == 0) {
      Say("exit ");
      SayNumber(exit);
      Say(" injected ");
      SayNumber(injected);
      Say(" handled ");
      SayNumber(handled);
      Say("\n");
    }
  }
}
