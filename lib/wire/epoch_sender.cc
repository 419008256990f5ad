#include "wire/epoch_sender.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/cond_var.h"
#include "base/status.h"
#include "romulus/v1/replication.pb.h"
#include "wire/frame_sender.h"

namespace romulus::wire {
namespace {

// A heartbeat is skipped if others keep the link busy: what they send is a sign of life as well.
constexpr absl::Duration kHeartbeatPatience = absl::Milliseconds(5);
// Epochs taken from the queue in one go; their messages are joined up to batch_bytes.
constexpr size_t kMaxItemsPerTurn = 32;
// So many intervals after the last one a heartbeat leaves however many epochs say that we live: it
// is what the way's length is known by.
constexpr uint64_t kIntervalsWithoutHeartbeat = 4;
// Epochs that come further apart than so many paces have no others to wait for.
constexpr uint64_t kPacesApart = 4;
// An epoch of so many pages is work enough to wake up for.
constexpr uint64_t kManyPages = 64;

struct Pages {
  Term term;
  EpochId epoch;
  epoch::PageBatch batch;
};
struct Whole {
  epoch::StagedEpoch epoch;
  uint64_t submit_ns = 0;
};
struct Aborted {
  Term term;
  EpochId epoch;
};
using Item = std::variant<Pages, Whole, Aborted>;

// Whether somebody waits for its ack, or it is large. (A guest that waits for staging memory while
// only small epochs hold it waits for them as long as they wait for each other.)
bool IsUrgent(const Item& item) {
  const Whole* whole = std::get_if<Whole>(&item);
  return whole == nullptr || whole->epoch.holds_output || whole->epoch.page_count >= kManyPages ||
         whole->epoch.reason == epoch::CutReason::kRequest;
}

// Of a guest that rests: it has written no page.
bool IsAtRest(const Item& item) {
  const Whole* whole = std::get_if<Whole>(&item);
  return whole != nullptr && whole->epoch.page_count == 0;
}

struct Unacked {
  EpochId epoch;
  uint64_t page_count = 0;
  uint64_t submit_ns = 0;
  uint64_t sent_ns = 0;  // 0: not encoded yet
};

}  // namespace

class EpochSender::Impl {
 public:
  Impl(const EpochSenderOptions& options, FrameSender* frames, const base::Clock* clock,
       AckListener* listener)
      : options_(options), frames_(frames), clock_(clock), listener_(listener) {
    last_message_ns_ = clock_->NowNs();
    thread_ = std::thread([this] { Run(); });
  }
  ~Impl() {
    Close(absl::CancelledError("sender destroyed"));
    Join();
  }

  void Push(Item item) {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    if (Whole* whole = std::get_if<Whole>(&item)) {
      whole->submit_ns = clock_->NowNs();
      unacked_.push_back(
          {whole->epoch.epoch, whole->epoch.page_count, whole->submit_ns, /*sent_ns=*/0});
    }
    // Half of the slots taken: the next ack must not be late, or the guest waits for it.
    urgent_ = urgent_ || IsUrgent(item) || 2 * unacked_.size() >= options_.max_unacked_epochs;
    queue_.push_back(std::move(item));
    if (urgent_ || !pacing_) work_.Signal();
  }

  void Abort(Term term, EpochId epoch) {
    std::vector<Item> dropped;  // their memory goes back without the lock
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    while (!queue_.empty()) {
      const Pages* pages = std::get_if<Pages>(&queue_.back());
      if (pages == nullptr || pages->epoch != epoch || pages->term != term) break;
      dropped.push_back(std::move(queue_.back()));
      queue_.pop_back();
    }
    if (open_epoch_ != epoch) return;  // the secondary never heard of it
    queue_.push_back(Aborted{term, epoch});
    urgent_ = true;
    work_.Signal();
  }

