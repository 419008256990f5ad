// One schedule: two nodes, their network, the client, an operator and the faults, all from one
// seed.
//
// First faults, drawn by the seed; then the network heals, and the operator brings back what is
// down: from there on the guest must come to be protected again (sim/timing.h).
#ifndef ROMULUS_TESTS_SIM_WORLD_H_
#define ROMULUS_TESTS_SIM_WORLD_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sim/node.h"

namespace romulus::sim {

enum class Rules : uint8_t {
  kAutomatic,   // auto_failover, output held when the secondary is lost
  kManualHold,  // an operator promotes, output held
  kManualSolo,  // an operator promotes, the primary goes on alone: the default
  kArbiter,     // automatic, and every step from one term to the next is claimed
};

struct Options {
  uint64_t seed = 0;
  Broken broken = Broken::kNothing;
  bool faults = true;
  std::function<void(const std::string& line)> trace;  // may be empty
};

class World {
 public:
  World(const Options& options, Pools* pools, Tally* tally);
  ~World();

  // The violation, if there is one.
  std::string Run();

 private:
  void Check();
  void CheckProtection(int index);
  bool Over() const { return !oracle_.violation().empty(); }
  void RunUntil(uint64_t until_ns);
  void Trace(int node, const std::string& what);

  // With an arbiter its record decides, unless `as_told`.
  void Start(int index, bool as_primary, bool as_told = false);
  void Kill(int index, bool host_too);
  void Bury();
  void DoFault(Fault fault, int index);
  void DoOperator(Fault fault, int index);
  void DoArbiter(Fault fault, int index);
  void Restart(int index);
  // What an operator does once the faults are over.
  void Repair();
  // Nobody has the guest: it is booted again, by daemons that know nothing of what was.
  void BootAnew();
  bool Runs(int index) const;
  bool Holds(int index) const;
  bool InStep() const;
  void CheckEnd();
  failover::Policy PolicyOf(int index) const;

  const Options options_;
  Pools* pools_;
  Tally* tally_;
  Scheduler scheduler_;
  Oracle oracle_;
  Network network_;
  Quorum quorum_;
  Rules rules_ = Rules::kAutomatic;
  bool careless_ = false;  // the operator uses force without looking
  uint64_t lives_ = 0;
  uint64_t instances_ = 0;
  std::array<std::unique_ptr<HostClock>, 2> clocks_;
  std::array<std::unique_ptr<Node>, 2> nodes_;
  std::vector<std::unique_ptr<Node>> graves_;
  std::array<bool, 2> host_down_{};
  std::array<bool, 2> over_and_out_{};   // its process is about to end
  std::array<uint64_t, 2> unwell_ns_{};  // since when a primary says protected and is not; 0: it is
  int nesting_ = 0;
  uint64_t next_look_ns_ = 0;
  bool faults_over_ = false;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_WORLD_H_
