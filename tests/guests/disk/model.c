// Write number n (from 1) goes to a block that follows from (seed, n), and fills each of its
// sectors with a record that follows from (seed, sector, n). So whoever knows the seed can tell
// from an image which write each sector is of, and what the image must be after any number of
// writes (check_disk.py). A record is 64 little-endian words: "RDISK1\0\0", seed, sector, n, step,
// 58 words of noise, and a hash of the 63 before it.
#include "disk.h"

#define MAGIC 0x0000314b53494452ull

static uint64_t Mix(uint64_t x) {
  x = (x ^ x >> 31) * 0x9fb21c651e98df25ull;
  x = (x ^ x >> 29) * 0xd6e8feb86659fd93ull;
  return x ^ x >> 32;
}

uint64_t WrittenBlock(uint64_t write) {
  if (g_options.sequential != 0) return (write - 1) % g_options.blocks;
  const uint64_t random = Mix(Mix(g_options.seed) + write);
  return (uint64_t)((unsigned __int128)random * g_options.blocks >> 64);
}

enum Kind KindOf(uint64_t write) {
  if (g_options.zeroes != 0 && write % g_options.zeroes == 0) return kKindZeroes;
  if (g_options.discard != 0 && write % g_options.discard == 0) return kKindDiscard;
  return kKindWrite;
}

static uint64_t Word(uint64_t key, uint64_t position) {
  const uint64_t x = (key + position) * 0xa0761d6478bd642full;
  return x ^ x >> 32;
}

static void FillSector(uint64_t* words, uint64_t sector, uint64_t write) {
  const uint64_t key = Mix(Mix(g_options.seed + sector * 0x9e3779b97f4a7c15ull) + write);
  words[0] = MAGIC;
  words[1] = g_options.seed;
  words[2] = sector;
  words[3] = write;
  words[4] = (write - 1) / g_options.flush + 1;
  for (uint64_t i = 5; i < kSectorWords - 1; ++i) words[i] = Word(key, i);
  uint64_t hash = 0;
  for (uint64_t i = 0; i < kSectorWords - 1; ++i) {
    hash = (hash ^ words[i]) * 0x9fb21c651e98df25ull;
    hash ^= hash >> 32;
  }
  words[kSectorWords - 1] = hash;
}

static uint64_t FirstSector(uint64_t block) {
  return g_options.first + block * (g_options.block_bytes / kSectorBytes);
}

uint64_t FillBlock(uint64_t* words, uint64_t block, uint64_t write) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < g_options.block_bytes / kSectorBytes; ++i) {
    FillSector(words + i * kSectorWords, FirstSector(block) + i, write);
    sum += words[i * kSectorWords + kSectorWords - 1];
  }
  return sum;
}

static void Corrupt(uint64_t sector, uint64_t word, uint64_t write, uint64_t want, uint64_t got)
    __attribute__((noreturn));
static void Corrupt(uint64_t sector, uint64_t word, uint64_t write, uint64_t want, uint64_t got) {
  struct Line line = {0};
  Text(&line, "DISK CORRUPT sector ");
  Decimal(&line, sector, 1);
  Text(&line, " word ");
  Decimal(&line, word, 1);
  Text(&line, " write ");
  Decimal(&line, write, 1);
  Text(&line, " want ");
  Hex(&line, want, 16);
  Text(&line, " got ");
  Hex(&line, got, 16);
  Send(&line);
  PowerOff();
}

void CheckBlock(const uint64_t* words, uint64_t block, uint64_t write) {
  static uint64_t want[kSectorWords];
  if (write == 0) return;  // whatever was there before us
  for (uint64_t i = 0; i < g_options.block_bytes / kSectorBytes; ++i) {
    const uint64_t sector = FirstSector(block) + i;
    if (KindOf(write) == kKindWrite) {
      FillSector(want, sector, write);
    } else {
      memset(want, 0, sizeof(want));
    }
    for (uint64_t word = 0; word < kSectorWords; ++word) {
      const uint64_t got = words[i * kSectorWords + word];
      if (got != want[word]) Corrupt(sector, word, write, want[word], got);
    }
  }
}
