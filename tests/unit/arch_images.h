// Kernel images made by code, for unit tests and as seeds of the fuzzers: a small PVH ELF of either
// class and a small bzImage, each a value that a test can bend before encoding it.
#ifndef ROMULUS_TESTS_UNIT_ARCH_IMAGES_H_
#define ROMULUS_TESTS_UNIT_ARCH_IMAGES_H_

#include <asm/bootparam.h>
#include <elf.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace romulus::arch::testing {

inline std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span<const char>(text));
}

struct ElfSegment {
  uint64_t address = 0;
  std::string bytes = {};
  uint64_t memory_bytes = 0;                // 0: as many as bytes
  std::optional<uint64_t> offset = {};      // overrides where the bytes really are
  std::optional<uint64_t> file_bytes = {};  // overrides how many there really are
};

struct ElfImage {
  bool is_64_bit = true;
  uint16_t machine = EM_X86_64;
  uint16_t type = ET_EXEC;
  uint64_t entry = 0x100000;
  size_t entry_bytes = 8;  // of the note's descriptor
  bool has_note = true;
  uint64_t note_align = 4;
  std::string note_before = {};  // raw notes in front of the entry's
  std::vector<ElfSegment> segments{{.address = 0x100000, .bytes = std::string(64, '\x90')}};
};

template <typename T>
void AppendRaw(std::string* out, const T& value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

inline std::string EncodeNote(const std::string& name, uint32_t type, const std::string& value,
                              uint64_t align) {
  std::string out;
  AppendRaw(&out, Elf64_Nhdr{static_cast<uint32_t>(name.size()),
                             static_cast<uint32_t>(value.size()), type});
  const auto pad = [&] { out.resize((out.size() + align - 1) / align * align); };
  out += name;
  pad();
  out += value;
  pad();
  return out;
}

template <typename Header, typename ProgramHeader>
std::string EncodeElfAs(const ElfImage& image) {
  std::string note = image.note_before;
  if (image.has_note) {
    std::string entry(image.entry_bytes, '\0');
    std::memcpy(entry.data(), &image.entry, std::min(entry.size(), sizeof(image.entry)));
    note += EncodeNote(std::string("Xen\0", 4), 18, entry, image.note_align);
  }
  Header header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = image.is_64_bit ? ELFCLASS64 : ELFCLASS32;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = image.type;
  header.e_machine = image.machine;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof(Header);
  header.e_ehsize = sizeof(Header);
  header.e_phentsize = sizeof(ProgramHeader);
  header.e_phnum = static_cast<uint16_t>(image.segments.size() + 1);
  std::string headers;
  std::string contents;
  size_t offset = sizeof(Header) + header.e_phnum * sizeof(ProgramHeader);
  const auto add = [&](uint32_t type, const ElfSegment& segment, uint64_t align) {
    using Word = decltype(ProgramHeader{}.p_paddr);
    ProgramHeader program{};
    program.p_type = type;
    program.p_offset = static_cast<Word>(segment.offset.value_or(offset + contents.size()));
    program.p_paddr = static_cast<Word>(segment.address);
    program.p_vaddr = program.p_paddr;
    program.p_filesz = static_cast<Word>(segment.file_bytes.value_or(segment.bytes.size()));
    program.p_memsz =
        static_cast<Word>(segment.memory_bytes != 0 ? segment.memory_bytes : segment.bytes.size());
    program.p_align = static_cast<Word>(align);
    AppendRaw(&headers, program);
    contents += segment.bytes;
  };
  for (const ElfSegment& segment : image.segments) add(PT_LOAD, segment, 0x1000);
  add(PT_NOTE, {.bytes = note}, image.note_align);
  std::string out;
  AppendRaw(&out, header);
  return out + headers + contents;
}

inline std::string EncodeElf(const ElfImage& image) {
  return image.is_64_bit ? EncodeElfAs<Elf64_Ehdr, Elf64_Phdr>(image)
                         : EncodeElfAs<Elf32_Ehdr, Elf32_Phdr>(image);
}

struct BzImage {
  setup_header header{};
  uint8_t header_end = 0x7f;  // the byte at 0x201: the header ends at 0x202 plus it
  std::string payload = std::string(4096, '\x90');

  BzImage() {
    header.setup_sects = 3;
    header.boot_flag = 0xaa55;
    header.header = 0x53726448;
    header.version = 0x020f;
    header.loadflags = LOADED_HIGH;
    header.xloadflags = XLF_KERNEL_64;
    header.initrd_addr_max = 0x7fffffff;
    header.kernel_alignment = 0x200000;
    header.relocatable_kernel = 1;
    header.cmdline_size = 2047;
    header.pref_address = 0x1000000;
    header.init_size = 0x100000;
    header.syssize = static_cast<uint32_t>(payload.size() / 16);
  }
};

inline std::string EncodeBzImage(const BzImage& image) {
  const size_t sectors = image.header.setup_sects == 0 ? 4 : image.header.setup_sects;
  std::string out((sectors + 1) * 512, '\0');
  std::memcpy(out.data() + 0x1f1, &image.header, sizeof(image.header));
  out[0x200] = '\xeb';
  out[0x201] = static_cast<char>(image.header_end);
  return out + image.payload;
}

}  // namespace romulus::arch::testing

#endif  // ROMULUS_TESTS_UNIT_ARCH_IMAGES_H_
