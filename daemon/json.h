// Messages as JSON, with the names and zeros that scripts rely on. Any thread.
#ifndef ROMULUS_DAEMON_JSON_H_
#define ROMULUS_DAEMON_JSON_H_

#include <google/protobuf/util/json_util.h>

#include <string>

namespace romulus::daemon {

// Field names as in the .proto files; 64-bit numbers are strings (the protobuf JSON mapping).
inline std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}\n";
}

// The same on one line, with its end: for streams.
inline std::string ToJsonLine(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return (status.ok() ? json : "{}") + "\n";
}

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_JSON_H_
