#include "loopback_secondary.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/status.h"
#include "memory/guest_memory.h"
#include "replica/session.h"
#include "wire/grpc_server.h"
#include "wire/handshake.h"

namespace romulus::bench {
namespace {

// Accepts whoever says Hello: a bench knows its peer.
class AnyPrimary final : public replica::HelloPolicy {
 public:
  v1::HelloReply OnHello(const v1::Hello& hello) override {
    v1::HelloReply reply;
    reply.set_protocol_version(codec::kNewestProtocol);
    reply.set_accepted(true);
    reply.set_node_name("bench-secondary");
    reply.set_term(hello.term());
    reply.set_max_frame_bytes(codec::kDefaultMaxBodyBytes);
    return reply;
  }
};

class Silent final : public replica::SessionListener {
 public:
  void OnHello(const v1::Hello&, const v1::HelloReply&) override {}
  void OnTraffic() override {}
  void OnSyncProgress(uint64_t, uint64_t, bool) override {}
  void OnEpochCommitted(const replica::EpochKey&) override {}
  void OnGoodbye(const v1::Goodbye&) override {}
  void OnClosed(const absl::Status&) override {}
};

// One replica and one session after the other: each stream is a new row of the bench.
class Acceptor final : public wire::LinkAcceptor {
 public:
  explicit Acceptor(std::shared_ptr<memory::GuestMemory> memory)
      : store_(std::move(memory), {}, nullptr) {}

  wire::LinkListener* Accept(std::unique_ptr<wire::Link> link, absl::string_view) override {
    absl::MutexLock lock(&mutex_);
    sessions_.push_back(std::make_unique<replica::Session>(
        &store_, &policy_, &listener_, &counters_, &clock_, replica::SessionOptions{}));
    sessions_.back()->Attach(std::shared_ptr<wire::Link>(std::move(link)));
    return sessions_.back().get();
  }

 private:
  absl::Mutex mutex_;
  replica::ReplicaStore store_;
  AnyPrimary policy_;
  Silent listener_;
  replica::ReplicaCounters counters_;
  base::MonotonicClock clock_;
  std::vector<std::unique_ptr<replica::Session>> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Status ServeSecondary(uint64_t memory_mib, bool populate) {
  ROMULUS_ASSIGN_OR_RETURN(const memory::MemoryLayout layout,
                           memory::MemoryLayout::ForMib(memory_mib));
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<memory::GuestMemory> memory,
                           memory::GuestMemory::Create(layout));
  for (const memory::Region& region : layout.regions()) {
    if (!populate) break;
    ROMULUS_ASSIGN_OR_RETURN(const std::span<std::byte> bytes,
                             memory->WritableSpan(region.gpa, region.size_bytes));
    for (size_t at = 0; at < bytes.size(); at += kPageSize) bytes[at] = std::byte{1};
  }
  Acceptor acceptor(std::move(memory));
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<wire::GrpcLinkServer> server,
                           wire::GrpcLinkServer::Listen("127.0.0.1:0", {}, &acceptor));
  std::printf("%d\n", server->port());
  std::fflush(stdout);
  char byte;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
  server->Shutdown();
  return absl::OkStatus();
}

absl::StatusOr<SecondaryProcess> SecondaryProcess::Start(
    const std::vector<std::string>& arguments) {
  int to_child[2];
  int from_child[2];
  if (::pipe2(to_child, O_CLOEXEC) != 0 || ::pipe2(from_child, O_CLOEXEC) != 0) {
    return base::ErrnoStatus(errno, "pipe2");
  }
  std::string name = "secondary";
  std::vector<std::string> words = arguments;
  std::vector<char*> argv = {name.data()};
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return base::ErrnoStatus(errno, "fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(to_child[0], STDIN_FILENO);
    ::dup2(from_child[1], STDOUT_FILENO);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  ::close(to_child[0]);
  ::close(from_child[1]);
  FILE* lines = ::fdopen(from_child[0], "r");
  int port = 0;
  const bool got = lines != nullptr && std::fscanf(lines, "%d", &port) == 1;
  if (lines != nullptr) std::fclose(lines);
  SecondaryProcess child(pid, to_child[1], absl::StrCat("127.0.0.1:", port));
  if (!got) return absl::InternalError("the secondary process did not start");
  return child;
}

SecondaryProcess::SecondaryProcess(SecondaryProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      stdin_fd_(std::exchange(other.stdin_fd_, -1)),
      address_(std::move(other.address_)) {}

SecondaryProcess::~SecondaryProcess() {
  if (stdin_fd_ >= 0) ::close(stdin_fd_);
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

double SecondaryProcess::cpu_seconds() const {
  clockid_t clock;
  timespec used = {};
  if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &used) != 0) return 0;
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

}  // namespace romulus::bench
