#include "daemon/clean_text.h"

#include <boost/locale/utf.hpp>
#include <iterator>

namespace romulus::daemon {
namespace {

namespace utf = boost::locale::utf;
using Utf8 = utf::utf_traits<char>;

constexpr utf::code_point kReplacement = 0xfffd;

bool IsHarmful(utf::code_point c) {
  const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
  const bool turns = c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
                     (c >= 0x2066 && c <= 0x2069);
  const bool separates = c == 0x2028 || c == 0x2029;
  return control || turns || separates;
}

}  // namespace

std::string CleanText(absl::string_view text, size_t max_bytes) {
  std::string clean;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  size_t room = 0;  // of `clean`, where "..." would still fit
  while (at != end) {
    const char* const before = at;
    utf::code_point c = Utf8::decode(at, end);
    if (c == utf::illegal || c == utf::incomplete) {
      at = std::next(before);
      c = kReplacement;
    } else if (c == '\n' || c == '\t' || c == '\r') {
      c = ' ';
    } else if (IsHarmful(c)) {
      c = kReplacement;
    }
    Utf8::encode(c, std::back_inserter(clean));
    if (clean.size() > max_bytes) {
      clean.resize(room);
      return clean + "...";
    }
    if (clean.size() + 3 <= max_bytes) room = clean.size();
  }
  return clean;
}

}  // namespace romulus::daemon
