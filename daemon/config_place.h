// A place in a configuration: a message, where its text lies, and its name for people. Private to
// the configuration's check. Points into a Config and a ParseInfoTree that outlive it.
#ifndef ROMULUS_DAEMON_CONFIG_PLACE_H_
#define ROMULUS_DAEMON_CONFIG_PLACE_H_

#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "daemon/config.h"

namespace romulus::daemon {

class ConfigPlace {
 public:
  using Tree = google::protobuf::TextFormat::ParseInfoTree;
  using Location = google::protobuf::TextFormat::ParseLocation;

  ConfigPlace(const google::protobuf::Message& message, const Tree* tree, std::string file,
              std::vector<ConfigError>* errors);

  ConfigPlace Sub(const std::string& field, int index = -1) const;
  bool Has(const std::string& field) const;
  size_t errors() const { return errors_->size(); }  // so far, of the whole configuration
  uint64_t Number(const std::string& field) const;   // a uint32 or uint64 field, or its default
  // Blames a field; where it is not written, the innermost enclosing message that is.
  void Error(const std::string& field, const std::string& message, int index = -1) const;

 private:
  const google::protobuf::FieldDescriptor* Find(const std::string& field) const;

  const google::protobuf::Message* message_;
  const Tree* tree_;  // null: the message is not written in the file
  std::string file_;
  std::string name_;
  Location location_;  // of the message's field; line -1 for the whole file
  std::vector<ConfigError>* errors_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONFIG_PLACE_H_
