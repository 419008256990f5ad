// Lines of name and value for people, values in one column.
#ifndef ROMULUS_DAEMON_TABLE_H_
#define ROMULUS_DAEMON_TABLE_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "daemon/clean_text.h"

namespace romulus::daemon {

using TableRows = std::vector<std::pair<std::string, std::string>>;

inline std::string FormatTable(const TableRows& rows) {
  size_t width = 0;
  for (const auto& [name, value] : rows) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, value] : rows) {
    // What guests, peers and files call themselves must not write to the terminal.
    text += CleanText(name) + std::string(width - name.size() + 2, ' ') + CleanText(value) + "\n";
  }
  return text;
}

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_TABLE_H_
