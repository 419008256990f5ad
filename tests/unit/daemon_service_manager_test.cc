#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "daemon/service_manager.h"
#include "daemon/watchdog.h"
#include "support/temp_folder.h"

namespace romulus::daemon {
namespace {

// A service manager's end: what it was told, datagram by datagram.
class FakeManager {
 public:
  explicit FakeManager(uint64_t watchdog_us) : fd_(::socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = folder_.path() + "/notify";
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
    if (watchdog_us != 0) ::setenv("WATCHDOG_USEC", std::to_string(watchdog_us).c_str(), 1);
  }
  ~FakeManager() {
    ::unsetenv("NOTIFY_SOCKET");
    ::unsetenv("WATCHDOG_USEC");
  }

  std::string Next() { return Receive(0); }
  // All that came and was not read.
  std::vector<std::string> Rest() {
    std::vector<std::string> rest;
    for (std::string next; !(next = Receive(MSG_DONTWAIT)).empty();) rest.push_back(next);
    return rest;
  }

 private:
  std::string Receive(int flags) {
    char buffer[4096];
    const ssize_t size = ::recv(fd_.get(), buffer, sizeof(buffer), flags);
    return size <= 0 ? "" : std::string(buffer, static_cast<size_t>(size));
  }

  testing::TempFolder folder_;
  base::UniqueFd fd_;
};

TEST(ServiceManagerTest, WithoutOneNothingHappens) {
  ::unsetenv("NOTIFY_SOCKET");
  ::unsetenv("WATCHDOG_USEC");
  ServiceManager manager;
  EXPECT_EQ(manager.watchdog_ns(), 0u);
  manager.Ready("x");
  manager.Beat();
}

TEST(ServiceManagerTest, ReadyIsSaidOnceAndStatusWhenItChanges) {
  FakeManager fake(0);
  ServiceManager manager;
  manager.Status("starts");
  manager.Ready("runs");
  manager.Status("runs");
  manager.Ready("runs on");
  manager.Stopping();
  manager.Extend(2'500'000'000);
  EXPECT_THAT(fake.Rest(),
              ::testing::ElementsAre("STATUS=starts", "READY=1\nSTATUS=runs", "STATUS=runs on",
                                     "STOPPING=1", "EXTEND_TIMEOUT_USEC=2500000"));
}

TEST(ServiceManagerTest, P7_APeersTextIsOneLine) {
  FakeManager fake(0);
  ServiceManager manager;
  manager.Status("peer says\nMAINPID=1\r\x01" + std::string(10'000, 'x'));
  const std::string said = fake.Next();
  EXPECT_EQ(said.find('\n'), std::string::npos);
  EXPECT_EQ(said.rfind("STATUS=peer says MAINPID=1  xxx", 0), 0u);
  EXPECT_LE(said.size(), 600u);
}

// An executor whose thread is the test.
class Posted final : public base::Executor {
 public:
  void Post(std::function<void()> work) override {
    std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
  }
  void PostAfter(uint64_t, std::function<void()> work) override { Post(std::move(work)); }
  size_t RunAll() {
    std::vector<std::function<void()>> work;
    {
      std::lock_guard lock(mutex_);
      work.swap(work_);
    }
    for (const auto& one : work) one();
    return work.size();
  }

 private:
  std::mutex mutex_;
  std::vector<std::function<void()>> work_;
};

TEST(WatchdogTest, IsFedWhileTheExecutorAnswersAndNotLonger) {
  FakeManager fake(80'000);
  ServiceManager manager;
  EXPECT_EQ(manager.watchdog_ns(), 80'000'000u);
  const base::MonotonicClock clock;
  Posted executor;
  std::atomic<uint64_t> looks{0};
  Watchdog watchdog(manager, clock, Log(romulus::v1::LOG_LEVEL_ERROR, "vm", "node"));
  {
    const auto counted = watchdog.Add("looks", [&] { return Watchdog::Mark{++looks, true}; });
    const auto watched = watchdog.AddExecutor("loop", &executor);
    for (int beats = 0; beats < 3;) {
      executor.RunAll();
      for (const std::string& said : fake.Rest()) beats += said == "WATCHDOG=1";
    }
    // From here on it hangs: what it has answered feeds one more beat at most, one may be on its
    // way.
    const uint64_t hung_at = looks;
    while (looks < hung_at + 20) ::usleep(1000);
    EXPECT_LE(fake.Rest().size(), 2u);
    EXPECT_LE(executor.RunAll(), 1u);  // one question at a time
  }
  EXPECT_EQ(fake.Next(), "WATCHDOG=1");  // it is gone: nobody is owed anything
}

TEST(WatchdogTest, WhatIsExpectedHasItsTime) {
  FakeManager fake(40'000);
  ServiceManager manager;
  const base::MonotonicClock clock;
  Watchdog watchdog(manager, clock, Log(romulus::v1::LOG_LEVEL_ERROR, "vm", "node"));
  std::atomic<uint64_t> looks{0};
  const auto counted = watchdog.Add("looks", [&] { return Watchdog::Mark{++looks, true}; });
  watchdog.Expect("an hour's work", 3'600'000'000'000);
  EXPECT_EQ(fake.Next(), "WATCHDOG=1");
  watchdog.Expect("nothing", 0);
  const uint64_t from = looks;
  while (looks < from + 20) ::usleep(1000);
  EXPECT_LE(fake.Rest().size(), 3u);
  watchdog.Settled();
  EXPECT_EQ(fake.Next(), "WATCHDOG=1");
}

}  // namespace
}  // namespace romulus::daemon
