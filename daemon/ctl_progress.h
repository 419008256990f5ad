// How far a full sync is, for people: one line that is drawn again and again on a terminal, and now
// and then a line of its own elsewhere. One thread.
#ifndef ROMULUS_DAEMON_CTL_PROGRESS_H_
#define ROMULUS_DAEMON_CTL_PROGRESS_H_

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

// Without line end, shorter than `columns`. Of a node that syncs a bar, else its mode and why.
std::string ProgressText(const romulus::v1::GetStatusResponse& status, size_t columns);

class ProgressPrinter {
 public:
  // `terminal_columns`: 0 if nobody looks at a terminal.
  ProgressPrinter(size_t terminal_columns, std::function<void(const std::string&)> say)
      : columns_(terminal_columns), say_(std::move(say)) {}

  void Show(const romulus::v1::GetStatusResponse& status);
  // What was drawn stays; the next line is free.
  void End();

 private:
  const size_t columns_;
  const std::function<void(const std::string&)> say_;
  std::string shown_;
  int shown_tenths_ = -1;
  romulus::v1::Mode shown_mode_ = romulus::v1::MODE_UNSPECIFIED;
};

// Of the terminal that standard error is, as narrow as they usually are; 0 if it is none.
size_t TerminalColumns();

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_PROGRESS_H_
