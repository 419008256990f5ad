#include <gtest/gtest.h>
#include <sched.h>

#include <thread>
#include <vector>

#include "base/cpu_affinity.h"
#include "base/spare_cpu.h"

namespace romulus::base {
namespace {

std::vector<int> OwnCpus() {
  cpu_set_t set;
  EXPECT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

TEST(CpuAffinityTest, AThreadIsKeptOnTheCpusNamed) {
  const std::vector<int> before = OwnCpus();
  ASSERT_FALSE(before.empty());
  std::thread([&] {
    const std::vector<int> last = {before.back()};
    ASSERT_TRUE(KeepThreadOn(0, last).ok());
    EXPECT_EQ(OwnCpus(), last);
  }).join();
  EXPECT_EQ(OwnCpus(), before);
}

// A cpuset, or `cpus`: not what the machine has.
TEST(CpuAffinityTest, CpusAreThoseThatAThreadMayRunOnAndThoseNamed) {
  const std::vector<int> all = OwnCpus();
  EXPECT_EQ(CountCpus({}), static_cast<int>(all.size()));
  std::thread([&] {
    const int mine = all.front();
    ASSERT_TRUE(KeepThreadOn(0, std::vector<int>{mine}).ok());
    EXPECT_EQ(CountCpus({}), 1);
    EXPECT_FALSE(LeavesACpu(1, {}));
    EXPECT_FALSE(LeavesACpu(1, std::vector<int>{mine}));
    EXPECT_EQ(CountCpus(std::vector<int>{-1, CPU_SETSIZE}), 1) << "there can be no such";
    EXPECT_EQ(CountCpus(std::vector<int>{mine, CPU_SETSIZE - 1}), 1) << "there is hardly such";
    if (all.size() < 2) return;
    const std::vector<int> two = {mine, all[1], CPU_SETSIZE - 1};
    EXPECT_EQ(CountCpus(two), 2);
    EXPECT_TRUE(LeavesACpu(1, two));
    EXPECT_FALSE(LeavesACpu(2, two));
    EXPECT_EQ(OwnCpus(), std::vector<int>{mine}) << "asking changes nothing";
  }).join();
}

TEST(CpuAffinityTest, CpusThatThereAreNotAreRefused) {
  const std::vector<int> before = OwnCpus();
  EXPECT_TRUE(absl::IsInvalidArgument(KeepThreadOn(0, std::vector<int>{0, -1})));
  EXPECT_TRUE(absl::IsInvalidArgument(KeepThreadOn(0, std::vector<int>{CPU_SETSIZE})));
  EXPECT_FALSE(KeepThreadOn(0, {}).ok());
  EXPECT_EQ(OwnCpus(), before);
}

}  // namespace
}  // namespace romulus::base
