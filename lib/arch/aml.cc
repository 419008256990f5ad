#include "arch/aml.h"

#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/check.h"

namespace romulus::arch::aml {
namespace {

constexpr uint8_t kZeroOp = 0x00;
constexpr uint8_t kOneOp = 0x01;
constexpr uint8_t kNameOp = 0x08;
constexpr uint8_t kBytePrefix = 0x0a;
constexpr uint8_t kWordPrefix = 0x0b;
constexpr uint8_t kDwordPrefix = 0x0c;
constexpr uint8_t kStringPrefix = 0x0d;
constexpr uint8_t kQwordPrefix = 0x0e;
constexpr uint8_t kScopeOp = 0x10;
constexpr uint8_t kBufferOp = 0x11;
constexpr uint8_t kPackageOp = 0x12;
constexpr uint8_t kExtendedPrefix = 0x5b;
constexpr uint8_t kDeviceOp = 0x82;

// Little-endian values one after the other, each in its own size.
template <typename... Values>
std::string Bytes(Values... values) {
  std::string out;
  base::ByteWriter writer(&out);
  (writer.Write(values), ...);
  return out;
}

uint8_t HexDigit(char c) {
  ROMULUS_CHECK(absl::ascii_isxdigit(static_cast<unsigned char>(c)));
  return static_cast<uint8_t>(c <= '9' ? c - '0' : absl::ascii_toupper(c) - 'A' + 10);
}

}  // namespace

std::string PackageLength(size_t content_bytes) {
  // The length counts its own bytes. One byte holds 6 bits; else the first holds 4 and the number
  // of bytes that follow, each of which holds 8.
  if (content_bytes + 1 < 0x40) return Bytes(static_cast<uint8_t>(content_bytes + 1));
  for (size_t extra = 1; extra <= 3; ++extra) {
    const size_t total = content_bytes + 1 + extra;
    if (total >= size_t{1} << (4 + 8 * extra)) continue;
    std::string out = Bytes(static_cast<uint8_t>(extra << 6 | (total & 0xf)));
    for (size_t i = 0; i < extra; ++i) {
      out.push_back(static_cast<char>((total >> (4 + 8 * i)) & 0xff));
    }
    return out;
  }
  ROMULUS_CHECK(false && "AML block beyond 256 MiB");
}

Term NameString(absl::string_view name) {
  Term out;
  if (!name.empty() && name.front() == '\\') {
    out.push_back('\\');
    name.remove_prefix(1);
  }
  ROMULUS_CHECK(!name.empty() && name.size() <= 4);
  ROMULUS_CHECK(!absl::ascii_isdigit(static_cast<unsigned char>(name.front())));
  for (const char c : name) {
    ROMULUS_CHECK(absl::ascii_isupper(static_cast<unsigned char>(c)) ||
                  absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '_');
  }
  absl::StrAppend(&out, name, absl::string_view("____", 4 - name.size()));
  return out;
}

Term Integer(uint64_t value) {
  if (value == 0) return Bytes(kZeroOp);
  if (value == 1) return Bytes(kOneOp);
  if (value <= 0xff) return Bytes(kBytePrefix, static_cast<uint8_t>(value));
  if (value <= 0xffff) return Bytes(kWordPrefix, static_cast<uint16_t>(value));
  if (value <= 0xffffffff) return Bytes(kDwordPrefix, static_cast<uint32_t>(value));
  return Bytes(kQwordPrefix, value);
}

Term String(absl::string_view text) {
  for (const char c : text) ROMULUS_CHECK(c > 0);
  Term out = Bytes(kStringPrefix);
  absl::StrAppend(&out, text);
  out.push_back('\0');
  return out;
}

Term EisaId(absl::string_view id) {
  ROMULUS_CHECK(id.size() == 7);
  uint16_t letters = 0;
  for (int i = 0; i < 3; ++i) {
    ROMULUS_CHECK(absl::ascii_isupper(static_cast<unsigned char>(id[i])));
    letters = static_cast<uint16_t>(letters << 5 | (id[i] - '@'));
  }
  // Big-endian halves inside a little-endian dword.
  return Bytes(kDwordPrefix, static_cast<uint8_t>(letters >> 8),
               static_cast<uint8_t>(letters & 0xff),
               static_cast<uint8_t>(HexDigit(id[3]) << 4 | HexDigit(id[4])),
               static_cast<uint8_t>(HexDigit(id[5]) << 4 | HexDigit(id[6])));
}

Term Package(std::initializer_list<Term> elements) {
  ROMULUS_CHECK(elements.size() <= 0xff);
  std::string content = Bytes(static_cast<uint8_t>(elements.size()));
  for (const Term& element : elements) content += element;
  return Bytes(kPackageOp) + PackageLength(content.size()) + content;
}

Term Name(absl::string_view name, const Term& value) {
  return Bytes(kNameOp) + NameString(name) + value;
}

Term Scope(absl::string_view name, const Term& content) {
  const std::string body = NameString(name) + content;
  return Bytes(kScopeOp) + PackageLength(body.size()) + body;
}

Term Device(absl::string_view name, const Term& content) {
  const std::string body = NameString(name) + content;
  return Bytes(kExtendedPrefix, kDeviceOp) + PackageLength(body.size()) + body;
}

Term IoPorts(uint16_t first, uint8_t count) {
  constexpr uint8_t kDecode16 = 1;
  constexpr uint8_t kAlignment = 1;
  return Bytes(uint8_t{0x47}, kDecode16, first, first, kAlignment, count);
}

Term IsaIrq(uint8_t irq) {
  ROMULUS_CHECK(irq < 16);
  return Bytes(uint8_t{0x22}, static_cast<uint16_t>(1u << irq));
}

Term Memory32(uint32_t start, uint32_t size_bytes) {
  constexpr uint8_t kReadWrite = 1;
  return Bytes(uint8_t{0x86}, uint16_t{9}, kReadWrite, start, size_bytes);
}

Term LevelInterrupt(uint32_t gsi) {
  constexpr uint8_t kConsumerLevelHighExclusive = 0x01;
  constexpr uint8_t kCount = 1;
  return Bytes(uint8_t{0x89}, uint16_t{6}, kConsumerLevelHighExclusive, kCount, gsi);
}

Term ResourceTemplate(std::initializer_list<Term> descriptors) {
  std::string bytes;
  for (const Term& descriptor : descriptors) bytes += descriptor;
  bytes += Bytes(uint8_t{0x79}, uint8_t{0});  // end tag; a checksum of 0 means "not checked"
  const std::string content = Integer(bytes.size()) + bytes;
  return Bytes(kBufferOp) + PackageLength(content.size()) + content;
}

}  // namespace romulus::arch::aml
