// `romulusctl events`: what happened on a node, as a table or as JSON lines. One thread.
#ifndef ROMULUS_DAEMON_CTL_EVENTS_H_
#define ROMULUS_DAEMON_CTL_EVENTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "daemon/ctl_client.h"
#include "romulus/v1/events.pb.h"

namespace romulus::daemon {

// "90s", "10m", "2h30m", "3d" before `now`, or a time as RFC 3339 says it. Milliseconds of Unix
// time. InvalidArgument for anything else.
absl::StatusOr<uint64_t> ParseSince(absl::string_view text, absl::Time now);

std::string EventsHeading();
std::string FormatEvent(const romulus::v1::Event& event);  // one line

// The last `last` events since then, or all if that is 0; oldest first.
grpc::Status ReadEvents(CtlClient& client, uint64_t since_unix_ms, uint32_t last,
                        std::vector<romulus::v1::Event>* events);

struct EventsWanted {
  std::string since;  // empty: from the beginning
  uint32_t last = 0;  // 0: all
  bool follow = false;
};
// Prints them; returns the exit code. While following, a daemon that is restarted is awaited.
int PrintEvents(CtlClient& client, const EventsWanted& wanted);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_EVENTS_H_
