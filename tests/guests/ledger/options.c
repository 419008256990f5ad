// The command line of the ledger.
#include "ledger.h"

struct Options g_options = {
    .vcpus = 1,
    .pages = 64,
    .bytes = 64,
    .verify = 64,
    .check = 1,
    .seed = 1,
};

static const char* const kWorkloads[] = {"uniform", "hotcold", "sequential", "idle", "counter"};
static const struct NumberOption kNumbers[] = {
    {"vcpus", &g_options.vcpus, 1, GUEST_MAX_VCPUS},
    {"pages", &g_options.pages, 1, 3ull << 18},
    {"bytes", &g_options.bytes, 8, GUEST_PAGE_SIZE},
    {"rate", &g_options.rate, 0, 1000000000},
    {"steps", &g_options.steps, 0, UINT64_MAX},
    {"report_every", &g_options.report_every, 0, UINT64_MAX},
    {"report_ms", &g_options.report_ms, 0, 86400000},
    {"verify", &g_options.verify, 0, UINT64_MAX},
    {"check", &g_options.check, 0, 1},
    {"seed", &g_options.seed, 0, UINT64_MAX},
    {"fill", &g_options.fill, 0, 1},
    {"clock", &g_options.clock, 0, 1},
    {"power_button", &g_options.power_button, 0, 1},
    {"corrupt_at", &g_options.corrupt_at, 0, UINT64_MAX},
    {"corrupt_vcpu", &g_options.corrupt_vcpu, 0, GUEST_MAX_VCPUS - 1},
};

const char* WorkloadName(uint64_t workload) { return kWorkloads[workload]; }

static bool ParseWorkload(const char* name, const char* value) {
  if (!SameText(name, "workload")) return false;
  for (uint64_t i = 0; i < sizeof(kWorkloads) / sizeof(kWorkloads[0]); ++i) {
    if (SameText(value, kWorkloads[i])) {
      g_options.workload = i;
      return true;
    }
  }
  Fail("unknown workload: ", value);
}

void ParseLedgerOptions(const struct StartInfo* info) {
  ParseOptions(info, kNumbers, sizeof(kNumbers) / sizeof(kNumbers[0]), ParseWorkload);
  if (g_options.workload == kCounter) g_options.verify = 0;  // the slice has none of its writes
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