  absl::Status OnAudited(const AuditReport& report) {
    absl::MutexLock telling(&listener_mutex_);
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) return why_;
    }
    return listener_->OnAudited(report);
  }
  // Not by the queue: Abort() looks for its pages at the end of that.
  void ForgetPrevious(std::vector<Gfn> gfns) {
    absl::MutexLock lock(&mutex_);
    forget_.insert(forget_.end(), gfns.begin(), gfns.end());
  }
  uint64_t audit_pages_sent() const { return audit_pages_sent_.load(); }
  uint64_t audit_blocks_sent() const { return audit_blocks_sent_.load(); }

  absl::Status Await(absl::Duration timeout, size_t below) {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this, below]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return closed_ || unacked_.size() < below;
    };
    if (!ready() && !acked_or_closed_.AwaitUntil(&mutex_, base::CondVar::After(timeout), ready)) {
      return absl::DeadlineExceededError(
          absl::StrCat(unacked_.size(), " epochs wait for their ack"));
    }
    return closed_ ? why_ : absl::OkStatus();
  }
  absl::Status AwaitRoom(absl::Duration timeout) {
    return Await(timeout, options_.max_unacked_epochs);
  }

  uint64_t unacked_epochs() const {
    absl::MutexLock lock(&mutex_);
    return unacked_.size();
  }
  EpochId acked() const {
    absl::MutexLock lock(&mutex_);
    return acked_;
  }

  absl::Status OnAck(Term term, EpochId epoch, uint64_t replica_staged_bytes) {
    const uint64_t now_ns = clock_->NowNs();
    absl::MutexLock telling(&listener_mutex_);
    std::vector<Unacked> done;
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) return why_;
      if (term != options_.term) {
        return absl::InvalidArgumentError(absl::StrCat(
            "ack for term ", term.value(), " in a stream of term ", options_.term.value()));
      }
      if (epoch > sent_through_) {
        return absl::InvalidArgumentError(absl::StrCat(
            "ack for epoch ", epoch.value(), ", the newest sent is ", sent_through_.value()));
      }
      while (!unacked_.empty() && unacked_.front().epoch <= epoch) {
        done.push_back(unacked_.front());
        unacked_.pop_front();
      }
      acked_ = std::max(acked_, epoch);
      acked_or_closed_.SignalAll();
    }
    for (const Unacked& one : done) {
      listener_->OnEpochAcked({.term = term,
                               .epoch = one.epoch,
                               .page_count = one.page_count,
                               .submit_to_ack_ns = now_ns - std::min(now_ns, one.submit_ns),
                               .send_to_ack_ns = now_ns - std::min(now_ns, one.sent_ns),
                               .replica_staged_bytes = replica_staged_bytes});
    }
    return absl::OkStatus();
  }

  void StartHeartbeats() {
    absl::MutexLock lock(&mutex_);
    heartbeats_ = true;
    work_.Signal();
  }
  void OnPeerHeartbeat(uint64_t sent_ns) { echo_ns_.store(sent_ns, std::memory_order_relaxed); }
  void SetConsoleReleased(uint64_t offset) {
    console_released_.store(offset, std::memory_order_relaxed);
  }

  void Close(const absl::Status& why) {
    std::deque<Item> dropped;
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    closed_ = true;
    why_ = why.ok() ? absl::CancelledError("closed") : why;
    dropped.swap(queue_);
    work_.Signal();
    acked_or_closed_.SignalAll();
  }

  void Join() {
    absl::MutexLock lock(&join_mutex_);
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run() {
    std::vector<Item> items;
    std::vector<Gfn> forget;
    uint64_t last_heartbeat_ns = 0;
    uint64_t next_heartbeat_ns = 0;
    while (true) {
      bool heartbeats = false;
      {
        absl::MutexLock lock(&mutex_);
        AwaitPaceLocked();
        while (!closed_ && queue_.empty()) {
          if (!heartbeats_) {
            work_.Wait(&mutex_);
            continue;
          }
          const uint64_t now_ns = clock_->NowNs();
          if (now_ns >= next_heartbeat_ns) break;
          work_.WaitWithTimeout(&mutex_, absl::Nanoseconds(next_heartbeat_ns - now_ns));
        }
        if (closed_) break;
        heartbeats = heartbeats_;
        while (!queue_.empty() && items.size() < kMaxItemsPerTurn) {
          items.push_back(std::move(queue_.front()));
          queue_.pop_front();
        }
        NoteOpenEpochLocked(items);
        urgent_ = !queue_.empty();
        if (!items.empty()) forget = std::exchange(forget_, {});
      }
      const uint64_t now_ns = clock_->NowNs();
      const uint64_t interval_ns = options_.heartbeat_interval_ns;
      absl::Status sent;
      if (!items.empty()) {
        pace_next_ =
            (now_ns - std::exchange(last_message_ns_, now_ns)) / kPacesApart < options_.pace_ns;
        // It says that we live as a heartbeat does, and its ack says the same of the other node. A
        // busy stream's heartbeats bring reports of the link back.
        if (std::all_of(items.begin(), items.end(), IsAtRest)) {
          next_heartbeat_ns = std::min(
              now_ns + interval_ns, last_heartbeat_ns + kIntervalsWithoutHeartbeat * interval_ns);
        }
        sent = SendItems(items, forget);
        items.clear();
      }
      if (sent.ok() && heartbeats && now_ns >= next_heartbeat_ns) {
        sent = SendHeartbeat();
        last_heartbeat_ns = now_ns;
        next_heartbeat_ns = now_ns + interval_ns;
      }
      if (!sent.ok()) {
        Close(sent);
        break;
      }
    }
    absl::Status why;
    {
      absl::MutexLock lock(&mutex_);
      why = why_;
    }
    absl::MutexLock telling(&listener_mutex_);  // no ack is told after this
    listener_->OnSenderClosed(why);
  }

  // Right after a message, while nothing is urgent. Whoever pushes wakes nobody meanwhile.
  void AwaitPaceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(pace_next_, false)) return;
    pacing_ = true;
    work_.AwaitUntil(&mutex_, base::CondVar::After(absl::Nanoseconds(options_.pace_ns)),
                     [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closed_ || urgent_; });
    pacing_ = false;
  }

  // Whether pages of an unfinished epoch have left the queue, in case it is aborted.
  void NoteOpenEpochLocked(const std::vector<Item>& items) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const Item& item : items) {
      const Pages* pages = std::get_if<Pages>(&item);
      open_epoch_ = pages != nullptr ? pages->epoch : EpochId();
    }
  }

  absl::Status SendItems(std::vector<Item>& items, const std::vector<Gfn>& forget) {
    std::vector<EpochSent> told;
    uint64_t in_link_ns = 0;
    absl::Status sent = frames_->WithEncoder(
        options_.batch_bytes,
        [&](codec::EpochEncoder& encoder, FrameSender::Send send) -> absl::Status {
          encoder.ForgetPrevious(forget);
          for (Item& item : items) {
            const uint64_t begin_ns = clock_->NowNs();
            if (Pages* pages = std::get_if<Pages>(&item)) {
              ROMULUS_RETURN_IF_ERROR(
                  encoder.AddPages(pages->term, pages->epoch, pages->batch, send));
              open_encode_ns_ += clock_->NowNs() - begin_ns;
            } else if (Whole* whole = std::get_if<Whole>(&item)) {
              NoteSent(whole->epoch.epoch, begin_ns);
              for (const epoch::AuditRun& run : whole->epoch.audit) {
                audit_pages_sent_ += run.hashes.size();
              }
              for (const epoch::DiskAuditRun& run : whole->epoch.disk_audit) {
                audit_blocks_sent_ += run.hashes.size();
              }
              ROMULUS_RETURN_IF_ERROR(encoder.Finish(
                  whole->epoch, begin_ns, console_released_.load(std::memory_order_relaxed), send));
              EpochSent& one = told.emplace_back();
              one.term = whole->epoch.term;
              one.epoch = whole->epoch.epoch;
              one.page_count = whole->epoch.page_count;
              one.encoded = encoder.TakeStats();
              one.queue_ns = begin_ns - std::min(begin_ns, whole->submit_ns);
              one.encode_ns = std::exchange(open_encode_ns_, 0) + clock_->NowNs() - begin_ns;
            } else {
              const Aborted& aborted = std::get<Aborted>(item);
              ROMULUS_RETURN_IF_ERROR(encoder.Abort(aborted.term, aborted.epoch,
                                                    "checkpoint failed on the primary", send));
              encoder.TakeStats();
              open_encode_ns_ = 0;
            }
            item = Aborted{};  // staging memory back now, not after the others
          }
          return absl::OkStatus();
        },
        &in_link_ns);
    ROMULUS_RETURN_IF_ERROR(sent);
    for (EpochSent& one : told) {
      // Shared by the epochs of one turn, which left together.
      one.send_ns = in_link_ns / told.size();
      one.encode_ns -= std::min(one.encode_ns, one.send_ns);
      listener_->OnEpochSent(one);
    }
    return absl::OkStatus();
  }

  void NoteSent(EpochId epoch, uint64_t now_ns) {
    absl::MutexLock lock(&mutex_);
    sent_through_ = std::max(sent_through_, epoch);
    for (auto it = unacked_.rbegin(); it != unacked_.rend(); ++it) {
      if (it->epoch != epoch) continue;
      it->sent_ns = now_ns;
      break;
    }
  }

  absl::Status SendHeartbeat() {
    v1::Heartbeat body;
    body.set_sequence(++heartbeat_sequence_);
    body.set_sent_monotonic_ns(clock_->NowNs());
    body.set_echo_monotonic_ns(echo_ns_.load(std::memory_order_relaxed));
    body.set_console_released(console_released_.load(std::memory_order_relaxed));
    absl::Status sent = frames_->SendControl(kHeartbeatPatience, codec::FrameKind::kHeartbeat,
                                             options_.term, EpochId(), body);
    return absl::IsDeadlineExceeded(sent) ? absl::OkStatus() : sent;
  }

  const EpochSenderOptions options_;
  FrameSender* const frames_;
  const base::Clock* const clock_;
  AckListener* const listener_;

  std::atomic<uint64_t> echo_ns_{0};
  std::atomic<uint64_t> console_released_{0};
  std::atomic<uint64_t> audit_pages_sent_{0};
  std::atomic<uint64_t> audit_blocks_sent_{0};
  // The sender's thread only.
  uint64_t open_encode_ns_ = 0;
  bool pace_next_ = false;
  uint64_t last_message_ns_ = 0;
  uint64_t heartbeat_sequence_ = 0;

  // Before mutex_. Held while acks are told, and while the end is.
  absl::Mutex listener_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable absl::Mutex mutex_;
  base::CondVar work_;
  base::CondVar acked_or_closed_;
  std::deque<Item> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<Gfn> forget_ ABSL_GUARDED_BY(mutex_);  // before what the queue has by then is encoded
  std::deque<Unacked> unacked_ ABSL_GUARDED_BY(mutex_);  // submitted, ascending
  EpochId open_epoch_ ABSL_GUARDED_BY(mutex_);
  EpochId sent_through_ ABSL_GUARDED_BY(mutex_);
  EpochId acked_ ABSL_GUARDED_BY(mutex_);
  bool urgent_ ABSL_GUARDED_BY(mutex_) = false;  // something in the queue is
  bool pacing_ ABSL_GUARDED_BY(mutex_) = false;
  bool heartbeats_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex join_mutex_;
  std::thread thread_;
};

