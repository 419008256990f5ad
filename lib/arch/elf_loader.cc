// PVH ELF images. ELF: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html ; the note
// that names the entry point: https://xenbits.xen.org/docs/unstable/misc/pvh.html
#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "arch/kernel_loader.h"
#include "base/bytes.h"
#include "base/status.h"

namespace romulus::arch {
namespace {

constexpr uint32_t kXenNotePhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr uint64_t kMaxNoteBytes = 1u << 20;
constexpr size_t kMaxProgramHeaders = 128;

// A program header of either class.
struct Segment {
  uint32_t type = 0;
  uint64_t offset = 0;
  uint64_t address = 0;  // physical
  uint64_t file_bytes = 0;
  uint64_t memory_bytes = 0;
  uint64_t align = 0;
};

template <typename Header, typename ProgramHeader>
absl::StatusOr<std::vector<Segment>> ReadSegments(const Image& kernel) {
  ROMULUS_ASSIGN_OR_RETURN(const Header header, kernel.ReadObjectAt<Header>(0));
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return kernel.Bad(absl::StrCat("ELF type ", header.e_type, " is not an executable"));
  }
  if (header.e_machine != EM_X86_64 && header.e_machine != EM_386) {
    return kernel.Bad(absl::StrCat("ELF machine ", header.e_machine, " is not x86"));
  }
  if (header.e_phentsize != sizeof(ProgramHeader)) {
    return kernel.Bad(absl::StrCat("ELF program headers of ", header.e_phentsize, " bytes, not ",
                                   sizeof(ProgramHeader)));
  }
  if (header.e_phnum == 0 || header.e_phnum > kMaxProgramHeaders) {
    return kernel.Bad(absl::StrCat(header.e_phnum, " ELF program headers; 1 to ",
                                   kMaxProgramHeaders, " are allowed"));
  }
  std::vector<Segment> segments;
  for (size_t i = 0; i < header.e_phnum; ++i) {
    if (header.e_phoff > kernel.size_bytes())
      return kernel.Bad("ELF program headers beyond the file");
    ROMULUS_ASSIGN_OR_RETURN(
        const ProgramHeader raw,
        kernel.ReadObjectAt<ProgramHeader>(header.e_phoff + i * sizeof(ProgramHeader)));
    segments.push_back({.type = raw.p_type,
                        .offset = raw.p_offset,
                        .address = raw.p_paddr,
                        .file_bytes = raw.p_filesz,
                        .memory_bytes = raw.p_memsz,
                        .align = raw.p_align});
  }
  return segments;
}

// The PHYS32 entry point, if this note segment has one.
absl::StatusOr<std::optional<uint64_t>> FindEntry(const Image& kernel, const Segment& segment) {
  if (segment.file_bytes > kMaxNoteBytes) {
    return kernel.Bad(absl::StrCat("ELF note segment of ", segment.file_bytes, " bytes; at most ",
                                   kMaxNoteBytes, " are allowed"));
  }
  std::vector<std::byte> notes(segment.file_bytes);
  ROMULUS_RETURN_IF_ERROR(kernel.ReadAt(segment.offset, notes));
  // Names and descriptors are padded to 4 bytes, or to 8 in segments that say so.
  const uint64_t align = segment.align == 8 ? 8 : 4;
  const auto padding = [&](const base::ByteReader& reader) {
    return (align - (notes.size() - reader.remaining()) % align) % align;
  };
  base::ByteReader reader(notes);
  while (reader.remaining() >= sizeof(Elf64_Nhdr)) {
    const auto header = reader.Read<Elf64_Nhdr>();
    const std::span<const std::byte> name = reader.Take(header.n_namesz);
    reader.Take(std::min<uint64_t>(padding(reader), reader.remaining()));
    const std::span<const std::byte> value = reader.Take(header.n_descsz);
    if (!reader.ok()) return kernel.Bad("ELF note runs beyond its segment");
    reader.Take(std::min<uint64_t>(padding(reader), reader.remaining()));
    if (header.n_type != kXenNotePhys32Entry || name.size() != 4 ||
        std::memcmp(name.data(), "Xen", 4) != 0) {
      continue;
    }
    if (value.size() != 4 && value.size() != 8) {
      return kernel.Bad(absl::StrCat("PVH entry note of ", value.size(), " bytes, not 4 or 8"));
    }
    uint64_t entry = 0;
    std::memcpy(&entry, value.data(), value.size());
    return entry;
  }
  return std::nullopt;
}

absl::Status CheckSegment(const memory::GuestMemory& memory, const Image& kernel, size_t index,
                          const Segment& segment) {
  const std::string context = absl::StrCat("ELF segment ", index);
  if (segment.file_bytes > segment.memory_bytes) {
    return kernel.Bad(absl::StrCat(context, " has ", segment.file_bytes, " bytes in the file but ",
                                   segment.memory_bytes, " in memory"));
  }
  if (segment.offset > kernel.size_bytes() ||
      segment.file_bytes > kernel.size_bytes() - segment.offset) {
    return kernel.Bad(absl::StrCat(context, " lies beyond the end of the file (",
                                   segment.file_bytes, " bytes at offset ", segment.offset,
                                   ", the file has ", kernel.size_bytes(), "): truncated?"));
  }
  return base::Annotate(CheckTarget(memory, kernel, {segment.address, segment.memory_bytes}),
                        context);
}

}  // namespace

