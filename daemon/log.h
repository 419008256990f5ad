// The daemon's log: one line per event, "time level event key=value ...", on standard error. Only
// daemon/ logs; the library reports through listeners and Status. Any thread; never from inside the
// pause.
#ifndef ROMULUS_DAEMON_LOG_H_
#define ROMULUS_DAEMON_LOG_H_

#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "romulus/v1/config.pb.h"
#include "romulus/v1/events.pb.h"

namespace spdlog {
class logger;
}

namespace romulus::daemon {

// One key and its value. A value with blanks, quotes or control bytes is quoted and escaped, so
// that a peer's or a guest's text cannot forge a line.
class LogField {
 public:
  LogField(absl::string_view key, absl::string_view value) : key_(key), value_(value) {}
  LogField(absl::string_view key, const char* value) : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, const std::string& value)
      : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, const absl::Status& status);
  LogField(absl::string_view key, bool value) : LogField(key, value ? "true" : "false") {}
  template <typename T>
  requires std::is_arithmetic_v<T> LogField(absl::string_view key, T value)
      : LogField(key, absl::string_view(absl::StrCat(value))) {}

  const std::string& key() const { return key_; }
  const std::string& value() const { return value_; }  // as it is
  std::string text() const;                            // key=value

 private:
  std::string key_;
  std::string value_;
};

// Hears of every line but debug ones, whatever the log's level is. Called from any thread; must not
// block, nor log.
class LogListener {
 public:
  virtual ~LogListener() = default;
  virtual void OnLogged(romulus::v1::Severity severity, absl::string_view event,
                        std::initializer_list<LogField> fields) = 0;
};

class Log {
 public:
  // Every line carries vm=... node=.... `listener`, if there is one, outlives the log.
  Log(romulus::v1::LogLevel level, absl::string_view vm, absl::string_view node,
      LogListener* listener = nullptr);

  void Debug(absl::string_view event, std::initializer_list<LogField> fields = {});
  void Info(absl::string_view event, std::initializer_list<LogField> fields = {});
  void Warning(absl::string_view event, std::initializer_list<LogField> fields = {});
  void Error(absl::string_view event, std::initializer_list<LogField> fields = {});

 private:
  void Write(int level, absl::string_view event, std::initializer_list<LogField> fields);

  void Tell(romulus::v1::Severity severity, absl::string_view event,
            std::initializer_list<LogField> fields);

  std::string suffix_;
  LogListener* const listener_;
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_LOG_H_
