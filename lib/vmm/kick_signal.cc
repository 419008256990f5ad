#include "vmm/kick_signal.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/status.h"

namespace romulus::vmm {
namespace {

thread_local uint8_t* kick_flag = nullptr;

void OnKick(int) {
  // SAFETY: one byte shared with the kernel, which reads it once per KVM_RUN.
  if (kick_flag != nullptr) std::atomic_ref<uint8_t>(*kick_flag).store(1);
}

}  // namespace

// Real-time, because glibc and libraries keep away from these; not the first, which glibc's users
// like to take.
int KickSignalNumber() { return SIGRTMIN + 5; }

absl::Status InstallKickSignal() {
  struct sigaction action {};
  action.sa_handler = OnKick;
  // No SA_RESTART: a blocking system call of the kicked thread is to end as well.
  if (::sigaction(KickSignalNumber(), &action, nullptr) != 0) {
    return base::ErrnoStatus(errno, "installing the signal that stops vCPUs");
  }
  return absl::OkStatus();
}

void SetKickFlag(uint8_t* immediate_exit) { kick_flag = immediate_exit; }

void UnblockKickSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, KickSignalNumber());
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Kick(pid_t tid) { ::syscall(SYS_tgkill, ::getpid(), tid, KickSignalNumber()); }

}  // namespace romulus::vmm