bool IsElf(const Image& kernel) {
  absl::StatusOr<std::array<char, SELFMAG>> magic =
      kernel.ReadObjectAt<std::array<char, SELFMAG>>(0);
  return magic.ok() && std::memcmp(magic->data(), ELFMAG, SELFMAG) == 0;
}

absl::StatusOr<LoadedKernel> LoadPvhElf(memory::GuestMemory& memory, const Image& kernel) {
  using Ident = std::array<uint8_t, EI_NIDENT>;
  ROMULUS_ASSIGN_OR_RETURN(const Ident ident, kernel.ReadObjectAt<Ident>(0));
  if (ident[EI_DATA] != ELFDATA2LSB) return kernel.Bad("ELF is not little-endian");
  absl::StatusOr<std::vector<Segment>> segments = kernel.Bad("ELF is neither 32 nor 64 bit");
  if (ident[EI_CLASS] == ELFCLASS64) segments = ReadSegments<Elf64_Ehdr, Elf64_Phdr>(kernel);
  if (ident[EI_CLASS] == ELFCLASS32) segments = ReadSegments<Elf32_Ehdr, Elf32_Phdr>(kernel);
  if (!segments.ok()) return segments.status();

  std::optional<uint64_t> entry;
  for (const Segment& segment : *segments) {
    if (segment.type != PT_NOTE || entry.has_value()) continue;
    ROMULUS_ASSIGN_OR_RETURN(entry, FindEntry(kernel, segment));
  }
  if (!entry.has_value()) {
    return kernel.Bad("ELF without a PVH entry point (Xen note 18); is it built with CONFIG_PVH?");
  }

  LoadedKernel loaded;
  loaded.entry = *entry;
  std::vector<AddressRange> ranges;
  bool entry_loaded = false;
  for (size_t i = 0; i < segments->size(); ++i) {
    const Segment& segment = (*segments)[i];
    if (segment.type != PT_LOAD || segment.memory_bytes == 0) continue;
    ROMULUS_RETURN_IF_ERROR(CheckSegment(memory, kernel, i, segment));
    const AddressRange range{segment.address, segment.memory_bytes};
    for (const AddressRange& other : ranges) {
      if (range.Overlaps(other)) {
        return kernel.Bad(absl::StrFormat("ELF segment %d overlaps another at 0x%x", i,
                                          std::max(range.start, other.start)));
      }
    }
    ranges.push_back(range);
    entry_loaded |= *entry >= segment.address && *entry - segment.address < segment.file_bytes;
  }
  if (!entry_loaded) {
    return kernel.Bad(
        absl::StrFormat("PVH entry point 0x%x lies outside the loaded segments", *entry));
  }
  if (*entry > std::numeric_limits<uint32_t>::max()) {
    return kernel.Bad(absl::StrFormat("PVH entry point 0x%x lies above 4 GiB", *entry));
  }

  // All checked: only now is memory written.
  uint64_t end = 0;
  loaded.range.start = std::numeric_limits<uint64_t>::max();
  for (const Segment& segment : *segments) {
    if (segment.type != PT_LOAD || segment.memory_bytes == 0) continue;
    ROMULUS_RETURN_IF_ERROR(
        LoadBytes(memory, kernel, segment.offset, {segment.address, segment.file_bytes}));
    loaded.range.start = std::min(loaded.range.start, segment.address);
    end = std::max(end, segment.address + segment.memory_bytes);
  }
  loaded.range.size_bytes = end - loaded.range.start;
  loaded.initrd_end_limit = memory::kHoleStart;  // start info wants everything below 4 GiB
  loaded.command_line_max_bytes = kCommandLine.size_bytes - 1;
  return loaded;
}

}  // namespace romulus::arch
