// A bench's report, written as JSON.
#ifndef ROMULUS_BENCH_REPORT_JSON_H_
#define ROMULUS_BENCH_REPORT_JSON_H_

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"

namespace romulus::bench {

// Names as in the schema, and figures that are zero too. Errors: DataLoss if it cannot be written.
inline absl::Status WriteJson(const google::protobuf::Message& report, const std::string& path) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(report, &json, options).ok()) {
    return absl::InternalError("report does not become JSON");
  }
  std::ofstream out(path);
  out << json;
  out.close();
  return out.fail() ? absl::DataLossError("cannot write " + path) : absl::OkStatus();
}

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_REPORT_JSON_H_
