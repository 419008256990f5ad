// Writes seed inputs: virtio_fuzz_seeds <fuzzer> <folder>. Each brings a device up and uses it.
#include <cstdio>
#include <fstream>
#include <string>

#include "base/bytes.h"
#include "fuzz/virtio_script.h"

namespace romulus::devices::testing {
namespace {

class Script {
 public:
  explicit Script(uint8_t kind) { base::ByteWriter(&bytes_).Write(kind); }
  Script& Add(VirtioStep step, uint8_t low = 0, uint16_t place = 0, uint32_t value = 0) {
    base::ByteWriter(&bytes_).Write(VirtioStepBytes{static_cast<uint8_t>(step), low, place, value});
    return *this;
  }
  // Entry `index` of queue `low`: flags as in the specification; `size` in units of 4 bytes.
  Script& Descriptor(uint8_t low, uint16_t index, uint16_t flags, uint16_t next, uint32_t address,
                     uint32_t size) {
    return Add(VirtioStep::kDescriptor, low, static_cast<uint16_t>(index | flags << 4 | next << 8),
               address | size << 22);
  }
  void Write(const std::string& folder, const std::string& name) const {
    std::ofstream(folder + "/seed_" + name, std::ios::binary) << bytes_;
  }

 private:
  std::string bytes_;
};

void Seeds(const std::string& folder) {
  using Step = VirtioStep;
  for (const uint8_t low : {0, 1}) {
    const std::string suffix = low != 0 ? "_event" : "";
    Script(0)
        .Add(Step::kBringUp, low, 0, 4)
        .Descriptor(0, 0, 2, 0, 0x20000, 8)
        .Descriptor(0, 1, 1 | 2, 2, 0x21000, 8)
        .Descriptor(0, 2, 2, 0, 0x22000, 8)
        .Add(Step::kOffer, 0, 0, 0)
        .Add(Step::kOffer, 0, 0, 1)
        .Add(Step::kNotify)
        .Add(Step::kPause, 1, 16)
        .Write(folder, "rng" + suffix);
    Script(1)
        .Add(Step::kBringUp, low, 0, 4)
        .Descriptor(0, 0, 2, 0, 0x20000, 8)
        .Descriptor(1, 0, 0, 0, 0x21000, 1000)
        .Add(Step::kOffer, 0, 0, 0)
        .Add(Step::kOffer, 1, 0, 0)
        .Add(Step::kNotify, 1)
        .Add(Step::kPause, 1, 30)
        .Add(Step::kOutside, 5, 0, 4095)
        .Write(folder, "console" + suffix);
    // A header (zero) and frame in two buffers; two receive buffers for frames that need both.
    Script(3)
        .Add(Step::kBringUp, low, 0, 4)
        .Descriptor(1, 0, 1, 1, 0x20000, 3)
        .Descriptor(1, 1, 0, 0, 0x21000, 100)
        .Add(Step::kOffer, 1, 0, 0)
        .Add(Step::kNotify, 1)
        .Descriptor(0, 0, 2, 0, 0x22000, 200)
        .Descriptor(0, 1, 2, 0, 0x23000, 200)
        .Add(Step::kOffer, 0, 0, 0)
        .Add(Step::kOutside, 1 << 3 | 4, 1200)
        .Add(Step::kOffer, 0, 0, 1)
        .Add(Step::kNotify, 0)
        .Add(Step::kPause, 1, 60)
        .Add(Step::kOutside, 2 << 3, 1400, 1 | 1 << 8 | 1000u << 16)
        // Checksum and segments asked for: flags and type; sizes; start and offset.
        .Add(Step::kPutWord, 0, 0x20000 / 4, 0x0101)
        .Add(Step::kPutWord, 0, 0x20004 / 4, 100 | 34u << 16)
        .Add(Step::kPutWord, 0, 0x20008 / 4, 16)
        .Add(Step::kOffer, 1, 0, 0)
        .Add(Step::kNotify, 1)
        .Add(Step::kOutside, 3)
        .Write(folder, "net" + suffix);
    Script block(2);
    block.Add(Step::kBringUp, low, 0, 5);
    for (const uint32_t type : {0, 1, 4, 8, 11, 13}) {
      // A header at 0x20000 + 16 * type, 512 bytes or one range at 0x30000, a status at 0x31000.
      block.Add(Step::kPutWord, 0, static_cast<uint16_t>((0x20000 + 16 * type) / 4), type)
          .Add(Step::kPutWord, 0, 0x30008 / 4, 1)
          .Descriptor(0, 0, 1, 1, 0x20000 + 16 * type, 4)
          .Descriptor(0, 1, type == 0 || type == 8 ? 3 : 1, 2, 0x30000, type > 8 ? 4 : 128)
          .Descriptor(0, 2, 2, 0, 0x31000, 1)
          .Add(Step::kOffer, 0, 0, 0)
          .Add(Step::kNotify)
          .Add(Step::kPause, 1, static_cast<uint16_t>(type * 8))
          .Add(Step::kOutside, 1);
    }
    block.Write(folder, "block" + suffix);
  }
  // An indirect table.
  Script(2)
      .Add(Step::kBringUp, 1, 0, 3)
      .Descriptor(0, 4, 1, 5, 0x20000, 4)
      .Descriptor(0, 5, 2, 0, 0x30000, 1)
      .Add(Step::kPutAddress, 0, 0x20000 / 4, 4)
      .Descriptor(0, 0, 4, 0, 0x40, 8)
      .Add(Step::kOffer, 0, 0, 0)
      .Add(Step::kNotify)
      .Add(Step::kRegister, 0, 0, 0)
      .Write(folder, "indirect");
}

}  // namespace
}  // namespace romulus::devices::testing

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s <fuzzer> <folder>\n", argv[0]);
    return 2;
  }
  romulus::devices::testing::Seeds(argv[2]);
  return 0;
}
