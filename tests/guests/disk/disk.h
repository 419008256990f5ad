// The disk guest: types and functions of all its files.
#ifndef ROMULUS_TESTS_GUESTS_DISK_DISK_H_
#define ROMULUS_TESTS_GUESTS_DISK_DISK_H_

#include "virtio.h"

enum {
  kSectorBytes = 512,
  kSectorWords = kSectorBytes / 8,
  kMaxBlockBytes = 65536,
  kMaxDepth = 16
};

enum Kind { kKindWrite, kKindZeroes, kKindDiscard };

struct Options {
  uint64_t window;       // UINT64_MAX: the first block device
  uint64_t blocks;       // size of the area, in blocks, from `first` on
  uint64_t block_bytes;  // of one request; a multiple of 512
  uint64_t first;        // sector
  uint64_t flush;        // writes per step
  uint64_t depth;        // requests in flight
  uint64_t rate;         // writes per second; 0: no limit
  uint64_t zeroes;       // every so many'th write is a write zeroes, a discard; 0: none
  uint64_t discard;
  uint64_t verify;  // blocks read back with each step
  uint64_t sweep;   // all of them every so many steps; 0: never
  uint64_t steps;   // 0: no end
  uint64_t seed;
  uint64_t event_index;
  uint64_t sequential;
};
extern struct Options g_options;

// model.c. What the disk must hold, as a function of the number of writes.
uint64_t WrittenBlock(uint64_t write);
enum Kind KindOf(uint64_t write);
// Fills a block as write number `write` does; returns what it adds to the sum.
uint64_t FillBlock(uint64_t* words, uint64_t block, uint64_t write);
// Compares a block that was read; ends the guest if it differs from what write number `write` (0:
// none yet) left.
void CheckBlock(const uint64_t* words, uint64_t block, uint64_t write);

// requests.c. The block device.
void OpenDevice(void);
void PrintDevice(struct Line* line);
// Begins it once no request for the same block is in flight. Returns what it adds to the sum.
uint64_t SubmitWrite(uint64_t write);
void Flush(void);                           // and waits for all before it
void PollRequests(void);                    // takes what is done
const uint64_t* ReadBlock(uint64_t block);  // waits for all before it

#endif  // ROMULUS_TESTS_GUESTS_DISK_DISK_H_
