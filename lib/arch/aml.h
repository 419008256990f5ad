// Writes AML, the byte code of ACPI's definition blocks: just the terms that a table without
// methods needs. A block's length stands before its content, so terms are values, built from the
// inside out. Pure functions; any thread. Encoding: ACPI 6.4, 20.2.
#ifndef ROMULUS_ARCH_AML_H_
#define ROMULUS_ARCH_AML_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"

namespace romulus::arch::aml {

// Encoded bytes of one or more terms.
using Term = std::string;

// One name segment, filled up with '_' to four characters, or that with a leading '\'. Broken
// invariant unless it is 1 to 4 characters of A-Z, 0-9 and '_', the first no digit.
Term NameString(absl::string_view name);

Term Integer(uint64_t value);         // the shortest form
Term String(absl::string_view text);  // ASCII without zeros
// A compressed _HID such as "PNP0501": three letters, four hexadecimal digits (ACPI 6.4, 19.6.37).
Term EisaId(absl::string_view id);
Term Package(std::initializer_list<Term> elements);

Term Name(absl::string_view name, const Term& value);
Term Scope(absl::string_view name, const Term& content);
Term Device(absl::string_view name, const Term& content);

// Resource descriptors (ACPI 6.4, 6.4) and the buffer around them, end tag included.
Term IoPorts(uint16_t first, uint8_t count);
Term IsaIrq(uint8_t irq);  // edge triggered, active high
Term Memory32(uint32_t start, uint32_t size_bytes);
Term LevelInterrupt(uint32_t gsi);  // level triggered, active high, not shared
Term ResourceTemplate(std::initializer_list<Term> descriptors);

// PkgLength of a block whose content (without the length itself) has `content_bytes` bytes.
std::string PackageLength(size_t content_bytes);

}  // namespace romulus::arch::aml

#endif  // ROMULUS_ARCH_AML_H_
