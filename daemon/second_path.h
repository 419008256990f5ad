// The second path: one gRPC connection between the two nodes' heartbeat addresses, on which both
// say how they are. The node that is listed first connects; the other listens, and hears whoever
// proves to be its peer. Says nothing by itself: a beat is sent when the control loop sends it, so
// a loop that hangs is silent.
//
// Methods on the control loop. Connections are heard on the links' threads; connecting and ending
// them, which may wait, is done on one worker.
#ifndef ROMULUS_DAEMON_SECOND_PATH_H_
#define ROMULUS_DAEMON_SECOND_PATH_H_

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/executor.h"
#include "daemon/asio_executor.h"
#include "daemon/config.h"
#include "romulus/v1/heartbeats.pb.h"
#include "wire/beats.h"
#include "wire/grpc_server.h"

namespace romulus::daemon {

// On the control loop.
class SecondPathListener {
 public:
  virtual ~SecondPathListener() = default;
  // Of the other node; of several that have come meanwhile the newest. `heard_ns`: when.
  virtual void OnBeat(const romulus::v1::Beat& beat, uint64_t heard_ns) = 0;
  // The connection on which the other node was heard has ended.
  virtual void OnSecondPathClosed(const absl::Status& why) = 0;
  // Somebody else was refused. Not for each: now and then.
  virtual void OnBeatRefused(wire::BeatFault fault, const std::string& from,
                             const absl::Status& why) = 0;
};

class SecondPath final : private wire::LinkAcceptor {
 public:
  // `config` has a peer, both with heartbeat addresses, and outlives this, as do the others.
  // Errors: GrpcLinkServer::Listen's.
  static absl::StatusOr<std::unique_ptr<SecondPath>> Open(const LoadedConfig* config,
                                                          base::Executor* control,
                                                          const base::Clock* clock,
                                                          SecondPathListener* listener,
                                                          wire::LinkSecurity security = {});
  ~SecondPath() override;

  // To whoever is there. Fills in who says it, the sequence and the times. Never waits: what the
  // network does not take is dropped.
  void Send(romulus::v1::Beat beat);
  // Ends what stands and begins anew: it has been silent.
  void Restart(const absl::Status& why);
  void Shutdown();  // blocks; idempotent

  uint64_t incarnation() const { return incarnation_; }
  // Round trip of the last beats, averaged; 0: not known.
  uint64_t rtt_ns() const { return rtt_ns_; }
  // Why there is no connection, if there is none.
  const std::string& detail() const { return detail_; }
  const wire::BeatFaultCounters& refused() const { return refused_; }

 private:
  class Stream;

  SecondPath(const LoadedConfig* config, base::Executor* control, const base::Clock* clock,
             SecondPathListener* listener, wire::LinkSecurity security);

  wire::LinkListener* Accept(std::unique_ptr<wire::Link> link, absl::string_view peer) override;
  void OnCrowded(const absl::Status& why, uint64_t ended) override;
  void Dial();
  void DialLater();
  // Control loop.
  void Dialled(const std::shared_ptr<Stream>& stream);
  void Heard(const std::shared_ptr<Stream>& stream);
  void Ended(const std::shared_ptr<Stream>& stream, const absl::Status& why);
  // Any thread.
  void Refused(wire::BeatFault fault, const std::string& from, const absl::Status& why);
  std::shared_ptr<Stream> MakeStream(std::string from);

  const LoadedConfig* const config_;
  base::Executor* const control_;
  const base::Clock* const clock_;
  SecondPathListener* const listener_;
  const wire::LinkSecurity security_;
  const bool dials_;
  const uint64_t incarnation_;
  bool shut_down_ = false;
  uint64_t backoff_ms_ = 0;
  std::string detail_ = "nobody was heard yet";
  uint64_t rtt_ns_ = 0;
  // Of the last beat that was heard.
  uint64_t echo_ns_ = 0;
  uint64_t echo_heard_ns_ = 0;
  std::shared_ptr<Stream> current_;  // what is said goes there

  wire::BeatFaultCounters refused_{};
  std::mutex mutex_;
  std::array<uint64_t, wire::kBeatFaultCount> told_ns_{};
  std::set<std::shared_ptr<Stream>> streams_;  // alive until their link is closed

  AsioExecutor worker_{/*own_thread=*/true};
  std::unique_ptr<wire::GrpcLinkServer> server_;  // of the node that listens
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_SECOND_PATH_H_
