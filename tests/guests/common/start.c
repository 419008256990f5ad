// Memory: what the compiler asks for, and what the loader says there is.
#include "guest.h"

struct MemoryMapEntry {
  uint64_t address, size;
  uint32_t type, reserved;
};

void* memset(void* to, int value, size_t size) {
  void* const begin = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return begin;
}

void* memcpy(void* restrict to, const void* restrict from, size_t size) {
  void* const begin = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return begin;
}

void RequireRam(const struct StartInfo* info, uint64_t begin, uint64_t end) {
  const struct MemoryMapEntry* entry = (const void*)(uintptr_t)info->memory_map;
  if (info->version == 0 || entry == NULL) return;  // nothing to check against
  for (uint32_t i = 0; i < info->memory_map_entries; ++i, ++entry) {
    if (entry->type == 1 && entry->address <= begin && entry->address + entry->size >= end) return;
  }
  FailNumber("not enough RAM for pages, MiB needed: ", (end + (1 << 20) - 1) >> 20);
}
