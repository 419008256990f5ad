#include <gtest/gtest.h>
#include <sched.h>

#include <thread>
#include <vector>

#include "base/cpu_affinity.h"

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

TEST(CpuAffinityTest, CpusThatThereAreNotAreRefused) {
  const std::vector<int> before = OwnCpus();
  EXPECT_TRUE(absl::IsInvalidArgument(KeepThreadOn(0, std::vector<int>{0, -1})));
  EXPECT_TRUE(absl::IsInvalidArgument(KeepThreadOn(0, std::vector<int>{CPU_SETSIZE})));
  EXPECT_FALSE(KeepThreadOn(0, {}).ok());
  EXPECT_EQ(OwnCpus(), before);
}

}  // namespace
}  // namespace romulus::base
