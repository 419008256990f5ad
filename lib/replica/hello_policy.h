// Owned by replica, implemented by wire and the daemon: decides whether this node can be the
// primary's secondary, and fills the reply (protocol, VM, memory, CPU, capabilities, term, role).
// Called on a link's reader thread.
#ifndef ROMULUS_REPLICA_HELLO_POLICY_H_
#define ROMULUS_REPLICA_HELLO_POLICY_H_

#include "romulus/v1/replication.pb.h"

namespace romulus::replica {

class HelloPolicy {
 public:
  virtual ~HelloPolicy() = default;
  virtual v1::HelloReply OnHello(const v1::Hello& hello) = 0;
  // Whether the replica may be given up when the primary asks for it. False: it may be about to be
  // promoted, and the primary gets no answer.
  virtual bool MayGiveUp() { return true; }
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_HELLO_POLICY_H_
