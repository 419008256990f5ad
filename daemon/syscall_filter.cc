#include "daemon/syscall_filter.h"

#include <linux/if_tun.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROMULUS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ROMULUS_SANITIZED 1
#endif
#endif

namespace romulus::daemon {
namespace {

// Files and their folders.
constexpr const char* kFiles[] = {"access",
                                  "chmod",
                                  "close",
                                  "close_range",
                                  "copy_file_range",
                                  "creat",
                                  "dup",
                                  "dup2",
                                  "dup3",
                                  "faccessat",
                                  "faccessat2",
                                  "fadvise64",
                                  "fallocate",
                                  "fchmod",
                                  "fchmodat",
                                  "fcntl",
                                  "fdatasync",
                                  "flock",
                                  "fstat",
                                  "fstatfs",
                                  "fsync",
                                  "ftruncate",
                                  "getcwd",
                                  "getdents64",
                                  "lseek",
                                  "lstat",
                                  "mkdir",
                                  "mkdirat",
                                  "newfstatat",
                                  "open",
                                  "openat",
                                  "openat2",
                                  "pipe",
                                  "pipe2",
                                  "pread64",
                                  "preadv",
                                  "preadv2",
                                  "pwrite64",
                                  "pwritev",
                                  "pwritev2",
                                  "read",
                                  "readlink",
                                  "readlinkat",
                                  "readv",
                                  "rename",
                                  "renameat",
                                  "renameat2",
                                  "sendfile",
                                  "stat",
                                  "statfs",
                                  "statx",
                                  "sync_file_range",
                                  "umask",
                                  "unlink",
                                  "unlinkat",
                                  "write",
                                  "writev"};
// Sockets, and waiting for them.
constexpr const char* kSockets[] = {
    "accept",          "accept4",        "bind",         "connect",    "epoll_create1",
    "epoll_ctl",       "epoll_pwait",    "epoll_pwait2", "epoll_wait", "eventfd2",
    "getpeername",     "getsockname",    "getsockopt",   "listen",     "poll",
    "ppoll",           "pselect6",       "recvfrom",     "recvmmsg",   "recvmsg",
    "select",          "sendmmsg",       "sendmsg",      "sendto",     "setsockopt",
    "shutdown",        "signalfd4",      "socket",       "socketpair", "timerfd_create",
    "timerfd_gettime", "timerfd_settime"};
// A vCPU's alarm.
constexpr const char* kTimers[] = {"timer_create", "timer_delete", "timer_settime"};
// Memory, threads, signals to itself, time, and what it may know of itself.
constexpr const char* kSelf[] = {"arch_prctl",
                                 "brk",
                                 "clock_getres",
                                 "clock_gettime",
                                 "clock_nanosleep",
                                 "exit",
                                 "exit_group",
                                 "futex",
                                 "get_robust_list",
                                 "getcpu",
                                 "getegid",
                                 "geteuid",
                                 "getgid",
                                 "getgroups",
                                 "getpgrp",
                                 "getpid",
                                 "getppid",
                                 "getpriority",
                                 "getrandom",
                                 "getresgid",
                                 "getresuid",
                                 "getrlimit",
                                 "getrusage",
                                 "gettid",
                                 "gettimeofday",
                                 "getuid",
                                 "madvise",
                                 "membarrier",
                                 "memfd_create",
                                 "mincore",
                                 "mlock",
                                 "mlock2",
                                 "mmap",
                                 "mprotect",
                                 "mremap",
                                 "msync",
                                 "munlock",
                                 "munmap",
                                 "nanosleep",
                                 "pause",
                                 "prlimit64",
                                 "restart_syscall",
                                 "rseq",
                                 "rt_sigaction",
                                 "rt_sigpending",
                                 "rt_sigprocmask",
                                 "rt_sigreturn",
                                 "rt_sigsuspend",
                                 "rt_sigtimedwait",
                                 "sched_get_priority_max",
                                 "sched_get_priority_min",
                                 "sched_getaffinity",
                                 "sched_getparam",
                                 "sched_getscheduler",
                                 "sched_setaffinity",
                                 "sched_yield",
                                 "set_robust_list",
                                 "set_tid_address",
                                 "setrlimit",
                                 "sigaltstack",
                                 "sysinfo",
                                 "tgkill",
                                 "time",
                                 "times",
                                 "uname"};

// What a fence command has no business with either.
constexpr const char* kNeverWide[] = {"acct",
                                      "add_key",
                                      "adjtimex",
                                      "bpf",
                                      "chroot",
                                      "clock_adjtime",
                                      "clock_settime",
                                      "delete_module",
                                      "finit_module",
                                      "fsconfig",
                                      "fsmount",
                                      "fsopen",
                                      "fspick",
                                      "init_module",
                                      "io_uring_enter",
                                      "io_uring_register",
                                      "io_uring_setup",
                                      "ioperm",
                                      "iopl",
                                      "kexec_file_load",
                                      "kexec_load",
                                      "keyctl",
                                      "modify_ldt",
                                      "mount",
                                      "mount_setattr",
                                      "move_mount",
                                      "open_by_handle_at",
                                      "open_tree",
                                      "perf_event_open",
                                      "personality",
                                      "pivot_root",
                                      "process_vm_readv",
                                      "process_vm_writev",
                                      "ptrace",
                                      "quotactl",
                                      "reboot",
                                      "request_key",
                                      "setns",
                                      "settimeofday",
                                      "swapoff",
                                      "swapon",
                                      "syslog",
                                      "umount2",
                                      "unshare",
                                      "userfaultfd",
                                      "vhangup"};

// What a new process would be alone with; unshare(2), setns(2) above are the other ways to it.
constexpr uint64_t kNamespaces[] = {CLONE_NEWCGROUP, CLONE_NEWIPC,  CLONE_NEWNET, CLONE_NEWNS,
                                    CLONE_NEWPID,    CLONE_NEWUSER, CLONE_NEWUTS};

// KVM's requests are all of one type; of taps and sockets just those that are used.
constexpr uint64_t kIoctlTypeMask = 0xff00;
constexpr uint64_t kKvmIoctls = 0xae00;
constexpr uint64_t kIoctls[] = {TUNSETIFF,  TUNGETIFF, TUNSETVNETHDRSZ, TUNSETOFFLOAD, SIOCETHTOOL,
                                SIOCGIFMTU, FIONBIO,   FIONREAD,        FIOCLEX,       TCGETS};
constexpr uint64_t kPrctls[] = {PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_SET_TIMERSLACK};

constexpr uint64_t kThreadFlags = CLONE_VM | CLONE_THREAD;

struct Release {
  void operator()(void* filter) const { ::seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, Release>;

absl::Status Check(int error, absl::string_view what) {
  if (error == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("syscall_filter: ", what, ": ",
                                                    std::strerror(-error),
                                                    " (`syscall_filter: false` goes without)"));
}

template <size_t kCount>
absl::Status AddAll(const Filter& filter, uint32_t action, const char* const (&names)[kCount]) {
  for (const char* name : names) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) continue;  // libseccomp is older than the call
    ROMULUS_RETURN_IF_ERROR(Check(::seccomp_rule_add(filter.get(), action, number, 0), name));
  }
  return absl::OkStatus();
}

absl::Status AddStrict(const Filter& filter) {
  const auto allow_if = [&filter](int call, const scmp_arg_cmp& argument, const char* name) {
    return Check(::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 1, argument), name);
  };
  ROMULUS_RETURN_IF_ERROR(AddAll(filter, SCMP_ACT_ALLOW, kFiles));
  ROMULUS_RETURN_IF_ERROR(AddAll(filter, SCMP_ACT_ALLOW, kSockets));
  ROMULUS_RETURN_IF_ERROR(AddAll(filter, SCMP_ACT_ALLOW, kTimers));
  ROMULUS_RETURN_IF_ERROR(AddAll(filter, SCMP_ACT_ALLOW, kSelf));
  ROMULUS_RETURN_IF_ERROR(allow_if(
      SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, kIoctlTypeMask, kKvmIoctls), "ioctl of KVM"));
  for (const uint64_t request : kIoctls) {
    // The request is an int: what a caller leaves in the upper half means nothing.
    ROMULUS_RETURN_IF_ERROR(
        allow_if(SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffu, request), "ioctl"));
  }
  for (const uint64_t option : kPrctls) {
    ROMULUS_RETURN_IF_ERROR(
        allow_if(SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_MASKED_EQ, 0xffffffffu, option), "prctl"));
  }
  // It is hidden already, and a second answer would be logged.
  ROMULUS_RETURN_IF_ERROR(
      Check(::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(clone3), 0), "clone3"));
  // Threads, no processes.
  return allow_if(SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, kThreadFlags, kThreadFlags),
                  "clone");
}

