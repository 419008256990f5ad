// The primary's side of one replication stream, from Hello to the end: handshake, full sync,
// epochs, heartbeats, goodbye. A broken or lying peer closes it; the daemon then opens a new one.
//
// Handshake() and RunFullSync() block and belong on a thread of the caller's (not the control
// loop); RequestStop-like calls (Cancel, Close, SendGoodbye) come from any thread. Listeners are
// called on the link's reader thread or the sender's, must not block and must not destroy the
// session.
#ifndef ROMULUS_WIRE_PRIMARY_SESSION_H_
#define ROMULUS_WIRE_PRIMARY_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "codec/frame.h"
#include "romulus/v1/replication.pb.h"
#include "wire/epoch_sender.h"
#include "wire/full_sync.h"
#include "wire/handshake.h"
#include "wire/link.h"

namespace romulus::wire {

// Owned by wire; implemented by the daemon, which posts to its control loop.
class PrimarySessionListener {
 public:
  virtual ~PrimarySessionListener() = default;
  // Any frame of the peer: feeds the failure detector. `heartbeat_rtt_ns` is 0 but for heartbeats
  // that echo one of ours.
  virtual void OnSignOfLife(uint64_t heartbeat_rtt_ns) = 0;
  virtual void OnPeerGoodbye(const romulus::v1::Goodbye& goodbye) = 0;
  // After OfferHandOver(): the secondary does not promote, and the stream goes on.
  virtual void OnHandOverRefused(const std::string& detail) { (void)detail; }
  // What came was refused: the framing was wrong as `fault` says, or, if that is kNone, a good
  // frame had no business here.
  virtual void OnRefused(codec::FrameFault fault) { (void)fault; }
  // Nothing that the secondary says is looked at any more, and it is to hear so: a stream that just
  // ends is a dead primary's. Whoever listens calls SendGoodbye(), which may wait, from a thread of
  // its own. Only after an accepting handshake; before it the session closes by itself.
  virtual void OnBroken(const absl::Status& why) = 0;
  // Once, and last. The link is closed, nothing of the session runs but its destructor.
  virtual void OnSessionClosed(const absl::Status& why) = 0;
};

struct PrimarySessionOptions {
  HelloInput hello;
  Gfn gfn_end;  // of the guest's memory; 0: from hello.machine.memory
  codec::EncoderOptions encoder;
  EpochSenderOptions sender;  // `term` is taken from hello.stream_term
  FullSyncOptions sync;       // likewise
};

class PrimarySession {
 public:
  // Makes the link that will call `listener`; for example a call of ConnectGrpcLink.
  using LinkFactory = std::function<absl::StatusOr<std::unique_ptr<Link>>(LinkListener* listener)>;

  // Connects. All pointers outlive the session. Errors: the factory's.
  static absl::StatusOr<std::unique_ptr<PrimarySession>> Open(const PrimarySessionOptions& options,
                                                              const LinkFactory& make_link,
                                                              const base::Clock* clock,
                                                              PrimarySessionListener* listener,
                                                              AckListener* acks);
  // Close()s and waits for every thread; OnSessionClosed has returned by then. Not from a listener.
  virtual ~PrimarySession() = default;

  // Sends Hello and waits for the reply: accepted or refused (see StatusOf()). Heartbeats run from
  // acceptance on. Errors: DeadlineExceeded; why the session closed.
  virtual absl::StatusOr<romulus::v1::HelloReply> Handshake(absl::Duration timeout) = 0;
  // After an accepting handshake. `disks` may be null: none is replicated. Errors: FullSync's.
  // Cancelled by CancelFullSync() and Close().
  virtual absl::StatusOr<SyncProgress> RunFullSync(const memory::GuestMemory* guest_memory,
                                                   SyncSource* source,
                                                   DiskSyncSource* disks = nullptr) = 0;
  // The one under way, or the one to come.
  virtual void CancelFullSync() = 0;
  // Where the checkpoint puts epochs, from the end of the full sync on.
  virtual EpochSender& epochs() = 0;

  // How the stream's bulk travels. Any thread.
  struct LinkUse {
    codec::Compression compression = codec::Compression::kNone;
    uint64_t bytes_per_second = 0;  // that the link achieves; 0: not known, or not looked at
  };
  virtual LinkUse link_use() const = 0;

  // Asks the secondary to give its replica up. The stream stands until it answers, with
  // OnPeerGoodbye(UNPROTECT), and closes it. Any thread; waits as SendGoodbye(). Errors: of the
  // link; OK says nothing about the secondary.
  virtual absl::Status AskUnprotect(absl::string_view detail, absl::Duration timeout) = 0;
  // Asks the secondary to go on from `last`, the newest epoch, which is acked; then no epoch may be
  // submitted until it refuses (OnHandOverRefused). OnPeerGoodbye(PROMOTED or HAND_OVER_FAILED) or
  // OnSessionClosed follows else. Any thread; waits as SendGoodbye(). Errors: DeadlineExceeded if
  // nothing was sent; else of the link, and the secondary may have been told.
  virtual absl::Status OfferHandOver(EpochId last, const romulus::v1::HandOver& hand_over,
                                     absl::Duration timeout) = 0;
  // Says why, best effort, and closes. Any thread; may wait for flow control at most `timeout`.
  virtual void SendGoodbye(romulus::v1::Goodbye::Reason reason, absl::string_view detail,
                           absl::Duration timeout) = 0;
  // Any thread; idempotent; does not wait.
  virtual void Close(const absl::Status& why) = 0;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_PRIMARY_SESSION_H_
