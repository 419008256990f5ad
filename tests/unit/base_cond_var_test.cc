// What happens to a wait when the wall clock is set back: this file's gettimeofday(2), which absl
// asks for its deadlines, is an hour ahead of the kernel's.
#include <gtest/gtest.h>
#include <sys/time.h>
#include <time.h>

#include <thread>

#include "base/cond_var.h"

extern "C" int gettimeofday(struct timeval* now, void*) noexcept {
  timespec real{};
  clock_gettime(CLOCK_REALTIME, &real);
  now->tv_sec = real.tv_sec + 3600;
  now->tv_usec = real.tv_nsec / 1000;
  return 0;
}

namespace romulus::base {
namespace {

TEST(CondVarTest, AWaitEndsInTimeAfterTheWallClockWasSetBack) {
  absl::Mutex mutex;
  CondVar changed;
  absl::MutexLock lock(&mutex);
  // With absl::CondVar this takes an hour.
  while (!changed.WaitWithTimeout(&mutex, absl::Milliseconds(10))) {
  }
}

TEST(CondVarTest, AwaitEndsByWhatItAwaitsOrByTheTime) {
  absl::Mutex mutex;
  CondVar changed;
  int count = 0;
  std::thread other([&] {
    for (int i = 0; i < 3; ++i) {
      absl::MutexLock lock(&mutex);
      ++count;
      changed.SignalAll();
    }
  });
  {
    absl::MutexLock lock(&mutex);
    EXPECT_TRUE(changed.AwaitUntil(&mutex, CondVar::After(absl::InfiniteDuration()),
                                   [&] { return count == 3; }));
    EXPECT_FALSE(changed.AwaitUntil(&mutex, CondVar::After(absl::Milliseconds(5)),
                                    [&] { return count == 4; }));
    EXPECT_TRUE(changed.AwaitUntil(&mutex, CondVar::After(absl::ZeroDuration()),
                                   [&] { return count == 3; }));
  }
  EXPECT_EQ(CondVar::Left(CondVar::After(absl::ZeroDuration())), absl::ZeroDuration());
  EXPECT_GT(CondVar::Left(CondVar::After(absl::Hours(1))), absl::Minutes(59));
  other.join();
}

TEST(CondVarTest, ASignalEndsAWaitWithoutEnd) {
  absl::Mutex mutex;
  CondVar changed;
  bool said = false;
  std::thread other([&] {
    absl::MutexLock lock(&mutex);
    said = true;
    changed.SignalAll();
  });
  {
    absl::MutexLock lock(&mutex);
    while (!said) EXPECT_FALSE(changed.WaitWithTimeout(&mutex, absl::InfiniteDuration()));
  }
  other.join();
}

}  // namespace
}  // namespace romulus::base
