// Bus, power management, reset ports, CMOS and how they are put together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>

#include "devices/platform.h"
#include "unit/devices_fakes.h"

namespace romulus::devices {
namespace {

using testing::FakeConsole;
using testing::FakeEvents;
using testing::FakeIrq;
using testing::FakeWallClock;
using ::testing::HasSubstr;
using testing::Read8;
using testing::ReadAs;
using testing::Write8;
using testing::WriteAs;

// Remembers offsets and answers them.
class Recorder final : public IoHandler {
 public:
  void Read(uint64_t offset, std::span<std::byte> data) override {
    last_offset = offset;
    std::fill(data.begin(), data.end(), std::byte{0x42});
  }
  void Write(uint64_t offset, std::span<const std::byte> data) override {
    last_offset = offset;
    written += data.size();
  }
  uint64_t last_offset = UINT64_MAX;
  size_t written = 0;
};

class BusTest : public ::testing::Test {
 protected:
  uint8_t Read(uint64_t address) {
    std::byte byte{};
    bus_.Read(address, {&byte, 1});
    return static_cast<uint8_t>(byte);
  }
  Bus bus_{"pio"};
  Recorder a_, b_;
};

TEST_F(BusTest, DispatchesByRangeWithOffset) {
  ASSERT_TRUE(bus_.Map("b", 0x200, 0x10, &b_).ok());
  ASSERT_TRUE(bus_.Map("a", 0x100, 0x100, &a_).ok());  // touches b, does not overlap
  EXPECT_EQ(Read(0x1ff), 0x42);
  EXPECT_EQ(a_.last_offset, 0xffu);
  EXPECT_EQ(Read(0x200), 0x42);
  EXPECT_EQ(b_.last_offset, 0u);
  EXPECT_EQ(bus_.unmapped_reads(), 0u);
}

TEST_F(BusTest, UnmappedReadsOnesAndIsCounted) {
  ASSERT_TRUE(bus_.Map("a", 0x100, 4, &a_).ok());
  EXPECT_EQ(Read(0xff), 0xff);
  EXPECT_EQ(Read(0x104), 0xff);
  std::array<std::byte, 4> across{};
  bus_.Read(0x102, across);  // would run over the range's end
  EXPECT_EQ(across, (std::array<std::byte, 4>{std::byte{0xff}, std::byte{0xff}, std::byte{0xff},
                                              std::byte{0xff}}));
  bus_.Write(0x102, across);
  EXPECT_EQ(a_.written, 0u);
  EXPECT_EQ(bus_.unmapped_reads(), 3u);
  EXPECT_EQ(bus_.unmapped_writes(), 1u);
}

TEST_F(BusTest, OverlapEmptyAndWrappingRangesAreRefused) {
  ASSERT_TRUE(bus_.Map("first", 0x100, 0x10, &a_).ok());
  for (const auto& [start, size] : {std::pair<uint64_t, uint64_t>{0x10f, 1},
                                    {0xff, 2},
                                    {0, 0x1000},
                                    {0x104, 2},
                                    {0x100, 0x10}}) {
    const absl::Status status = bus_.Map("second", start, size, &b_);
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(status.message()), HasSubstr("second"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("first"));
  }
  EXPECT_EQ(bus_.Map("x", 0x500, 0, &b_).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bus_.Map("x", UINT64_MAX, 2, &b_).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(BusTest, TopOfTheAddressSpace) {
  ASSERT_TRUE(bus_.Map("top", UINT64_MAX, 1, &a_).ok());
  EXPECT_EQ(Read(UINT64_MAX), 0x42);
  std::array<std::byte, 8> wide{};
  bus_.Read(UINT64_MAX, wide);
  EXPECT_EQ(bus_.unmapped_reads(), 1u);
}

class PlatformTest : public ::testing::Test {
 protected:
  static constexpr PlatformPorts kPorts{.serial = 0x3f8,
                                        .cmos = 0x70,
                                        .keyboard_data = 0x60,
                                        .keyboard_command = 0x64,
                                        .pm = 0x600,
                                        .reset = 0xcf9};
  void SetUp() override { ASSERT_TRUE(platform_.MapPorts(bus_, kPorts).ok()); }

  template <typename T>
  void Out(uint64_t port, T value) {
    bus_.Write(port, std::as_bytes(std::span<const T, 1>(&value, 1)));
  }
  template <typename T>
  T In(uint64_t port) {
    T value{};
    bus_.Read(port, std::as_writable_bytes(std::span<T, 1>(&value, 1)));
    return value;
  }
  uint8_t Clock(uint8_t index) {
    Out<uint8_t>(0x70, index);
    return In<uint8_t>(0x71);
  }
  void SetClock(uint8_t index, uint8_t value) {
    Out<uint8_t>(0x70, index);
    Out<uint8_t>(0x71, value);
  }

  FakeConsole console_;
  FakeEvents events_;
  FakeWallClock clock_;
  FakeIrq serial_irq_, sci_;
  Platform platform_{{console_, events_, clock_, serial_irq_, sci_}};
  Bus bus_{"pio"};
};

TEST_F(PlatformTest, LedgerAndLinuxPowerOff) {
  Out<uint16_t>(0x604, 0x0001);
  EXPECT_EQ(events_.power_offs, 0);
  Out<uint16_t>(0x604, 0x2000);
  EXPECT_EQ(events_.power_offs, 1);
  // ACPICA writes SLP_TYP first, then SLP_TYP with SLP_EN, SCI_EN kept.
  Out<uint16_t>(0x604, 0x0001);
  EXPECT_EQ(events_.power_offs, 1);
  Out<uint16_t>(0x604, 0x2001);
  EXPECT_EQ(events_.power_offs, 2);
  Out<uint8_t>(0x605, 0x20);
  EXPECT_EQ(events_.power_offs, 3);
  EXPECT_EQ(In<uint16_t>(0x604), 0x0001) << "SLP_EN reads as zero, SCI_EN is always on";
  EXPECT_EQ(events_.resets, 0);
}

TEST_F(PlatformTest, KeyboardControllerAndResetRegisterReset) {
  EXPECT_EQ(In<uint8_t>(0x64) & 0x03, 0) << "nothing to read, room to write";
  EXPECT_EQ(In<uint8_t>(0x60), 0);
  Out<uint8_t>(0x64, 0xaa);
  EXPECT_EQ(events_.resets, 0);
  Out<uint8_t>(0x64, 0xfe);
  EXPECT_EQ(events_.resets, 1);
  Out<uint8_t>(0xcf9, 0x02);
  EXPECT_EQ(events_.resets, 1);
  Out<uint8_t>(0xcf9, 0x06);
  EXPECT_EQ(events_.resets, 2);
  EXPECT_EQ(events_.power_offs, 0);
}

TEST_F(PlatformTest, PciProbeFindsNothing) {
  Out<uint8_t>(0xcfb, 0x01);
  Out<uint32_t>(0xcf8, 0x80000000);
  EXPECT_EQ(In<uint32_t>(0xcf8), 0xffffffffu);
  EXPECT_EQ(events_.resets, 0) << "a wide write over port 0xcf9 is no reset";
}

TEST_F(PlatformTest, PowerButtonRaisesTheSciUntilAcknowledged) {
  platform_.pm().PressPowerButton();
  EXPECT_FALSE(sci_.high) << "not enabled";
  EXPECT_EQ(In<uint16_t>(0x600), 0x0100);
  Out<uint16_t>(0x602, 0x0120);
  EXPECT_EQ(In<uint16_t>(0x602), 0x0120) << "ACPICA reads an enable bit back";
  EXPECT_TRUE(sci_.high);
  Out<uint16_t>(0x600, 0x0100);
  EXPECT_FALSE(sci_.high);
  EXPECT_EQ(In<uint16_t>(0x600), 0);
}

TEST_F(PlatformTest, PowerManagementRestoresAndRefusesHostileState) {
  Out<uint16_t>(0x602, 0x0100);
  platform_.pm().PressPowerButton();
  state::MachineState saved;
  ASSERT_TRUE(platform_.pm().Save(saved).ok());
  FakeEvents events;
  FakeIrq sci;
  PowerManagement other(events, sci);
  state::MachineState taken = saved;
  ASSERT_TRUE(other.Restore(taken).ok());
  EXPECT_TRUE(sci.high);
  EXPECT_EQ(ReadAs<uint16_t>(other, 0), 0x0100);
  for (const auto& bad : {std::array<uint16_t, 4>{0xffff, 0, 1, 0},
                          {0, 0xffff, 1, 0},
                          {0, 0, 0xffff, 0},
                          {0, 0, 0, 0},
                          {0, 0, 1, 1}}) {
    state::MachineState in;
    in.PutStruct("pm", 0, 1, bad);
    EXPECT_EQ(other.Restore(in).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(ReadAs<uint16_t>(other, 0), 0x0100);
}

// 2026-11-20 19:31:30 UTC, a Friday.
constexpr int64_t kFridayNs = int64_t{1'795'203'090} * 1'000'000'000;

TEST_F(PlatformTest, ClockTellsTheHostsTime) {
  clock_.now_ns = kFridayNs;
  EXPECT_EQ(Clock(0x00), 0x30);
  EXPECT_EQ(Clock(0x02), 0x31);
  EXPECT_EQ(Clock(0x04), 0x19);
  EXPECT_EQ(Clock(0x06), 0x06);
  EXPECT_EQ(Clock(0x07), 0x20);
  EXPECT_EQ(Clock(0x08), 0x11);
  EXPECT_EQ(Clock(0x09), 0x26);
  EXPECT_EQ(Clock(0x32), 0x20);
  EXPECT_EQ(Clock(0x0d), 0x80) << "battery good";
  EXPECT_EQ(Clock(0x0c), 0x00);
  EXPECT_EQ(In<uint8_t>(0x70), 0xff) << "the index port is write-only";
}

TEST_F(PlatformTest, ClockFormats) {
  clock_.now_ns = kFridayNs;
  SetClock(0x0b, 0x06);  // binary, 24 hours
  EXPECT_EQ(Clock(0x04), 19);
  EXPECT_EQ(Clock(0x32), 20);
  SetClock(0x0b, 0x00);  // BCD, 12 hours
  EXPECT_EQ(Clock(0x04), 0x87);
  clock_.now_ns += int64_t{5} * 3600 * 1'000'000'000;  // half past midnight
  EXPECT_EQ(Clock(0x04), 0x12);
}

TEST_F(PlatformTest, UpdateInProgressJustBeforeTheSecond) {
  clock_.now_ns = kFridayNs;
  EXPECT_EQ(Clock(0x0a) & 0x80, 0);
  clock_.now_ns = kFridayNs + 999'900'000;
  EXPECT_EQ(Clock(0x0a) & 0x80, 0x80);
}

TEST_F(PlatformTest, GuestSetsItsClock) {
  clock_.now_ns = kFridayNs;
  SetClock(0x0b, 0x82);  // SET
  SetClock(0x09, 0x99);
  SetClock(0x08, 0x12);
  SetClock(0x07, 0x31);
  SetClock(0x04, 0x23);
  SetClock(0x02, 0x59);
  SetClock(0x00, 0x58);
  SetClock(0x32, 0x19);
  clock_.now_ns += 10'000'000'000;
  EXPECT_EQ(Clock(0x00), 0x58) << "stands still";
  SetClock(0x0b, 0x02);
  clock_.now_ns += 2'000'000'000;
  EXPECT_EQ(Clock(0x32), 0x20);
  EXPECT_EQ(Clock(0x09), 0x00);
  EXPECT_EQ(Clock(0x07), 0x01);
  EXPECT_EQ(Clock(0x00), 0x00);
}

TEST_F(PlatformTest, NonsenseTimeIsSomeTime) {
  clock_.now_ns = kFridayNs;
  SetClock(0x0b, 0x86);
  for (const uint8_t index : {0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32}) SetClock(index, 0xff);
  SetClock(0x0b, 0x06);
  EXPECT_LE(Clock(0x02), 59);
  SetClock(0x0b, 0x82);
  for (const uint8_t index : {0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32}) SetClock(index, 0x00);
  SetClock(0x0b, 0x02);
  EXPECT_EQ(Clock(0x09), 0x70) << "1970 at the earliest";
}

// P2 and the guest's clock: on a host whose clock is behind, time goes on from where it was.
TEST_F(PlatformTest, ClockNeitherGoesBackNorStandsStillAtAPromotion) {
  clock_.now_ns = kFridayNs;
  SetClock(0x40, 0x5a);
  state::MachineState saved;
  ASSERT_TRUE(platform_.cmos().Save(saved).ok());
  FakeWallClock behind;
  behind.now_ns = kFridayNs - int64_t{3600} * 1'000'000'000;
  Cmos other(behind);
  ASSERT_TRUE(other.Restore(saved).ok());
  const auto read = [&](uint8_t index) {
    Write8(other, 0, index);
    return Read8(other, 1);
  };
  EXPECT_EQ(read(0x04), 0x19);
  EXPECT_EQ(read(0x00), 0x30);
  EXPECT_EQ(read(0x40), 0x5a);
  behind.now_ns += 1'000'000'000;
  EXPECT_EQ(read(0x00), 0x31);
}

TEST_F(PlatformTest, HostileClockStateIsRefusedOrHarmless) {
  state::MachineState saved;
  ASSERT_TRUE(platform_.cmos().Save(saved).ok());
  const std::string good = saved.sections().front().payload;
  const auto restore = [&](std::string payload) {
    state::MachineState in;
    in.Put("cmos", 0, 1, std::move(payload));
    return platform_.cmos().Restore(in);
  };
  const auto bent = [&](size_t at, uint8_t value) {
    std::string payload = good;
    payload[at] = static_cast<char>(value);
    return payload;
  };
  EXPECT_TRUE(restore(good).ok());
  EXPECT_FALSE(restore(bent(0, 0x80)).ok()) << "index";
  EXPECT_FALSE(restore(bent(1, 0x80)).ok()) << "control A";
  EXPECT_FALSE(restore(bent(3, 1)).ok()) << "reserved";
  EXPECT_FALSE(restore(bent(23, 0x80)).ok()) << "time before 1970";
  EXPECT_FALSE(restore(good.substr(1)).ok()) << "short";
  std::string extreme = good;
  extreme.replace(8, 8, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8));  // offset
  clock_.now_ns = INT64_MAX;
  EXPECT_TRUE(restore(extreme).ok());
  EXPECT_LE(Clock(0x00), 0x59);
  extreme.replace(8, 8, std::string("\x00\x00\x00\x00\x00\x00\x00\x80", 8));
  clock_.now_ns = INT64_MIN;
  EXPECT_TRUE(restore(extreme).ok());
  EXPECT_LE(Clock(0x00), 0x59);
}

TEST_F(PlatformTest, AllStateIsTakenByTheirOwners) {
  state::MachineState saved;
  for (Device* device : platform_.devices()) ASSERT_TRUE(device->Save(saved).ok());
  EXPECT_EQ(saved.sections().size(), 3u);
  for (Device* device : platform_.devices()) ASSERT_TRUE(device->Restore(saved).ok());
  EXPECT_TRUE(saved.ExpectEmpty().ok());
}

TEST_F(PlatformTest, PortsThatCollideAreRefused) {
  Bus bus("pio");
  PlatformPorts ports = kPorts;
  ports.pm = 0x3f0 + 4;
  EXPECT_EQ(platform_.MapPorts(bus, ports).code(), absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace romulus::devices
