// A connection that carries messages of whole frames, in order, both ways. The gRPC link is one;
// the simulation and the tests have theirs. Nothing here knows gRPC.
#ifndef ROMULUS_WIRE_LINK_H_
#define ROMULUS_WIRE_LINK_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace romulus::wire {

// Told by the link's own threads, one call at a time; OnClosed is the last.
class LinkListener {
 public:
  virtual ~LinkListener() = default;
  // One or more frames back to back (codec/frame.h), as the peer sent them: hostile until decoded.
  virtual void OnMessage(absl::string_view frames) = 0;
  virtual void OnClosed(const absl::Status& why) = 0;
};

class Link {
 public:
  virtual ~Link() = default;
  // Sends one message; blocks for flow control, so memory stays bounded. Any thread; messages of
  // one thread keep their order. Errors: Unavailable once the link is closed.
  virtual absl::Status Send(std::string frames) = 0;
  // The same, waiting at most `timeout`. Errors: also DeadlineExceeded (nothing was sent).
  virtual absl::Status SendWithin(absl::Duration timeout, std::string frames) {
    (void)timeout;
    return Send(std::move(frames));
  }
  // Ends the link; the listener hears OnClosed(why) (once). Any thread, also from the listener.
  virtual void Close(const absl::Status& why) = 0;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_LINK_H_
