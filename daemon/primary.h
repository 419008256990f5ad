// The primary's way to its secondary: connect, handshake, full sync, epochs, end of stream.
// Everything that blocks runs on one worker thread; the control loop asks and is told by posted
// calls, so whatever it hears belongs to the stream that it asked for last.
//
// All methods on the control loop. Borrows what PrimaryParts names.
#ifndef ROMULUS_DAEMON_PRIMARY_H_
#define ROMULUS_DAEMON_PRIMARY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/clock.h"
#include "daemon/asio_executor.h"
#include "daemon/disk_stamps.h"
#include "daemon/epoch_records.h"
#include "daemon/guest_host.h"
#include "daemon/signs_of_life.h"
#include "replica/counters.h"
#include "romulus/v1/config.pb.h"
#include "romulus/v1/replication.pb.h"
#include "wire/grpc_link.h"
#include "wire/primary_session.h"

namespace romulus::daemon {

// On the control loop.
class PrimaryListener {
 public:
  virtual ~PrimaryListener() = default;
  virtual void OnStreamAccepted(Term stream_term, const romulus::v1::HelloReply& reply) = 0;
  virtual void OnStreamRefused(const romulus::v1::HelloReply& reply) = 0;
  // Nobody answered, or the handshake did not come to an end.
  virtual void OnConnectFailed(const absl::Status& why) = 0;
  virtual void OnSyncProgress(const wire::SyncProgress& progress) = 0;
  virtual void OnSyncDone(Term term) = 0;
  // Told by the newest; several acks may be one call.
  virtual void OnAcked(Term term, EpochId epoch) = 0;
  // The secondary's pages or disks were not what they should be, and something is done about it
  // (Config.audit).
  virtual void OnAuditMismatch(const wire::AuditReport& report) = 0;
  virtual void OnPrimaryGoodbye(const romulus::v1::Goodbye& goodbye) = 0;
  // The secondary's word, or the offer could not be sent: the stream stands.
  virtual void OnHandOverRefused(const std::string& detail) = 0;
  // What came on an accepted stream was refused: it is to be ended, with a goodbye.
  virtual void OnStreamBroken(const absl::Status& why) = 0;
  // An accepted stream ended.
  virtual void OnStreamClosed(const absl::Status& why) = 0;
};

struct PrimaryParts {
  const romulus::v1::Config* config = nullptr;
  std::string peer_address;
  base::Executor* control = nullptr;
  const base::Clock* clock = nullptr;
  EpochRecords* records = nullptr;
  const Console* console = nullptr;
  DiskStamps* stamps = nullptr;
  SignsOfLife* signs = nullptr;
  replica::ReplicaCounters* counters = nullptr;  // what of the peer's was refused is counted there
  PrimaryListener* listener = nullptr;
  wire::LinkSecurity security{};
};

class Primary {
 public:
  explicit Primary(const PrimaryParts& parts);
  // Ends a stream without goodbye; waits for the worker.
  ~Primary();

  // One attempt to get a stream; OnStreamAccepted, OnStreamRefused or OnConnectFailed follows.
  void Connect(wire::HelloInput hello);
  // On an accepted stream: full sync of `host`, then epochs. OnSyncDone or OnStreamClosed follows.
  void StartSync(std::shared_ptr<GuestHost> host, Term term);
  // No more checkpoints; the guest's tracking ends. May wait for a checkpoint under way.
  void StopEpochs(const std::shared_ptr<GuestHost>& host);
  // Heartbeats carry from now on what the console has written so far, so that a secondary need not
  // keep it until the next epoch. Cheap: called often.
  void TellConsoleReleased();
  // How the stream's bulk travels; nothing if there is none.
  std::optional<wire::PrimarySession::LinkUse> link_use() const;
  // Asks the secondary to give its replica up; nothing is said any more after `deadline_ns`.
  // OnPrimaryGoodbye (UNPROTECT) follows if it does.
  void AskUnprotect(uint64_t deadline_ns);
  // Tells the secondary to go on from `last`. OnHandOverRefused, OnPrimaryGoodbye (PROMOTED,
  // HAND_OVER_FAILED) or OnStreamClosed follows.
  void OfferHandOver(EpochId last, romulus::v1::HandOver hand_over);
  // Ends the stream, if any, after a goodbye if one is given.
  struct Farewell {
    romulus::v1::Goodbye::Reason reason;
    std::string detail;
  };
  void Close(std::optional<Farewell> farewell, const absl::Status& why);
  // Calls `done` on the control loop when all that was asked for before has happened.
  void Drain(std::function<void()> done);

 private:
  class Stream;

  const PrimaryParts parts_;
  std::shared_ptr<Stream> stream_;  // the newest; its session lives and dies on the worker
  AsioExecutor worker_{/*own_thread=*/true};
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_PRIMARY_H_
