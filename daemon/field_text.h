// One field of a message as text, for scripts: `romulusctl status --get`, `romulusd check --get`.
// Any thread.
#ifndef ROMULUS_DAEMON_FIELD_TEXT_H_
#define ROMULUS_DAEMON_FIELD_TEXT_H_

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace romulus::daemon {

// `path`: names from the .proto file and positions in lists, joined by dots: "peer.connected",
// "nodes.0.name". Enums by name ("MODE_SOLO"), booleans as true or false, numbers in decimal;
// without quotes, and always one line: control characters become blanks. What is not set is its
// default, a position behind a list's end is empty. Errors: InvalidArgument, naming the part that
// is no field, or no single value.
absl::StatusOr<std::string> FieldText(const google::protobuf::Message& message,
                                      absl::string_view path);
// One line for each path. Errors: as above.
absl::StatusOr<std::string> FieldLines(const google::protobuf::Message& message,
                                       const std::vector<std::string>& paths);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_FIELD_TEXT_H_
