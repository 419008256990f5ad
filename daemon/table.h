// Lines of name and value for people, values in one column.
#ifndef ROMULUS_DAEMON_TABLE_H_
#define ROMULUS_DAEMON_TABLE_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace romulus::daemon {

using TableRows = std::vector<std::pair<std::string, std::string>>;

inline std::string FormatTable(const TableRows& rows) {
  size_t width = 0;
  for (const auto& [name, value] : rows) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, value] : rows) {
    text += name + std::string(width - name.size() + 2, ' ') + value + "\n";
  }
  return text;
}

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_TABLE_H_
