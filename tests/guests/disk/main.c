// Writes numbered records to a disk, flushes after each `flush` of them, and only then tells a step
// on the console. Knows what every block must hold, and reads blocks back to compare.
#include "disk.h"

const char g_guest_name[] = "DISK";

enum { kMaxBlocks = 1 << 20 };

struct Options g_options = {
    .window = UINT64_MAX,
    .blocks = 1024,
    .block_bytes = 4096,
    .flush = 16,
    .depth = 4,
    .verify = 4,
    .sweep = 64,
    .seed = 1,
    .event_index = 1,
};

static const struct NumberOption kNumbers[] = {
    VIRTIO_OPTIONS,
    {"device", &g_options.window, 0, 31},
    {"blocks", &g_options.blocks, 1, kMaxBlocks},
    {"block", &g_options.block_bytes, kSectorBytes, kMaxBlockBytes},
    {"first", &g_options.first, 0, 1ull << 40},
    {"flush", &g_options.flush, 1, 1 << 20},
    {"depth", &g_options.depth, 1, kMaxDepth},
    {"rate", &g_options.rate, 0, 1000000000},
    {"zeroes", &g_options.zeroes, 0, UINT64_MAX},
    {"discard", &g_options.discard, 0, UINT64_MAX},
    {"verify", &g_options.verify, 0, kMaxBlocks},
    {"sweep", &g_options.sweep, 0, UINT64_MAX},
    {"steps", &g_options.steps, 0, UINT64_MAX},
    {"seed", &g_options.seed, 0, UINT64_MAX},
    {"event_idx", &g_options.event_index, 0, 1},
    {"sequential", &g_options.sequential, 0, 1},
};

static uint64_t g_writes;
static uint64_t g_sum;
static uint64_t g_next_verify;

// Number of the last write to each block; 0: none.
static uint64_t* LastWrite(void) {
  return (uint64_t*)(uintptr_t)(GUEST_DATA_PA + (uint64_t)kMaxDepth * kMaxBlockBytes);
}

static void Number(struct Line* line, const char* name, uint64_t value) {
  Text(line, name);
  Decimal(line, value, 1);
}

static void PrintBanner(void) {
  struct Line line = {0};
  Number(&line, "disk: blocks=", g_options.blocks);
  Number(&line, " block=", g_options.block_bytes);
  Number(&line, " first=", g_options.first);
  Number(&line, " flush=", g_options.flush);
  Number(&line, " depth=", g_options.depth);
  PrintDevice(&line);
  Number(&line, " seed=", g_options.seed);
  Number(&line, " sequential=", g_options.sequential);
  Number(&line, " zeroes=", g_options.zeroes);
  Number(&line, " discard=", g_options.discard);
  Send(&line);
}

static void PrintTotals(struct Line* line) {
  Text(line, " sum ");
  Hex(line, g_sum, 16);
  Number(line, " writes ", g_writes);
  Text(line, " vcpus 1 ok");
  Send(line);
}

static void Verify(uint64_t count) {
  for (uint64_t i = 0; i < count && i < g_options.blocks; ++i) {
    const uint64_t block = g_next_verify;
    g_next_verify = block + 1 < g_options.blocks ? block + 1 : 0;
    if (LastWrite()[block] != 0) CheckBlock(ReadBlock(block), block, LastWrite()[block]);
  }
}

static void Step(uint64_t step) {
  struct Line line = {0};
  Flush();
  Verify(g_options.sweep != 0 && step % g_options.sweep == 0 ? g_options.blocks : g_options.verify);
  Text(&line, "step ");
  Decimal(&line, step, 6);
  PrintTotals(&line);
  if (step != g_options.steps) return;
  Verify(g_options.blocks);
  Number(&line, "disk: done steps ", step);
  PrintTotals(&line);
  PowerOff();
}

void guest_main(uint64_t index, const struct StartInfo* info) {
  (void)index;
  ConsoleInit();
  ParseOptions(info, kNumbers, sizeof(kNumbers) / sizeof(kNumbers[0]), NULL);
  if (g_options.block_bytes % kSectorBytes != 0) Fail("not a multiple of 512: ", "block");
  RequireRam(info, GUEST_CPU_PA, (uint64_t)(uintptr_t)(LastWrite() + g_options.blocks));
  if (g_guest_options.tsc_khz == 0) g_guest_options.tsc_khz = FindTscKhz();
  memset(LastWrite(), 0, g_options.blocks * sizeof(uint64_t));
  OpenDevice();
  PrintBanner();
  const uint64_t period = g_options.rate == 0 ? 0 : g_guest_options.tsc_khz * 1000 / g_options.rate;
  uint64_t next_write = ReadTsc();
  for (;;) {
    while (period != 0 && !Due(next_write, ReadTsc(), period)) {
      PollRequests();
      Pause();
    }
    next_write = NextDeadline(next_write, ReadTsc(), period);
    const uint64_t write = g_writes + 1;
    g_sum += SubmitWrite(write);
    LastWrite()[WrittenBlock(write)] = write;
    g_writes = write;
    if (write % g_options.flush == 0) Step(write / g_options.flush);
  }
}