EpochSender::EpochSender(const EpochSenderOptions& options, FrameSender* frames,
                         const base::Clock* clock, AckListener* listener)
    : impl_(std::make_unique<Impl>(options, frames, clock, listener)) {}
EpochSender::~EpochSender() = default;

void EpochSender::StagePages(Term term, EpochId epoch, epoch::PageBatch batch) {
  impl_->Push(Pages{term, epoch, std::move(batch)});
}
void EpochSender::Submit(epoch::StagedEpoch epoch) { impl_->Push(Whole{std::move(epoch), 0}); }
void EpochSender::Abort(Term term, EpochId epoch) { impl_->Abort(term, epoch); }
absl::Status EpochSender::OnAudited(const AuditReport& report) { return impl_->OnAudited(report); }
void EpochSender::ForgetPrevious(std::vector<Gfn> gfns) { impl_->ForgetPrevious(std::move(gfns)); }
uint64_t EpochSender::audit_pages_sent() const { return impl_->audit_pages_sent(); }
uint64_t EpochSender::audit_blocks_sent() const { return impl_->audit_blocks_sent(); }
absl::Status EpochSender::AwaitRoom(absl::Duration timeout) { return impl_->AwaitRoom(timeout); }
absl::Status EpochSender::AwaitAllAcked(absl::Duration timeout) { return impl_->Await(timeout, 1); }
uint64_t EpochSender::unacked_epochs() const { return impl_->unacked_epochs(); }
EpochId EpochSender::acked() const { return impl_->acked(); }
absl::Status EpochSender::OnAck(Term term, EpochId epoch, uint64_t replica_staged_bytes) {
  return impl_->OnAck(term, epoch, replica_staged_bytes);
}
void EpochSender::StartHeartbeats() { impl_->StartHeartbeats(); }
void EpochSender::OnPeerHeartbeat(uint64_t peer_sent_monotonic_ns) {
  impl_->OnPeerHeartbeat(peer_sent_monotonic_ns);
}
void EpochSender::SetConsoleReleased(uint64_t offset) { impl_->SetConsoleReleased(offset); }
void EpochSender::Close(const absl::Status& why) { impl_->Close(why); }
void EpochSender::Join() { impl_->Join(); }

}  // namespace romulus::wire
