// The primary's way to its secondary, as daemon/primary.cc, wire/primary_session.cc and
// wire/epoch_sender.cc go it, without their threads: the worker, the sender and the link's reader
// are queues of the scheduler. Encoder, frames, full sync and checkpoint are the real ones.
#ifndef ROMULUS_TESTS_SIM_PRIMARY_H_
#define ROMULUS_TESTS_SIM_PRIMARY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "romulus/v1/replication.pb.h"
#include "sim/host.h"
#include "sim/network.h"
#include "sim/scheduler.h"
#include "wire/handshake.h"

namespace romulus::sim {

// Of daemon/primary.h; on the control loop.
class PrimaryListener {
 public:
  virtual ~PrimaryListener() = default;
  virtual void OnStreamAccepted(Term stream_term, const v1::HelloReply& reply) = 0;
  virtual void OnStreamRefused(const v1::HelloReply& reply) = 0;
  virtual void OnConnectFailed(const absl::Status& why) = 0;
  virtual void OnSyncDone(Term term) = 0;
  virtual void OnAcked(Term term, EpochId epoch) = 0;
  virtual void OnPrimaryGoodbye(const v1::Goodbye& goodbye) = 0;
  virtual void OnHandOverRefused(const std::string& detail) = 0;
  virtual void OnStreamBroken(const absl::Status& why) = 0;
  virtual void OnStreamClosed(const absl::Status& why) = 0;
};

class Primary {
 public:
  struct Parts {
    int node = 0;
    Scheduler* scheduler = nullptr;
    std::shared_ptr<Process> process;
    Network* network = nullptr;
    Oracle* oracle = nullptr;
    Tally* tally = nullptr;
    const base::Clock* clock = nullptr;
    Thread* control = nullptr;
    PrimaryListener* listener = nullptr;
    std::function<void()> heard;  // a sign of life
    // Runs the others for a while, as a thread that blocks does.
    std::function<void(uint64_t ns)> let_others_run;
    // A fault of the rig's: output leaves with the cut.
    bool release_before_ack = false;
  };
  explicit Primary(const Parts& parts);
  ~Primary();

  void Connect(wire::HelloInput hello);
  void StartSync(std::shared_ptr<Host> host, Term term);
  void StopEpochs(const std::shared_ptr<Host>& host);
  void AskUnprotect();
  void OfferHandOver(EpochId last, const v1::HandOver& hand_over);
  struct Farewell {
    v1::Goodbye::Reason reason;
    std::string detail;
  };
  void Close(std::optional<Farewell> farewell, const absl::Status& why);
  // The sender's turn, where a real one would have had it long ago: staging memory is needed.
  void SendAllNow();

 private:
  class Stream;

  const Parts parts_;
  std::shared_ptr<Stream> stream_;
  Thread worker_;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_PRIMARY_H_
