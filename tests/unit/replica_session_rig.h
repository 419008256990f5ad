// A secondary without a network: a store and a session on a link that records. One thread at a
// time, except that the store may be promoted from another.
#ifndef ROMULUS_TESTS_UNIT_REPLICA_SESSION_RIG_H_
#define ROMULUS_TESTS_UNIT_REPLICA_SESSION_RIG_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "codec/frame.h"
#include "memory/guest_memory.h"
#include "replica/session.h"
#include "unit/replica_rig.h"

namespace romulus::replica {

class RecordingLink final : public wire::Link {
 public:
  // The listener hears OnClosed from within Close(), as the hardest case.
  explicit RecordingLink(wire::LinkListener* listener) : listener_(listener) {}

  absl::Status Send(std::string frames) override {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (closed_) return absl::UnavailableError("closed");
      sent_.push_back(std::move(frames));
    }
    if (on_send) on_send();
    return absl::OkStatus();
  }
  void Close(const absl::Status& why) override {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (std::exchange(closed_, true)) return;
      why_ = why;
    }
    listener_->OnClosed(why);
  }
  Messages sent() const {
    std::unique_lock<std::mutex> lock(mutex_);
    return sent_;
  }
  bool closed() const {
    std::unique_lock<std::mutex> lock(mutex_);
    return closed_;
  }

  std::function<void()> on_send;  // after each message

 private:
  wire::LinkListener* listener_;
  mutable std::mutex mutex_;
  Messages sent_;
  bool closed_ = false;
  absl::Status why_;
};

class TestPolicy final : public HelloPolicy {
 public:
  v1::HelloReply OnHello(const v1::Hello& hello) override {
    v1::HelloReply reply;
    reply.set_accepted(hello.vm_name() == "model");
    reply.set_protocol_version(protocol);
    if (!reply.accepted()) {
      reply.set_reason(v1::REFUSAL_REASON_VM);
      reply.set_detail("vm_name is " + hello.vm_name());
    }
    for (const v1::DiskCopy& disk : disks) *reply.add_disks() = disk;
    return reply;
  }

  std::vector<v1::DiskCopy> disks;             // that it says are here
  uint32_t protocol = codec::kNewestProtocol;  // that it agrees on, whoever asks
};

class RecordingListener final : public SessionListener {
 public:
  void OnHello(const v1::Hello&, const v1::HelloReply& reply) override { hello = reply; }
  void OnTraffic() override { ++traffic; }
  void OnSyncProgress(uint64_t done, uint64_t total, bool complete) override {
    sync_done = done;
    sync_total = total;
    sync_complete = complete;
  }
  void OnEpochCommitted(const EpochKey& newest) override { committed.push_back(newest); }
  void OnHandOver(const EpochKey& last, const v1::HandOver& offer) override {
    handed_over.push_back(last);
    hand_over = offer;
  }
  void OnAuditMismatch(const std::vector<AuditMismatch>& pages) override {
    mismatches.insert(mismatches.end(), pages.begin(), pages.end());
  }
  void OnDiskAuditMismatch(const std::vector<DiskAuditMismatch>& blocks) override {
    block_mismatches.insert(block_mismatches.end(), blocks.begin(), blocks.end());
  }
  void OnGoodbye(const v1::Goodbye& g) override { goodbye = g; }
  void OnClosed(const absl::Status& status) override {
    ++closed;
    why = status;
  }

  v1::HelloReply hello;
  int traffic = 0;
  uint64_t sync_done = 0, sync_total = 0;
  bool sync_complete = false;
  std::vector<EpochKey> committed;
  std::vector<EpochKey> handed_over;
  v1::HandOver hand_over;
  std::vector<AuditMismatch> mismatches;
  std::vector<DiskAuditMismatch> block_mismatches;
  v1::Goodbye goodbye;
  int closed = 0;
  absl::Status why;
};

class ConsoleFile final : public CommittedConsole {
 public:
  void OnCommitted(uint64_t offset, absl::string_view bytes) override {
    if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size(), '?');
    content.replace(offset, bytes.size(), std::string(bytes));
  }
  std::string content;
};

struct Reply {
  codec::FrameKind kind;
  Term term;
  EpochId epoch;
  std::string body;
};

class SessionRig {
 public:
  explicit SessionRig(uint64_t memory_mib = 4, const StoreOptions& options = {})
      : memory(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(memory_mib))),
        store(memory, options, &console) {
    Connect();
  }

  // A new stream on the same store.
  void Connect() {
    session =
        std::make_unique<Session>(&store, &policy, &listener, &counters, &clock, SessionOptions());
    link = std::make_shared<RecordingLink>(session.get());
    session->Attach(link);
  }
  void Feed(const Messages& messages) {
    for (const std::string& message : messages) {
      // An exact heap copy, gone after the call: asan sees reads past the end and kept views.
      const auto copy = std::make_unique<char[]>(message.size());
      std::memcpy(copy.get(), message.data(), message.size());
      session->OnMessage(absl::string_view(copy.get(), message.size()));
    }
  }
  std::vector<Reply> Replies() const {
    std::vector<Reply> replies;
    codec::FrameReader reader;
    for (const std::string& message : link->sent()) {
      absl::string_view rest = message;
      while (!rest.empty()) {
        absl::StatusOr<codec::Frame> frame = reader.Next(&rest);
        if (!frame.ok()) return {};
        replies.push_back({frame->kind, frame->term, frame->epoch, std::string(frame->body)});
      }
    }
    return replies;
  }
  EpochId LastAck() const {
    EpochId last;
    for (const Reply& reply : Replies()) {
      if (reply.kind == codec::FrameKind::kAck) last = reply.epoch;
    }
    return last;
  }
  // The goodbye that was sent; reason UNSPECIFIED if none.
  v1::Goodbye SentGoodbye() const {
    v1::Goodbye goodbye;
    for (const Reply& reply : Replies()) {
      if (reply.kind == codec::FrameKind::kGoodbye) goodbye.ParseFromString(reply.body);
    }
    return goodbye;
  }
  uint64_t FaultCount(Fault fault) const { return counters.faults[static_cast<size_t>(fault)]; }

  std::shared_ptr<memory::GuestMemory> memory;
  ConsoleFile console;
  ReplicaStore store;
  TestPolicy policy;
  RecordingListener listener;
  ReplicaCounters counters;
  base::MonotonicClock clock;
  std::unique_ptr<Session> session;
  std::shared_ptr<RecordingLink> link;
};

}  // namespace romulus::replica

#endif  // ROMULUS_TESTS_UNIT_REPLICA_SESSION_RIG_H_
