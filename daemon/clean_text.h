// Text of others (guests, peers, files) made fit for a message, a terminal or a page. Any thread.
#ifndef ROMULUS_DAEMON_CLEAN_TEXT_H_
#define ROMULUS_DAEMON_CLEAN_TEXT_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace romulus::daemon {

// Valid UTF-8 of at most `max_bytes` (three at least), without control characters and without those
// that turn the direction of writing: each of these, and what is no UTF-8, becomes U+FFFD; blanks
// of any kind become ' '. What was cut off ends with "...".
std::string CleanText(absl::string_view text, size_t max_bytes = 4096);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CLEAN_TEXT_H_
