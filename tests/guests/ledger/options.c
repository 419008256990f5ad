// The command line: words `name=value`, separated by blanks.
#include "ledger.h"

struct Options g_options = {
    .vcpus = 1,
    .pages = 64,
    .bytes = 64,
    .verify = 64,
    .seed = 1,
    .lsr = 1,
};

static const char* const kWorkloads[] = {"uniform", "hotcold", "sequential", "idle"};
static const struct {
  const char* name;
  uint64_t* value;
  uint64_t min;
  uint64_t max;
} kNumbers[] = {
    {"vcpus", &g_options.vcpus, 1, LEDGER_MAX_VCPUS},
    {"pages", &g_options.pages, 1, 3ull << 18},
    {"bytes", &g_options.bytes, 8, LEDGER_PAGE_SIZE},
    {"rate", &g_options.rate, 0, 1000000000},
    {"tsc_khz", &g_options.tsc_khz, 0, 100000000},
    {"steps", &g_options.steps, 0, UINT64_MAX},
    {"report_every", &g_options.report_every, 0, UINT64_MAX},
    {"report_ms", &g_options.report_ms, 0, 86400000},
    {"verify", &g_options.verify, 0, UINT64_MAX},
    {"seed", &g_options.seed, 0, UINT64_MAX},
    {"fill", &g_options.fill, 0, 1},
    {"lsr", &g_options.lsr, 0, 2},
    {"corrupt_at", &g_options.corrupt_at, 0, UINT64_MAX},
    {"corrupt_vcpu", &g_options.corrupt_vcpu, 0, LEDGER_MAX_VCPUS - 1},
    {"reset_at_end", &g_options.reset_at_end, 0, 1},
};

const char* WorkloadName(uint64_t workload) { return kWorkloads[workload]; }

static bool Same(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

static uint64_t ParseNumber(const char* name, const char* text) {
  uint64_t value = 0;
  if (*text == 0) Fail("option without a number: ", name);
  for (; *text != 0; ++text) {
    if (*text < '0' || *text > '9') Fail("not a decimal number: ", name);
    const uint64_t digit = (uint64_t)(*text - '0');
    if (value > (UINT64_MAX - digit) / 10) Fail("number too large: ", name);
    value = value * 10 + digit;
  }
  return value;
}

static void ParseWord(char* word) {
  char* value = word;
  while (*value != 0 && *value != '=') ++value;
  if (*value == 0) Fail("option without a value: ", word);
  *value++ = 0;
  if (Same(word, "workload")) {
    for (uint64_t i = 0; i < sizeof(kWorkloads) / sizeof(kWorkloads[0]); ++i) {
      if (Same(value, kWorkloads[i])) {
        g_options.workload = i;
        return;
      }
    }
    Fail("unknown workload: ", value);
  }
  for (size_t i = 0; i < sizeof(kNumbers) / sizeof(kNumbers[0]); ++i) {
    if (!Same(word, kNumbers[i].name)) continue;
    const uint64_t number = ParseNumber(word, value);
    if (number < kNumbers[i].min || number > kNumbers[i].max) Fail("out of range: ", word);
    *kNumbers[i].value = number;
    return;
  }
  Fail("unknown option: ", word);
}

void ParseOptions(const char* command_line) {
  char word[64];
  for (;;) {
    size_t length = 0;
    while (*command_line == ' ') ++command_line;
    if (*command_line == 0) break;
    while (*command_line != 0 && *command_line != ' ') {
      if (length == sizeof(word) - 1) Fail("option too long", "");
      word[length++] = *command_line++;
    }
    word[length] = 0;
    ParseWord(word);
  }
  if (g_options.bytes % 8 != 0) Fail("not a multiple of 8: ", "bytes");
  if (g_options.corrupt_vcpu >= g_options.vcpus) {
    Fail("out of range: ", "corrupt_vcpu");
  }
  if (g_options.report_every != 0 && g_options.report_ms != 0) {
    Fail("choose one of report_every and report_ms", "");
  }
  if (g_options.report_every != 0 && g_options.workload == kIdle) {
    Fail("workload=idle writes nothing, use report_ms instead of report_every", "");
  }
  if (g_options.report_every == 0 && g_options.report_ms == 0) {
    g_options.report_ms = g_options.workload == kIdle ? 1000 : 100;
  }
}