absl::Status AddWide(const Filter& filter, uint32_t refuse) {
  ROMULUS_RETURN_IF_ERROR(AddAll(filter, refuse, kNeverWide));
  for (const uint64_t flag : kNamespaces) {
    ROMULUS_RETURN_IF_ERROR(Check(::seccomp_rule_add(filter.get(), refuse, SCMP_SYS(clone), 1,
                                                     SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag)),
                                  "clone"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Filter> NewFilter(uint32_t otherwise, uint32_t other_architectures, bool log) {
  Filter filter(::seccomp_init(otherwise));
  if (filter == nullptr) return Check(-ENOMEM, "seccomp_init");
  const std::pair<scmp_filter_attr, uint32_t> attributes[] = {
      {SCMP_FLTATR_ACT_BADARCH, other_architectures},
      {SCMP_FLTATR_CTL_NNP, 1},
      {SCMP_FLTATR_CTL_TSYNC, 1},
      {SCMP_FLTATR_CTL_LOG, log ? 1 : 0}};
  for (const auto& [attribute, value] : attributes) {
    ROMULUS_RETURN_IF_ERROR(
        Check(::seccomp_attr_set(filter.get(), attribute, value), "seccomp_attr_set"));
  }
  return filter;
}

// What clone3(2) is asked lies in memory, where a filter cannot look. glibc asks for each thread
// and child, and takes clone(2) when the kernel does not know it: nothing to log, but a filter logs
// all that it refuses or nothing. So this is one of its own; of two equal answers the newer
// filter's counts, so the other one allows the call (seccomp_run_filters in the kernel).
absl::Status HideClone3() {
  ROMULUS_ASSIGN_OR_RETURN(const Filter filter,
                           NewFilter(SCMP_ACT_ALLOW, SCMP_ACT_ALLOW, /*log=*/false));
  ROMULUS_RETURN_IF_ERROR(Check(
      ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0), "clone3"));
  return Check(::seccomp_load(filter.get()), "seccomp_load");
}

}  // namespace

absl::string_view SyscallFilterName(SyscallFilter filter) {
  return filter == SyscallFilter::kStrict ? "strict" : "wide";
}

bool SyscallFilterIsBuiltIn() {
#ifdef ROMULUS_SANITIZED
  return false;
#else
  return true;
#endif
}

absl::Status NarrowSyscalls(SyscallFilter wanted) {
  if (!SyscallFilterIsBuiltIn()) {
    return absl::FailedPreconditionError("syscall_filter: this is a build with sanitizers");
  }
  const bool strict = wanted == SyscallFilter::kStrict;
  const uint32_t refuse = SCMP_ACT_ERRNO(EPERM);
  ROMULUS_ASSIGN_OR_RETURN(
      const Filter filter,
      NewFilter(strict ? refuse : SCMP_ACT_ALLOW,
                /*other_architectures=*/refuse, /*log=*/true));  // 32-bit calls of a 64-bit process
  // A list of 150 is looked through for every call, and the frequent ones are anywhere in it.
  ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  ROMULUS_RETURN_IF_ERROR(strict ? AddStrict(filter) : AddWide(filter, refuse));
  // First, as seccomp(2) is not among what is allowed then.
  ROMULUS_RETURN_IF_ERROR(HideClone3());
  return Check(::seccomp_load(filter.get()), "seccomp_load");
}

}  // namespace romulus::daemon
