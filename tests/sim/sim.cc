// Runs schedules by seed; `--seed N` shows one, event by event.
#include <getopt.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "sim/world.h"

namespace romulus::sim {
namespace {

struct Flags {
  uint64_t from = 0;
  uint64_t count = 1000;
  std::string broken;
  bool no_faults = false;
  bool trace = false;
  bool expect_violation = false;
  bool keep_going = false;
};

Broken BrokenFrom(const std::string& name) {
  if (name == "release_before_ack") return Broken::kReleaseBeforeAck;
  if (name == "promote_though_primary_answers") return Broken::kPromoteThoughPrimaryAnswers;
  if (name == "promote_without_arbiter") return Broken::kPromoteWithoutArbiter;
  if (name == "forget_put_back") return Broken::kForgetPutBack;
  return Broken::kNothing;
}

void Print(const Tally& tally) {
  std::printf(
      "%lu schedules, %lu events: %lu promotions, %lu full syncs, %lu times protected, "
      "%lu fenced\n",
      tally.schedules, tally.events, tally.promotions, tally.syncs, tally.protections,
      tally.fenced);
  std::printf(
      "epochs: %lu cut, %lu acked, %lu aborted, %lu parts shipped early; console: %lu bytes "
      "seen, %lu said again; %lu protected at the end\n",
      tally.epochs_cut, tally.epochs_acked, tally.epochs_aborted, tally.parts_shipped,
      tally.console_bytes, tally.said_again, tally.protected_at_end);
  std::printf("switchovers: %lu done, %lu refused, %lu unanswered\n", tally.switchovers_done,
              tally.switchovers_refused, tally.switchovers_unsure);
  std::printf("claims: %lu yes, %lu no, %lu silent, %lu errors; %lu promotions forgotten\n",
              tally.claims[0], tally.claims[1], tally.claims[2], tally.claims[3], tally.forgotten);
  std::printf("faults:");
  for (size_t i = 0; i < kFaultCount; ++i) {
    std::printf(" %s %lu", std::string(kFaultNames[i]).c_str(), tally.faults[i]);
  }
  std::printf("\n");
}

// That a range saw everything is part of what it shows.
bool SawEverything(const Tally& tally) {
  bool all = true;
  const auto want = [&](absl::string_view what, uint64_t count) {
    if (count > 0) return;
    std::printf("never happened: %s\n", std::string(what).c_str());
    all = false;
  };
  for (size_t i = 0; i < kFaultCount; ++i) want(kFaultNames[i], tally.faults[i]);
  want("promotion", tally.promotions);
  want("fenced", tally.fenced);
  want("claim answered with no", tally.claims[static_cast<size_t>(failover::Verdict::kNo)]);
  want("epoch aborted", tally.epochs_aborted);
  want("part shipped early", tally.parts_shipped);
  want("byte said again", tally.said_again);
  return all;
}

int Main(const Flags& flags) {
  Pools pools;
  Tally tally;
  uint64_t violations = 0;
  const auto began = std::chrono::steady_clock::now();
  for (uint64_t seed = flags.from; seed < flags.from + flags.count; ++seed) {
    Options options;
    options.seed = seed;
    options.broken = BrokenFrom(flags.broken);
    options.faults = !flags.no_faults;
    if (flags.trace) options.trace = [](const std::string& line) { std::puts(line.c_str()); };
    const std::string violation = World(options, &pools, &tally).Run();
    if (violation.empty()) continue;
    ++violations;
    std::printf("seed %lu: %s\n", seed, violation.c_str());
    std::fflush(stdout);
    if (!flags.keep_going) break;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  Print(tally);
  std::printf("%lu violations; %.1f s, %.2f ms each\n", violations, seconds,
              1e3 * seconds / static_cast<double>(tally.schedules));
  if (flags.expect_violation) return violations > 0 ? 0 : 1;
  if (violations > 0) return 1;
  return flags.count < 1000 || flags.no_faults || SawEverything(tally) ? 0 : 1;
}

}  // namespace
}  // namespace romulus::sim

int main(int argc, char** argv) {
  romulus::sim::Flags flags;
  static const option kOptions[] = {
      {"from", required_argument, nullptr, 'f'},       {"count", required_argument, nullptr, 'c'},
      {"seed", required_argument, nullptr, 's'},       {"break", required_argument, nullptr, 'b'},
      {"expect-violation", no_argument, nullptr, 'e'}, {"no-faults", no_argument, nullptr, 'n'},
      {"keep-going", no_argument, nullptr, 'k'},       {nullptr, 0, nullptr, 0}};
  int got;
  while ((got = getopt_long(argc, argv, "", kOptions, nullptr)) != -1) {
    switch (got) {
      case 'f':
        flags.from = std::strtoull(optarg, nullptr, 10);
        break;
      case 'c':
        flags.count = std::strtoull(optarg, nullptr, 10);
        break;
      case 's':
        flags.from = std::strtoull(optarg, nullptr, 10);
        flags.count = 1;
        flags.trace = true;
        break;
      case 'b':
        flags.broken = optarg;
        break;
      case 'e':
        flags.expect_violation = true;
        break;
      case 'n':
        flags.no_faults = true;
        break;
      case 'k':
        flags.keep_going = true;
        break;
      default:
        std::fprintf(stderr, "tests/sim/README.md says how to call this\n");
        return 2;
    }
  }
  if (!flags.broken.empty() &&
      romulus::sim::BrokenFrom(flags.broken) == romulus::sim::Broken::kNothing) {
    std::fprintf(stderr,
                 "--break: release_before_ack, promote_though_primary_answers, "
                 "promote_without_arbiter or forget_put_back\n");
    return 2;
  }
  return romulus::sim::Main(flags);
}
