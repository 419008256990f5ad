// A secondary that writes down what its primary says to it, and what it answers, until it is handed
// the guest; record.py runs it. Uses nothing that the previous release does not have, whose library
// it is built with: so both sides of what it records are that release's.
//
//   skew_recorder HOST:PORT MEMORY_MIB FILE
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/clock.h"
#include "replica/session.h"
#include "skew/recording.h"
#include "wire/grpc_server.h"
#include "wire/handshake.h"

namespace romulus::skew {
namespace {

// Of both directions; the reader thread writes, and whoever sends.
class SharedWriter {
 public:
  explicit SharedWriter(const char* path) : writer_(path) {}
  void Add(Entry entry, absl::string_view bytes) {
    std::lock_guard lock(mutex_);
    writer_.Add(entry, bytes);
  }
  void Finish() {
    std::lock_guard lock(mutex_);
    writer_.Finish();
  }

 private:
  std::mutex mutex_;
  RecordingWriter writer_;
};

class WritingLink final : public wire::Link {
 public:
  WritingLink(std::unique_ptr<wire::Link> link, SharedWriter* writer)
      : link_(std::move(link)), writer_(writer) {}
  absl::Status Send(std::string frames) override {
    writer_->Add(Entry::kUp, frames);
    return link_->Send(std::move(frames));
  }
  absl::Status SendWithin(absl::Duration timeout, std::string frames) override {
    writer_->Add(Entry::kUp, frames);
    return link_->SendWithin(timeout, std::move(frames));
  }
  void Close(const absl::Status& why) override { link_->Close(why); }

 private:
  const std::unique_ptr<wire::Link> link_;
  SharedWriter* const writer_;
};

class Recorder final : public wire::LinkAcceptor,
                       public wire::LinkListener,
                       public replica::HelloPolicy,
                       public replica::SessionListener {
 public:
  Recorder(std::shared_ptr<memory::GuestMemory> memory, const char* path)
      : store_(std::move(memory), {}, nullptr), writer_(path) {}

  wire::LinkListener* Accept(std::unique_ptr<wire::Link> link, absl::string_view) override {
    if (accepted_.exchange(true)) return nullptr;
    session_ = std::make_unique<replica::Session>(&store_, this, this, &counters_, &clock_,
                                                  replica::SessionOptions{});
    session_->Attach(std::make_shared<WritingLink>(std::move(link), &writer_));
    return this;
  }
  void OnMessage(absl::string_view frames) override {
    writer_.Add(Entry::kDown, frames);
    session_->OnMessage(frames);
    session_->SendHeartbeat().IgnoreError();
  }

  // Whoever says Hello is what this is configured for.
  v1::HelloReply OnHello(const v1::Hello& hello) override {
    wire::HelloJudge judge;
    judge.node_name = "beta";
    judge.build = "recorder";
    judge.machine.vm_name = hello.vm_name();
    judge.machine.vm_uuid = hello.vm_uuid();
    judge.machine.vcpu_count = hello.vcpu_count();
    judge.machine.memory = store_.layout().regions();
    judge.machine.machine_digest = hello.machine_digest();
    return wire::EvaluateHello(hello, judge);
  }
  void OnHello(const v1::Hello&, const v1::HelloReply& reply) override {
    if (!reply.accepted()) std::fprintf(stderr, "refused: %s\n", reply.detail().c_str());
  }
  void OnTraffic() override {}
  void OnSyncProgress(uint64_t, uint64_t, bool) override {}
  void OnEpochCommitted(const replica::EpochKey&) override {}
  void OnGoodbye(const v1::Goodbye&) override {}
  // The guest stays where it is: one that was recorded ran once already.
  void OnHandOver(const replica::EpochKey& last, const v1::HandOver&) override {
    const absl::StatusOr<replica::PromotableEpoch> taken =
        store_.TakeForPromotion(last.term.Next());
    ROMULUS_CHECK(taken.ok());
    ROMULUS_CHECK(taken->key == last);
    writer_.Add(Entry::kMemory, MemoryDigest(*taken->memory));
    writer_.Add(Entry::kState, taken->machine.Serialize());
    writer_.Add(Entry::kConsole, std::to_string(taken->console_end));
    writer_.Finish();
    done_.Notify();
  }
  void OnClosed(const absl::Status& why) override {
    if (done_.HasBeenNotified()) return;
    // One object listens to link and session: the link's call comes first, and is passed on.
    if (!closed_.exchange(true)) return session_->OnClosed(why);
    std::fprintf(stderr, "closed: %s\n", why.ToString().c_str());
    std::exit(1);
  }

  void AwaitEnd() { done_.WaitForNotification(); }

 private:
  base::MonotonicClock clock_;
  replica::ReplicaStore store_;
  replica::ReplicaCounters counters_;
  SharedWriter writer_;
  std::atomic<bool> accepted_{false};
  std::atomic<bool> closed_{false};
  absl::Notification done_;
  std::unique_ptr<replica::Session> session_;
};

int Run(const char* address, uint64_t memory_mib, const char* path) {
  const absl::StatusOr<memory::MemoryLayout> layout = memory::MemoryLayout::ForMib(memory_mib);
  ROMULUS_CHECK(layout.ok());
  absl::StatusOr<std::unique_ptr<memory::GuestMemory>> memory =
      memory::GuestMemory::Create(*layout);
  ROMULUS_CHECK(memory.ok());
  Recorder recorder(*std::move(memory), path);
  const auto server = wire::GrpcLinkServer::Listen(address, {}, &recorder);
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().ToString().c_str());
    return 1;
  }
  std::printf("listening\n");
  std::fflush(stdout);
  recorder.AwaitEnd();
  std::_Exit(0);  // the primary sees the stream end
}

}  // namespace
}  // namespace romulus::skew

int main(int argc, char** argv) {
  uint64_t memory_mib = 0;
  if (argc != 4 || !absl::SimpleAtoi(argv[2], &memory_mib)) {
    std::fprintf(stderr, "usage: %s HOST:PORT MEMORY_MIB FILE\n", argv[0]);
    return 2;
  }
  return romulus::skew::Run(argv[1], memory_mib, argv[3]);
}
