#include "daemon/config.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "daemon/config_arbiter.h"
#include "daemon/config_check.h"
#include "daemon/config_place.h"
#include "daemon/config_tls.h"

namespace romulus::daemon {
namespace {

constexpr size_t kMaxConfigBytes = 1u << 20;

class Collector final : public google::protobuf::io::ErrorCollector {
 public:
  Collector(std::string file, absl::string_view text, std::vector<ConfigError>* errors)
      : file_(std::move(file)), text_(text), errors_(errors) {}

  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    ConfigError error;
    error.file = file_;
    error.line = line + 1;
    error.column = line < 0 ? 0 : column + 1;
    error.message = message;
    PointAtEnumValue(error);
    errors_->push_back(std::move(error));
  }

 private:
  // protobuf's parser names the token behind an unknown enum value, which may be lines below.
  void PointAtEnumValue(ConfigError& error) const {
    absl::string_view rest = error.message;
    if (!absl::ConsumePrefix(&rest, "Unknown enumeration value of \"")) return;
    const absl::string_view value = rest.substr(0, rest.find('"'));
    size_t end = 0;  // of the text up to and including the line that was named
    for (int line = 0; line < error.line && end != absl::string_view::npos; ++line) {
      end = text_.find('\n', end == 0 ? 0 : end + 1);
    }
    const size_t at = text_.substr(0, end).rfind(value);
    if (value.empty() || at == absl::string_view::npos) return;
    const absl::string_view before = text_.substr(0, at);
    error.line = static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1;
    error.column = static_cast<int>(at - (before.rfind('\n') + 1)) + 1;
  }

  std::string file_;
  absl::string_view text_;
  std::vector<ConfigError>* errors_;
};

LoadedConfig OneError(const std::string& path, std::string message) {
  LoadedConfig loaded;
  ConfigError error;
  error.file = path;
  error.message = std::move(message);
  loaded.errors.push_back(std::move(error));
  return loaded;
}

std::string Absolute(const std::string& name, const std::string& config_path) {
  if (name.empty()) return name;
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::absolute(config_path, error).parent_path();
  return (folder / name).lexically_normal().string();
}

std::string ForNode(const std::string& path, const std::string& node_name) {
  return absl::StrReplaceAll(path, {{"{node}", node_name}});
}

}  // namespace

std::string ConfigError::ToString() const {
  std::string text = file;
  if (line > 0) absl::StrAppend(&text, ":", line, ":", column);
  if (!field.empty()) absl::StrAppend(&text, ": ", field);
  return absl::StrCat(text, ": ", message);
}

std::string LoadedConfig::ErrorText() const {
  std::string text;
  for (const ConfigError& error : errors) absl::StrAppend(&text, error.ToString(), "\n");
  return text;
}

const romulus::v1::Node& LoadedConfig::self() const {
  ROMULUS_CHECK(ok());
  const auto found =
      std::find_if(config.nodes().begin(), config.nodes().end(),
                   [&](const auto& node) { return node.name() == config.node_name(); });
  ROMULUS_CHECK(found != config.nodes().end());
  return *found;
}

const romulus::v1::Node* LoadedConfig::peer() const {
  const romulus::v1::Node* me = &self();
  for (const romulus::v1::Node& node : config.nodes()) {
    if (&node != me) return &node;
  }
  return nullptr;
}

LoadedConfig ParseConfig(absl::string_view text, const std::string& path,
                         const ConfigOptions& options) {
  LoadedConfig loaded;
  google::protobuf::TextFormat::ParseInfoTree tree;
  google::protobuf::TextFormat::Parser parser;
  Collector collector(path, text, &loaded.errors);
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(&tree);
  const bool parsed = parser.ParseFromString(std::string(text.data(), text.size()), &loaded.config);
  if (!parsed || !loaded.ok()) {
    if (loaded.ok()) return OneError(path, "cannot be parsed");
    return loaded;
  }

  romulus::v1::Config& config = loaded.config;
  if (options.node) config.set_node_name(*options.node);
  if (!config.has_node_name() && config.nodes_size() == 1) {
    config.set_node_name(config.nodes(0).name());
  }
  romulus::v1::Guest& guest = *config.mutable_guest();
  if (guest.has_kernel()) guest.set_kernel(Absolute(guest.kernel(), path));
  if (guest.has_initrd()) guest.set_initrd(Absolute(guest.initrd(), path));
  for (romulus::v1::Disk& disk : *guest.mutable_disks()) {
    if (disk.has_path()) disk.set_path(Absolute(ForNode(disk.path(), config.node_name()), path));
    if (disk.has_state_dir()) {
      disk.set_state_dir(Absolute(ForNode(disk.state_dir(), config.node_name()), path));
    }
  }
  for (romulus::v1::Nic& nic : *guest.mutable_nics()) {
    if (nic.has_tap()) nic.set_tap(ForNode(nic.tap(), config.node_name()));
  }
  romulus::v1::Console& console = *config.mutable_console();
  if (console.has_file()) {
    console.set_file(Absolute(ForNode(console.file(), config.node_name()), path));
  }
  if (console.has_unix_socket()) {
    console.set_unix_socket(ForNode(console.unix_socket(), config.node_name()));
  }
  if (config.events().has_folder()) {
    config.mutable_events()->set_folder(
        Absolute(ForNode(config.events().folder(), config.node_name()), path));
  }
  if (config.failover().has_arbiter()) {
    MapArbiterPaths(
        [&](const std::string& file) { return Absolute(ForNode(file, config.node_name()), path); },
        config.mutable_failover()->mutable_arbiter());
  }
  if (config.has_tls()) {
    MapTlsPaths(
        [&](const std::string& file) { return Absolute(ForNode(file, config.node_name()), path); },
        config.mutable_tls());
  }
  CheckConfig(config, options, ConfigPlace(config, &tree, path, &loaded.errors));
  std::stable_sort(loaded.errors.begin(), loaded.errors.end(),
                   [](const ConfigError& a, const ConfigError& b) {
                     return std::tie(a.line, a.column) < std::tie(b.line, b.column);
                   });
  return loaded;
}

LoadedConfig LoadConfig(const std::string& path, const ConfigOptions& options) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return OneError(path, "is a folder");
  std::ifstream file(path, std::ios::binary);
  if (!file) return OneError(path, std::strerror(errno));
  std::string text(kMaxConfigBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (file.bad()) return OneError(path, "cannot be read");
  if (text.size() > kMaxConfigBytes) {
    return OneError(path, absl::StrCat("is larger than ", kMaxConfigBytes, " bytes"));
  }
  return ParseConfig(text, path, options);
}

}  // namespace romulus::daemon
