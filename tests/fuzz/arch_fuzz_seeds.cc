// Writes seed inputs: arch_fuzz_seeds <fuzzer> <folder>.
#include <cstdio>
#include <fstream>
#include <string>

#include "base/bytes.h"
#include "devices/platform.h"
#include "unit/arch_images.h"
#include "unit/devices_fakes.h"

namespace romulus {
namespace {

void Write(const std::string& folder, const std::string& name, const std::string& content) {
  std::ofstream(folder + "/seed_" + name, std::ios::binary) << content;
}

void LoaderSeeds(const std::string& folder) {
  using arch::testing::BzImage;
  using arch::testing::ElfImage;
  arch::testing::ElfImage elf;
  Write(folder, "elf64", "\x03" + EncodeElf(elf));
  elf.segments.push_back({.address = 0x200000, .bytes = "x", .memory_bytes = 0x1000});
  elf.note_align = 8;
  Write(folder, "elf64_two", "\x02" + EncodeElf(elf));
  elf.is_64_bit = false;
  elf.machine = EM_386;
  elf.entry_bytes = 4;
  Write(folder, "elf32", "\x01" + EncodeElf(elf));
  BzImage linux_image;
  Write(folder, "bzimage", "\x03" + EncodeBzImage(linux_image));
  linux_image.header.pref_address = 0x10000000;
  Write(folder, "bzimage_moved", "\x02" + EncodeBzImage(linux_image));
}

void DeviceSeeds(const std::string& folder) {
  using namespace devices;  // NOLINT
  devices::testing::FakeConsole console;
  devices::testing::FakeEvents events;
  devices::testing::FakeWallClock clock;
  devices::testing::FakeIrq irq, sci;
  Platform platform({console, events, clock, irq, sci});
  const std::string received = "input";
  platform.serial().Receive(arch::testing::AsBytes(received));
  platform.pm().PressPowerButton();
  state::MachineState state;
  for (Device* device : platform.devices()) (void)device->Save(state);
  std::string seed;
  base::ByteWriter writer(&seed);
  writer.Write(uint64_t{1'795'203'090'000'000'000});
  for (const state::Section& section : state.sections()) {
    writer.Write(static_cast<uint16_t>(section.payload.size()));
    seed += section.payload;
  }
  for (uint8_t port = 0; port < 250; port += 3) {
    for (const uint8_t shape : {0, 1, 3, 9}) {
      writer.Write(port);
      writer.Write(shape);
      writer.Write(uint16_t{0x8212});
    }
  }
  Write(folder, "devices", seed);
}

}  // namespace
}  // namespace romulus

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s <fuzzer> <folder>\n", argv[0]);
    return 2;
  }
  if (std::string(argv[1]) == "arch_loader_fuzzer") {
    romulus::LoaderSeeds(argv[2]);
  } else {
    romulus::DeviceSeeds(argv[2]);
  }
  return 0;
}
