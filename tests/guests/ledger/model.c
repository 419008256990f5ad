// The model of the data: write number g of a page (from 1) fills slot (g - 1) mod slots of it with
// words that follow from (seed, page, g, position). So the number of writes alone says what each
// word must be, and any page can be verified at any time. Words not yet written, and a tail too
// short for a slot, are zero.
#include "ledger.h"

enum { kWords = GUEST_PAGE_SIZE / 8 };

static uint64_t Mix(uint64_t x) {
  x = (x ^ x >> 31) * 0x9fb21c651e98df25ull;
  x = (x ^ x >> 29) * 0xd6e8feb86659fd93ull;
  return x ^ x >> 32;
}

static uint64_t SlotKey(uint64_t page, uint64_t gen) {
  return Mix(Mix(g_options.seed + page * 0x9e3779b97f4a7c15ull) + gen);
}

static uint64_t Word(uint64_t key, uint64_t position) {
  const uint64_t x = (key + position) * 0xa0761d6478bd642full;
  return x ^ x >> 32;
}

static volatile uint64_t* Data(uint64_t page) {
  return (volatile uint64_t*)(uintptr_t)(GUEST_DATA_PA + page * GUEST_PAGE_SIZE);
}

static bool Report(volatile struct CpuPage* cpu, uint64_t page, uint64_t word, uint64_t want,
                   uint64_t got) {
  cpu->fault.page = page;
  cpu->fault.word = word;
  cpu->fault.gen = word < kWords ? cpu->gens[page - cpu->first] : 0;
  cpu->fault.want = want;
  cpu->fault.got = got;
  return false;
}

void PrepareSlice(volatile struct CpuPage* cpu) {
  // RAM is not always zero after a reset. A clean page is only read, and stays clean.
  for (uint64_t i = 0; i < cpu->count; ++i) {
    volatile uint64_t* data = Data(cpu->first + i);
    for (uint64_t word = 0; word < kWords; ++word) {
      if (data[word] != 0) data[word] = 0;
    }
    if (cpu->gens[i] != 0) cpu->gens[i] = 0;
  }
}

bool WritePage(volatile struct CpuPage* cpu, uint64_t page) {
  const uint64_t slots = GUEST_PAGE_SIZE / g_options.bytes;
  const uint64_t words = g_options.bytes / 8;
  const uint64_t gen = cpu->gens[page - cpu->first] + 1;
  const uint64_t first = (gen - 1) % slots * words;
  const uint64_t key = SlotKey(page, gen);
  const bool overwrite = gen > slots;
  const uint64_t old_key = overwrite ? SlotKey(page, gen - slots) : 0;
  volatile uint64_t* data = Data(page);
  uint64_t sum = cpu->sum;
  for (uint64_t word = first; word < first + words; ++word) {
    const uint64_t old = data[word];
    const uint64_t want = overwrite ? Word(old_key, word) : 0;
    if (old != want) return Report(cpu, page, word, want, old);
    const uint64_t fresh = Word(key, word);
    data[word] = fresh;
    sum += fresh - old;
  }
  cpu->gens[page - cpu->first] = gen;
  cpu->seq++;
  cpu->writes++;
  cpu->sum = sum;
  cpu->seq++;
  return true;
}

bool VerifyPage(volatile struct CpuPage* cpu, uint64_t page, uint64_t* sum) {
  const uint64_t slots = GUEST_PAGE_SIZE / g_options.bytes;
  const uint64_t words = g_options.bytes / 8;
  const uint64_t gen = cpu->gens[page - cpu->first];
  const uint64_t last = gen == 0 ? 0 : (gen - 1) % slots;  // slot of the newest write
  volatile uint64_t* data = Data(page);
  uint64_t word = 0;
  for (uint64_t slot = 0; slot < slots; ++slot) {
    const uint64_t age = slot <= last ? last - slot : last + slots - slot;
    const bool written = gen > age;
    const uint64_t key = written ? SlotKey(page, gen - age) : 0;
    for (uint64_t i = 0; i < words; ++i, ++word) {
      const uint64_t got = data[word];
      const uint64_t want = written ? Word(key, word) : 0;
      if (got != want) return Report(cpu, page, word, want, got);
      *sum += got;
    }
  }
  for (; word < kWords; ++word) {
    if (data[word] != 0) return Report(cpu, page, word, 0, data[word]);
  }
  return true;
}

// A page and its counter that went back in time together pass VerifyPage, but not this.
bool VerifySlice(volatile struct CpuPage* cpu) {
  uint64_t sum = 0;
  uint64_t writes = 0;
  for (uint64_t i = 0; i < cpu->count; ++i) {
    if (!VerifyPage(cpu, cpu->first + i, &sum)) return false;
    writes += cpu->gens[i];
  }
  if (sum != cpu->sum) return Report(cpu, cpu->first, kWords, cpu->sum, sum);
  if (writes != cpu->writes) return Report(cpu, cpu->first, kWords + 1, cpu->writes, writes);
  cpu->sweeps++;
  return true;
}
