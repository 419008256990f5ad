#include "daemon/ctl_progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "daemon/clean_text.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

constexpr size_t kBarCells = 36;
constexpr size_t kUsualColumns = 80;

// Of what is being copied now, disks or memory; in percent, 0 without a total.
int Percent(const v1::SyncProgress& sync) {
  const bool pages = sync.pages_total() != 0;
  const uint64_t total = pages ? sync.pages_total() : sync.disk_bytes_total();
  const uint64_t done = std::min(total, pages ? sync.pages_done() : sync.disk_bytes_done());
  return total == 0
             ? 0
             : static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
}

std::string ModeWord(const v1::GetStatusResponse& status) {
  return absl::AsciiStrToLower(absl::StripPrefix(v1::Mode_Name(status.mode()), "MODE_"));
}

}  // namespace

std::string ProgressText(const v1::GetStatusResponse& status, size_t columns) {
  const v1::SyncProgress& sync = status.sync();
  std::string text;
  if (!sync.active()) {
    text = CleanText(absl::StrCat(ModeWord(status), ": ", status.reason()));
  } else {
    const int percent = Percent(sync);
    const size_t full = kBarCells * static_cast<size_t>(percent) / 100;
    text = absl::StrFormat("syncing [%s%s] %3d %%", std::string(full, '#'),
                           std::string(kBarCells - full, '.'), percent);
    if (sync.pages_total() != 0) {
      absl::StrAppend(&text, ", ", sync.pages_done(), " of ", sync.pages_total(), " pages");
    } else if (sync.disk_bytes_total() != 0) {
      absl::StrAppend(&text, ", ", sync.disk_bytes_done() / 1024, " of ",
                      sync.disk_bytes_total() / 1024, " KiB of disks");
    }
    if (sync.round() > 1) absl::StrAppend(&text, ", round ", sync.round());
  }
  if (columns != 0 && text.size() >= columns) text.resize(columns - 1);
  return text;
}

void ProgressPrinter::Show(const v1::GetStatusResponse& status) {
  const std::string text = ProgressText(status, columns_);
  if (columns_ != 0) {
    if (text == shown_) return;
    say_(absl::StrCat("\r\x1b[K", text));
  } else {
    const int tenths = status.sync().active() ? Percent(status.sync()) / 10 : -1;
    if (text == shown_ ||
        (tenths == shown_tenths_ && status.mode() == shown_mode_ && tenths >= 0)) {
      return;
    }
    shown_tenths_ = tenths;
    shown_mode_ = status.mode();
    say_(absl::StrCat(text, "\n"));
  }
  shown_ = text;
}

void ProgressPrinter::End() {
  if (columns_ != 0 && !shown_.empty()) say_("\n");
  shown_.clear();
}

size_t TerminalColumns() {
  if (::isatty(STDERR_FILENO) == 0) return 0;
  return kUsualColumns;
}

}  // namespace romulus::daemon
