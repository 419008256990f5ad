// ThreadSanitizer and absl::Mutex, absl::Notification. Debian's libabsl is built without TSan, so
// TSan does not see its mutexes order anything and reports every use of them as a race. Linked into
// each executable of the tsan preset (cmake/RomulusOptions.cmake), these definitions come before
// the library's, also for gRPC, whose locks are absl::Mutex too: they tell TSan what is acquired
// and released, and call the library. Await() polls instead of leaving its condition to the thread
// that unlocks, which would look at our data in a place that TSan cannot order.
//
// https://github.com/llvm/llvm-project/blob/main/compiler-rt/include/sanitizer/tsan_interface.h
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>
#include <unistd.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

extern "C" {
// What Debian's libraries order by atomics alone stays invisible: gRPC's completion queues,
// reference counts and buffers, absl's deadlock detector. What they allocate, receive and copy is
// not looked at: finding each of these races only to suppress it takes minutes.
const char* __tsan_default_suppressions() {
  return "called_from_lib:libgrpc.so\n"
         "called_from_lib:libgrpc++.so\n"
         "called_from_lib:libgpr.so\n"
         "race:libgrpc.so\n"
         "race:libgrpc++.so\n"
         "race:libupb.so\n"
         "race:libabsl_\n"
         // Its count of references is kept in libabsl, out of sight; the last one deletes.
         "race:absl::debian3::Status::Unref\n"
         // Memory of a guest that runs: devices write while the full sync reads. What was written
         // is marked afterwards, and sent again.
         "race:romulus::memory::GuestMemory::Write\n"
         "race:romulus::codec::EpochEncoder::AddSyncPage\n"
         // Asks whether gRPC has closed a descriptor, whose number may be another's by then.
         "race:^IsStillOpen$\n"
         "thread:grpc_core::Thread\n";  // its executor's threads end with the process
}
}

namespace {

constexpr useconds_t kPollUs = 200;

// The library's own function of that (mangled) name.
template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

#define ROMULUS_MUTEX(method) "_ZN4absl7debian35Mutex" method

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto next = Next<void (*)(Mutex*)>(ROMULUS_MUTEX("4LockEv"));
  next(this);
  __tsan_acquire(this);
}
bool Mutex::TryLock() {
  static const auto next = Next<bool (*)(Mutex*)>(ROMULUS_MUTEX("7TryLockEv"));
  if (!next(this)) return false;
  __tsan_acquire(this);
  return true;
}
void Mutex::Unlock() {
  static const auto next = Next<void (*)(Mutex*)>(ROMULUS_MUTEX("6UnlockEv"));
  __tsan_release(this);
  next(this);
}
void Mutex::ReaderLock() {
  static const auto next = Next<void (*)(Mutex*)>(ROMULUS_MUTEX("10ReaderLockEv"));
  next(this);
  __tsan_acquire(this);
}
void Mutex::ReaderUnlock() {
  static const auto next = Next<void (*)(Mutex*)>(ROMULUS_MUTEX("12ReaderUnlockEv"));
  __tsan_release(this);
  next(this);
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  while (!condition.Eval()) {
    if (absl::Now() >= deadline) return false;
    Unlock();
    ::usleep(kPollUs);
    Lock();
  }
  return true;
}
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  return AwaitWithDeadline(condition, absl::Now() + timeout);
}
void Mutex::Await(const Condition& condition) {
  AwaitWithDeadline(condition, absl::InfiniteFuture());
}
void Mutex::LockWhen(const Condition& condition) {
  Lock();
  Await(condition);
}
bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  Lock();
  return AwaitWithDeadline(condition, deadline);
}
bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  return LockWhenWithDeadline(condition, absl::Now() + timeout);
}

void CondVar::Wait(Mutex* mutex) {
  static const auto next =
      Next<void (*)(CondVar*, Mutex*)>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  next(this, mutex);
  __tsan_acquire(mutex);
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto next = Next<bool (*)(CondVar*, Mutex*, Time)>(
      "_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_release(mutex);
  const bool timed_out = next(this, mutex, deadline);
  __tsan_acquire(mutex);
  return timed_out;
}
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  return WaitWithDeadline(mutex, absl::Now() + timeout);
}

// Whoever comes after Notify() reads an atomic only, and takes no mutex.
void Notification::Notify() {
  static const auto next = Next<void (*)(Notification*)>("_ZN4absl7debian312Notification6NotifyEv");
  __tsan_release(this);
  next(this);
}
bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  static const auto next = Next<bool (*)(const Notification*, Time)>(
      "_ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE");
  if (!next(this, deadline)) return false;
  __tsan_acquire(const_cast<Notification*>(this));
  return true;
}
bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  return WaitForNotificationWithDeadline(absl::Now() + timeout);
}
void Notification::WaitForNotification() const {
  WaitForNotificationWithDeadline(absl::InfiniteFuture());
}

ABSL_NAMESPACE_END
}  // namespace absl
