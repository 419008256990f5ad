// What all guests here are made of: types and functions of this folder. All C code runs at CPL3
// (but for guest_trap), without libc, floating point or interrupts. A guest defines g_guest_name
// and guest_main, and links every file of this folder; its stack is a page (see layout.h) unless it
// defines the section .cpu itself.
#ifndef ROMULUS_TESTS_GUESTS_COMMON_GUEST_H_
#define ROMULUS_TESTS_GUESTS_COMMON_GUEST_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

// Begins the messages that end a guest: "LEDGER ERROR ...", "LEDGER TRAP ...".
extern const char g_guest_name[];

// Options of every guest. Written at boot by vCPU 0 before any other starts; constant afterwards.
struct GuestOptions {
  uint64_t tsc_khz;       // 0 until found
  uint64_t lsr;           // 0: never poll the UART, 1: before a line, 2: before a byte
  uint64_t reset_at_end;  // end by reset instead of poweroff
};
extern struct GuestOptions g_guest_options;

// Xen public/arch-x86/hvm/start_info.h, see https://xenbits.xen.org/docs/unstable/misc/pvh.html
struct StartInfo {
  uint32_t magic, version, flags, module_count;
  uint64_t modules, command_line, rsdp;
  uint64_t memory_map;  // from version 1 on
  uint32_t memory_map_entries, reserved;
};

// The guest's first C code, on every vCPU; must not return. `info` is of use on vCPU 0 only.
void guest_main(uint64_t index, const struct StartInfo* info) __attribute__((noreturn));

static inline void Out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void Out16(uint16_t port, uint16_t value) {
  __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t In8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint64_t ReadTsc(void) {
  uint32_t lo;
  uint32_t hi;
  __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
  return (uint64_t)hi << 32 | lo;
}
static inline void Pause(void) { __asm__ volatile("pause" : : : "memory"); }

// console.c. A line is built in a small buffer on the stack and sent at once.
struct Line {
  uint32_t length;
  char text[188];
};
void ConsoleInit(void);
void Text(struct Line* line, const char* text);
void Decimal(struct Line* line, uint64_t value, uint32_t min_digits);
void Hex(struct Line* line, uint64_t value, uint32_t digits);
void Send(struct Line* line);  // adds the newline, empties the line
void PowerOff(void) __attribute__((noreturn));
void Fail(const char* what, const char* detail) __attribute__((noreturn));
void FailNumber(const char* what, uint64_t value) __attribute__((noreturn));

// options.c. The command line: words `name=value`, separated by blanks. A number is decimal, or
// hexadecimal behind 0x. An option is in the table, or one of GuestOptions, or taken by `other`
// (may be null), which returns false if it does not know the name. Anything else ends the guest.
struct NumberOption {
  const char* name;
  uint64_t* value;
  uint64_t min;
  uint64_t max;
};
typedef bool (*OtherOption)(const char* name, const char* value);
void ParseOptions(const struct StartInfo* info, const struct NumberOption* numbers, size_t count,
                  OtherOption other);
bool SameText(const char* a, const char* b);

// start.c
void* memset(void* to, int value, size_t size);
void* memcpy(void* restrict to, const void* restrict from, size_t size);
// Ends the guest unless [begin, end) lies in one range of RAM.
void RequireRam(const struct StartInfo* info, uint64_t begin, uint64_t end);

// clock.c
uint64_t FindTscKhz(void);
void DelayUs(uint64_t us);
// Moves a deadline on by one period; one that is far off (the host paused us, or the TSC jumped
// when we moved to another host) starts anew instead of being caught up with.
uint64_t NextDeadline(uint64_t deadline, uint64_t now, uint64_t period);
bool Due(uint64_t deadline, uint64_t now, uint64_t period);

// smp.c. Starts vCPU `index` and waits until it has set *started.
void StartCpu(uint64_t index, const volatile uint64_t* started);

#endif  // ROMULUS_TESTS_GUESTS_COMMON_GUEST_H_
