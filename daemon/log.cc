#include "daemon/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>

#include "absl/strings/escaping.h"

namespace romulus::daemon {
namespace {

std::string Quoted(absl::string_view value) {
  const bool plain = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return c > ' ' && c != '"' && c != '=' && c != '\\' && c != '\x7f';
  });
  if (plain) return std::string(value);
  return absl::StrCat("\"", absl::Utf8SafeCEscape(value), "\"");
}

spdlog::level::level_enum Level(romulus::v1::LogLevel level) {
  switch (level) {
    case romulus::v1::LOG_LEVEL_DEBUG:
      return spdlog::level::debug;
    case romulus::v1::LOG_LEVEL_WARNING:
      return spdlog::level::warn;
    case romulus::v1::LOG_LEVEL_ERROR:
      return spdlog::level::err;
    case romulus::v1::LOG_LEVEL_INFO:
    case romulus::v1::LOG_LEVEL_UNSPECIFIED:
      return spdlog::level::info;
  }
  return spdlog::level::info;
}

}  // namespace

std::string LogField::text() const { return absl::StrCat(key_, "=", Quoted(value_)); }

LogField::LogField(absl::string_view key, const absl::Status& status)
    : LogField(key, absl::string_view(status.ToString())) {}

Log::Log(romulus::v1::LogLevel level, absl::string_view vm, absl::string_view node,
         LogListener* listener)
    : suffix_(absl::StrCat(" vm=", Quoted(vm), " node=", Quoted(node))),
      listener_(listener),
      logger_(std::make_shared<spdlog::logger>("romulus",
                                               std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
  logger_->set_pattern("time=%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
  logger_->set_level(Level(level));
}

void Log::Write(int level, absl::string_view event, std::initializer_list<LogField> fields) {
  const auto severity = static_cast<spdlog::level::level_enum>(level);
  if (!logger_->should_log(severity)) return;
  std::string line = absl::StrCat("event=", event, suffix_);
  for (const LogField& field : fields) absl::StrAppend(&line, " ", field.text());
  logger_->log(severity, spdlog::string_view_t(line.data(), line.size()));
}

void Log::Tell(romulus::v1::Severity severity, absl::string_view event,
               std::initializer_list<LogField> fields) {
  if (listener_ != nullptr) listener_->OnLogged(severity, event, fields);
}

void Log::Debug(absl::string_view event, std::initializer_list<LogField> fields) {
  Write(spdlog::level::debug, event, fields);
}
void Log::Info(absl::string_view event, std::initializer_list<LogField> fields) {
  Tell(romulus::v1::SEVERITY_INFO, event, fields);
  Write(spdlog::level::info, event, fields);
}
void Log::Warning(absl::string_view event, std::initializer_list<LogField> fields) {
  Tell(romulus::v1::SEVERITY_WARNING, event, fields);
  Write(spdlog::level::warn, event, fields);
}
void Log::Error(absl::string_view event, std::initializer_list<LogField> fields) {
  Tell(romulus::v1::SEVERITY_ERROR, event, fields);
  Write(spdlog::level::err, event, fields);
}

}  // namespace romulus::daemon
