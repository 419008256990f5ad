// The command line: words `name=value`, separated by blanks.
#include "guest.h"

struct GuestOptions g_guest_options = {.lsr = 1};

static const struct NumberOption kCommon[] = {
    {"tsc_khz", &g_guest_options.tsc_khz, 0, 100000000},
    {"lsr", &g_guest_options.lsr, 0, 2},
    {"reset_at_end", &g_guest_options.reset_at_end, 0, 1},
};

bool SameText(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

static uint64_t Digit(char c) {
  if (c >= '0' && c <= '9') return (uint64_t)(c - '0');
  if (c >= 'a' && c <= 'f') return (uint64_t)(c - 'a' + 10);
  return UINT64_MAX;
}

static uint64_t ParseNumber(const char* name, const char* text) {
  uint64_t base = 10;
  if (text[0] == '0' && text[1] == 'x') {
    base = 16;
    text += 2;
  }
  uint64_t value = 0;
  if (*text == 0) Fail("option without a number: ", name);
  for (; *text != 0; ++text) {
    const uint64_t digit = Digit(*text);
    if (digit >= base) Fail("not a number: ", name);
    if (value > (UINT64_MAX - digit) / base) Fail("number too large: ", name);
    value = value * base + digit;
  }
  return value;
}

static bool ParseOneOf(const struct NumberOption* numbers, size_t count, const char* name,
                       const char* value) {
  for (size_t i = 0; i < count; ++i) {
    if (!SameText(name, numbers[i].name)) continue;
    const uint64_t number = ParseNumber(name, value);
    if (number < numbers[i].min || number > numbers[i].max) Fail("out of range: ", name);
    *numbers[i].value = number;
    return true;
  }
  return false;
}

void ParseOptions(const struct StartInfo* info, const struct NumberOption* numbers, size_t count,
                  OtherOption other) {
  if (info->magic != 0x336ec578) Fail("no hvm_start_info", "");
  if (info->command_line == 0) return;
  const char* at = (const char*)(uintptr_t)info->command_line;
  char word[64];
  for (;;) {
    size_t length = 0;
    while (*at == ' ') ++at;
    if (*at == 0) return;
    while (*at != 0 && *at != ' ') {
      if (length == sizeof(word) - 1) Fail("option too long", "");
      word[length++] = *at++;
    }
    word[length] = 0;
    char* value = word;
    while (*value != 0 && *value != '=') ++value;
    if (*value == 0) Fail("option without a value: ", word);
    *value++ = 0;
    if (ParseOneOf(numbers, count, word, value)) continue;
    if (ParseOneOf(kCommon, sizeof(kCommon) / sizeof(kCommon[0]), word, value)) continue;
    if (other == NULL || !other(word, value)) Fail("unknown option: ", word);
  }
}
