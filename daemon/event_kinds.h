// Which of the log's lines are events, and how they are told to people. A table; any thread.
#ifndef ROMULUS_DAEMON_EVENT_KINDS_H_
#define ROMULUS_DAEMON_EVENT_KINDS_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace romulus::daemon {

using EventFields = std::vector<std::pair<std::string, std::string>>;

// Not set: no event of the journal's. Times in nanoseconds are told in milliseconds.
std::optional<std::string> EventText(absl::string_view kind, const EventFields& fields);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_EVENT_KINDS_H_
