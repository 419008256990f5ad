// The secondary's end of one replication stream: Hello, full sync, epochs, heartbeats; acks what
// the store has committed; answers a bad stream with Goodbye and closes the link.
//
// Threads: the link calls OnMessage()/OnClosed() on its reader thread; KeepBeating() and
// SayGoodbye() may come from any other. Promotion takes the store itself
// (ReplicaStore::TakeForPromotion) and then says SayGoodbye(REASON_PROMOTED): the store's lock, not
// the link, decides what still counts, so a link that hangs cannot delay a promotion. Frames after
// that are counted, answered with Goodbye and change nothing; nothing committed later exists, so
// nothing later is acked. An ack of an epoch that was committed before may still leave: that epoch
// is in the promoted guest.
//
// Borrows all that is passed in; it must outlive the session, and the session must outlive the
// link's OnClosed().
#ifndef ROMULUS_REPLICA_SESSION_H_
#define ROMULUS_REPLICA_SESSION_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/types.h"
#include "base/work_mark.h"
#include "codec/frame.h"
#include "replica/counters.h"
#include "replica/hello_policy.h"
#include "replica/replica_store.h"
#include "replica/session_listener.h"
#include "romulus/v1/replication.pb.h"
#include "wire/link.h"

namespace romulus::replica {

struct SessionOptions {
  size_t max_body_bytes = codec::kDefaultMaxBodyBytes;
};

class Session final : public wire::LinkListener {
 public:
  Session(ReplicaStore* store, HelloPolicy* policy, SessionListener* listener,
          ReplicaCounters* counters, const base::Clock* clock, const SessionOptions& options);

  // The link that calls this listener; once, before its first OnMessage().
  void Attach(std::shared_ptr<wire::Link> link);

  void OnMessage(absl::string_view frames) override;
  void OnClosed(const absl::Status& why) override;

  // A frame is waiting for this node's disks: what the primary says meanwhile lies unread, so its
  // silence means nothing. Any thread.
  bool working_on_disk() const { return working_on_disk_.load(); }
  // Of the reader thread: at work while it handles a message and does not wait for the primary to
  // take an answer. Any thread.
  base::WorkMark::Look work() const;

  // Errors: Unavailable if the link is gone, the stream has not begun, or a goodbye was said.
  absl::Status SendHeartbeat();
  // The same, but only if neither one nor an ack of an epoch at rest has left for one and a half
  // intervals: each of the primary's is answered at once, by the reader thread, which is awake
  // then. So the primary hears this node when it is silent itself. Returns in how many nanoseconds
  // this is to be called again.
  uint64_t KeepBeating(uint64_t interval_ns);
  // Says why, waiting at most `timeout` for the link's flow control, and closes the link. Does
  // nothing if a goodbye went out already.
  void SayGoodbye(v1::Goodbye::Reason reason, Term term, absl::string_view detail,
                  absl::Duration timeout = absl::Seconds(1));
  // The answer to SessionListener::OnHandOver of a node that is not going to promote: the stream
  // goes on. Any thread.
  void RefuseHandOver(absl::string_view detail);

 private:
  enum class Stage { kAwaitHello, kRunning, kOver };
  struct PendingAck {
    EpochKey key;
    uint64_t echo_monotonic_ns = 0;
    bool at_rest = true;  // no page came with what it acks
    AuditFindings audit;
  };

  absl::Status HandleFrame(const codec::Frame& frame);
  absl::Status HandleHello(const codec::Frame& frame);
  void CorrectDisks(v1::HelloReply* reply) const;
  absl::Status HandleHeartbeat(const codec::Frame& frame);
  absl::Status HandleSync(const codec::Frame& frame);
  absl::Status HandleDiskSync(const codec::Frame& frame);
  absl::Status HandleHashRequest(const codec::Frame& frame);
  absl::Status HandleEpoch(const codec::Frame& frame);
  absl::Status HandleHandOver(const codec::Frame& frame);
  absl::Status HandleGoodbye(const codec::Frame& frame);
  void NoteAudit(AuditFindings&& found);
  class Busy;
  void HandleMessage(absl::string_view frames);
  absl::Status AckAndApply();
  void Refuse(const absl::Status& why);
  void Close(const absl::Status& why);
  absl::Status Send(codec::FrameKind kind, Term term, EpochId epoch,
                    const google::protobuf::MessageLite& body,
                    absl::Duration timeout = absl::InfiniteDuration());
  absl::Status SendBody(codec::FrameKind kind, Term term, EpochId epoch, absl::string_view body,
                        absl::Duration timeout);
  std::shared_ptr<wire::Link> link() const;

  ReplicaStore* const store_;
  HelloPolicy* const policy_;
  SessionListener* const listener_;
  ReplicaCounters* const counters_;
  const base::Clock* const clock_;
  const SessionOptions options_;

  // Reader thread only.
  codec::FrameReader reader_;
  Stage stage_ = Stage::kAwaitHello;
  ReplicaStore::StreamId stream_ = 0;
  bool stream_open_ = false;
  std::optional<PendingAck> ack_;
  uint64_t audited_pages_ = 0;  // on this stream
  uint64_t mismatched_pages_ = 0;
  uint64_t audited_blocks_ = 0;
  uint64_t mismatched_blocks_ = 0;

  std::atomic<uint64_t> term_{0};  // of the stream
  std::atomic<codec::Dialect> dialect_{};
  std::atomic<uint64_t> echo_monotonic_ns_{0};
  std::atomic<bool> running_{false};
  std::atomic<bool> goodbye_said_{false};
  std::atomic<bool> handed_over_{false};  // and not refused: no frame touches the store any more
  std::atomic<bool> working_on_disk_{false};
  base::WorkMark work_;
  std::atomic<int> sends_{0};  // under way
  // For the primary, if it asks: written by the reader thread only.
  std::atomic<bool> measure_link_{false};
  std::atomic<uint64_t> received_bytes_{0};
  std::atomic<uint64_t> busy_ns_{0};
  std::atomic<uint64_t> busy_since_ns_{0};  // 0: idle

  mutable std::mutex link_mutex_;  // guards the pointer only
  std::shared_ptr<wire::Link> link_;
  std::mutex send_mutex_;
  std::condition_variable sent_;
  bool sending_ = false;       // frames leave one by one, in the order of their sequence numbers
  codec::FrameWriter writer_;  // whoever is sending
  std::atomic<uint64_t> heartbeats_{0};
  std::atomic<uint64_t> last_answer_ns_{0};
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_SESSION_H_
