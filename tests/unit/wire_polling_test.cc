#include <grpc/support/log.h>
#include <grpcpp/alarm.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdlib>
#include <future>
#include <utility>

#include "absl/strings/match.h"
#include "wire/grpc_polling.h"
#include "wire/grpc_stream.h"

#if defined(__SANITIZE_ADDRESS__)
#define ROMULUS_TEST_HAS_LSAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ROMULUS_TEST_HAS_LSAN
#endif
#endif
#ifdef ROMULUS_TEST_HAS_LSAN
#include <sanitizer/lsan_interface.h>
#endif

namespace romulus::wire {
namespace {

// This program's gRPC waits as the daemon's does: before main() nothing of it is in use.
const bool as_the_daemon = [] {
  PollOwnSockets();
  return true;
}();

std::promise<void>* wait_failed = nullptr;

// gRPC says it nowhere else.
void Note(gpr_log_func_args* line) {
  if (wait_failed == nullptr || !absl::StrContains(line->message, "Completion queue next failed"))
    return;
  std::exchange(wait_failed, nullptr)->set_value();
}

// gRPC forgets the few bytes of each wait that could not have its descriptor (ev_poll_posix.cc,
// pollset_work).
class ForgottenByGrpc {
#ifdef ROMULUS_TEST_HAS_LSAN
  __lsan::ScopedDisabler of_this_thread_;
#endif
};

TEST(GrpcPollingTest, P7_AWaitWithoutADescriptorIsNotTheEndOfTheQueue) {
  ASSERT_TRUE(as_the_daemon);
  if (!absl::StartsWith(::getenv("GRPC_POLL_STRATEGY"), "poll")) {
    GTEST_SKIP() << "GRPC_POLL_STRATEGY is set to another: no wait takes a descriptor";
  }
  grpc::CompletionQueue queue;
  grpc::Alarm alarm;
  rlimit usual{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &usual), 0);
  rlimit none = usual;
  none.rlim_cur = 0;
  std::promise<void> failed;
  wait_failed = &failed;
  gpr_set_log_function(Note);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  void* tag = nullptr;
  bool ok = false;
  std::future<bool> got = std::async(std::launch::async, [&] {
    [[maybe_unused]] ForgottenByGrpc few_bytes;
    return NextTag(queue, &tag, &ok);
  });
  failed.get_future().wait();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &usual), 0);
  alarm.Set(&queue, MonotonicIn(std::chrono::milliseconds(0)), &alarm);
  EXPECT_TRUE(got.get());
  EXPECT_EQ(tag, &alarm);
  queue.Shutdown();
  EXPECT_FALSE(NextTag(queue, &tag, &ok));
  gpr_set_log_function(nullptr);
}

}  // namespace
}  // namespace romulus::wire
