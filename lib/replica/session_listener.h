// Owned by replica, implemented by the daemon's control loop: what a session has to tell. Called on
// the link's reader thread; must not block and must not call the session back (post instead).
#ifndef ROMULUS_REPLICA_SESSION_LISTENER_H_
#define ROMULUS_REPLICA_SESSION_LISTENER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "replica/audit.h"
#include "replica/epoch_key.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::replica {

class SessionListener {
 public:
  virtual ~SessionListener() = default;
  // The Hello was answered; after a refusal the link is closed.
  virtual void OnHello(const v1::Hello& hello, const v1::HelloReply& reply) = 0;
  // A message with only good frames came: the primary lives (failure detector).
  virtual void OnTraffic() = 0;
  virtual void OnSyncProgress(uint64_t pages_done, uint64_t pages_total, bool complete) = 0;
  // Committed, acked and in memory; several epochs of one message are told once, by the newest.
  virtual void OnEpochCommitted(const EpochKey& newest) = 0;
  // The primary asks to go on from `last`, the newest committed epoch, after which it sends none;
  // Session::RefuseHandOver() or a goodbye answers.
  virtual void OnHandOver(const EpochKey& last, const v1::HandOver& hand_over) {
    (void)last, (void)hand_over;
  }
  // Pages of this replica are not what the primary's were in the epochs that are named. Never
  // empty.
  virtual void OnAuditMismatch(const std::vector<AuditMismatch>& pages) { (void)pages; }
  // The same of its disks.
  virtual void OnDiskAuditMismatch(const std::vector<DiskAuditMismatch>& blocks) { (void)blocks; }
  // The primary says why it ends the stream; REASON_GUEST_FINISHED: nothing to promote any more.
  virtual void OnGoodbye(const v1::Goodbye& goodbye) = 0;
  // The last call.
  virtual void OnClosed(const absl::Status& why) = 0;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_SESSION_LISTENER_H_
