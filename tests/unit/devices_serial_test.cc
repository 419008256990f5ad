#include <gtest/gtest.h>

#include <string>

#include "devices/serial.h"
#include "unit/devices_fakes.h"

namespace romulus::devices {
namespace {

using testing::FakeConsole;
using testing::FakeIrq;
using testing::Read8;
using testing::ReadAs;
using testing::Write8;
using testing::WriteAs;

constexpr uint64_t kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6,
                   kScratch = 7;
constexpr uint8_t kNoInterrupt = 0x01, kTransmitEmpty = 0x02, kReceived = 0x04;

class SerialTest : public ::testing::Test {
 protected:
  size_t Receive(const std::string& text) {
    return serial_.Receive(std::as_bytes(std::span<const char>(text)));
  }
  uint8_t InterruptId() { return Read8(serial_, kIir) & 0x0f; }

  FakeConsole console_;
  FakeIrq irq_;
  Serial serial_{console_, irq_};
};

TEST_F(SerialTest, TransmitsAtOnceAndIsAlwaysReady) {
  EXPECT_EQ(Read8(serial_, kLsr), 0x60);
  for (const char c : std::string("hello\n")) Write8(serial_, kData, static_cast<uint8_t>(c));
  EXPECT_EQ(console_.text, "hello\n");
  EXPECT_EQ(Read8(serial_, kLsr), 0x60);
  EXPECT_FALSE(irq_.high) << "no interrupt was enabled";
}

// As serial8250_do_startup probes for chips that forget this interrupt.
TEST_F(SerialTest, TransmitEmptyIsRaisedOnEachEnable) {
  Write8(serial_, kIer, 0x02);
  EXPECT_TRUE(irq_.high);
  EXPECT_EQ(InterruptId(), kTransmitEmpty);
  EXPECT_FALSE(irq_.high) << "reading the identification acknowledges";
  EXPECT_EQ(InterruptId(), kNoInterrupt);
  Write8(serial_, kIer, 0x02);
  EXPECT_FALSE(irq_.high) << "no rising edge of the enable bit";
  Write8(serial_, kIer, 0x00);
  Write8(serial_, kIer, 0x02);
  EXPECT_EQ(InterruptId(), kTransmitEmpty);
}

TEST_F(SerialTest, TransmitEmptyFollowsEachByte) {
  Write8(serial_, kIer, 0x02);
  EXPECT_EQ(InterruptId(), kTransmitEmpty);
  Write8(serial_, kData, 'x');
  EXPECT_TRUE(irq_.high);
  EXPECT_EQ(irq_.edges, 2);
  EXPECT_EQ(InterruptId(), kTransmitEmpty);
  EXPECT_FALSE(irq_.high);
}

TEST_F(SerialTest, ReceivesInOrderAndInterruptsUntilEmpty) {
  Write8(serial_, kIer, 0x01);
  EXPECT_EQ(Receive("ab"), 2u);
  EXPECT_TRUE(irq_.high);
  EXPECT_EQ(InterruptId(), kReceived);
  EXPECT_EQ(Read8(serial_, kLsr) & 1, 1);
  EXPECT_EQ(Read8(serial_, kData), 'a');
  EXPECT_TRUE(irq_.high);
  EXPECT_EQ(Read8(serial_, kData), 'b');
  EXPECT_FALSE(irq_.high);
  EXPECT_EQ(Read8(serial_, kLsr) & 1, 0);
  EXPECT_EQ(Read8(serial_, kData), 0);
}

TEST_F(SerialTest, ReceptionGoesBeforeTransmission) {
  Write8(serial_, kIer, 0x03);
  Receive("a");
  EXPECT_EQ(InterruptId(), kReceived);
  Read8(serial_, kData);
  EXPECT_EQ(InterruptId(), kTransmitEmpty) << "not lost by reading the other identification";
}

TEST_F(SerialTest, InputIsBounded) {
  EXPECT_EQ(Receive(std::string(Serial::kReceiveCapacity + 10, 'x')), Serial::kReceiveCapacity);
  EXPECT_EQ(Receive("y"), 0u);
  Read8(serial_, kData);
  EXPECT_EQ(Receive("yz"), 1u);
}

TEST_F(SerialTest, FifoControlIsShownAndClears) {
  EXPECT_EQ(Read8(serial_, kIir) & 0xc0, 0);
  Write8(serial_, kFcr, 0x01);
  EXPECT_EQ(Read8(serial_, kIir), 0xc1) << "16550A, and not the 64-byte FIFO of a 16750";
  Receive("abc");
  Write8(serial_, kFcr, 0x03);
  EXPECT_EQ(Read8(serial_, kLsr) & 1, 0);
}

TEST_F(SerialTest, DivisorLatchHidesDataAndEnable) {
  Write8(serial_, kIer, 0x01);
  Write8(serial_, kLcr, 0x83);
  Write8(serial_, kData, 0x01);
  Write8(serial_, kIer, 0x02);
  EXPECT_EQ(Read8(serial_, kData), 0x01);
  EXPECT_EQ(Read8(serial_, kIer), 0x02);
  Write8(serial_, kLcr, 0x03);
  EXPECT_EQ(Read8(serial_, kIer), 0x01);
  EXPECT_EQ(console_.text, "");
}

// As autoconfig() of Linux's 8250 driver tests for a chip: MCR to loopback with OUT2 and RTS.
TEST_F(SerialTest, LoopbackShowsModemControlAsStatus) {
  EXPECT_EQ(Read8(serial_, kMsr), 0xb0);
  Write8(serial_, kMcr, 0x1a);
  EXPECT_EQ(Read8(serial_, kMsr) & 0xf0, 0x90);
  Write8(serial_, kData, 'q');
  EXPECT_EQ(console_.text, "");
  EXPECT_EQ(Receive("host"), 0u) << "the line is cut";
  EXPECT_EQ(Read8(serial_, kData), 'q');
  for (int i = 0; i < 100; ++i) Write8(serial_, kData, 'q');
  EXPECT_EQ(Read8(serial_, kLsr) & 2, 2) << "overrun, not growth";
  EXPECT_EQ(Read8(serial_, kLsr) & 2, 0) << "told once";
}

TEST_F(SerialTest, ModemStatusDeltaInterruptsOnce) {
  Read8(serial_, kMsr);
  Write8(serial_, kIer, 0x08);
  EXPECT_FALSE(irq_.high);
  Write8(serial_, kMcr, 0x10);  // the lines fall
  EXPECT_TRUE(irq_.high);
  EXPECT_EQ(InterruptId(), 0x00);
  EXPECT_EQ(Read8(serial_, kMsr) & 0x0f, 0x0b) << "carrier, DSR, CTS changed";
  EXPECT_FALSE(irq_.high);
}

TEST_F(SerialTest, RegistersHideBitsThatLaterChipsHave) {
  Write8(serial_, kIer, 0xff);
  EXPECT_EQ(Read8(serial_, kIer), 0x0f);
  Write8(serial_, kMcr, 0xff);
  EXPECT_EQ(Read8(serial_, kMcr), 0x1f);
  Write8(serial_, kScratch, 0x5a);
  EXPECT_EQ(Read8(serial_, kScratch), 0x5a);
}

TEST_F(SerialTest, WideAccessIsBytes) {
  WriteAs<uint16_t>(serial_, kData, 0x0141);  // 'A', then IER = 1
  EXPECT_EQ(console_.text, "A");
  EXPECT_EQ(Read8(serial_, kIer), 0x01);
  EXPECT_EQ(ReadAs<uint16_t>(serial_, kScratch), 0xff00) << "beyond the last register";
}

TEST_F(SerialTest, RestoredDeviceContinues) {
  Write8(serial_, kLcr, 0x1b);
  Write8(serial_, kIer, 0x03);
  Write8(serial_, kFcr, 0x01);
  Write8(serial_, kMcr, 0x0b);
  Write8(serial_, kScratch, 0x77);
  Receive("pending");
  state::MachineState saved;
  ASSERT_TRUE(serial_.Save(saved).ok());

  FakeConsole console;
  FakeIrq irq;
  Serial other(console, irq);
  state::MachineState taken = saved;
  ASSERT_TRUE(other.Restore(taken).ok());
  EXPECT_TRUE(taken.ExpectEmpty().ok());
  EXPECT_TRUE(irq.high) << "the level is told anew";
  state::MachineState again;
  ASSERT_TRUE(other.Save(again).ok());
  EXPECT_EQ(again, saved);
  std::string text;
  while ((Read8(other, kLsr) & 1) != 0) text += static_cast<char>(Read8(other, kData));
  EXPECT_EQ(text, "pending");
  EXPECT_EQ(Read8(other, kIir), 0xc2);
}

TEST_F(SerialTest, HostileStateIsRefusedAndChangesNothing) {
  state::MachineState saved;
  ASSERT_TRUE(serial_.Save(saved).ok());
  const std::string good = saved.sections().front().payload;
  const auto restore = [&](std::string payload) {
    state::MachineState in;
    in.Put("serial.com1", 0, 1, std::move(payload));
    return serial_.Restore(in);
  };
  EXPECT_TRUE(restore(good).ok());
  EXPECT_EQ(restore("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(restore(good + "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(restore(good.substr(1)).code(), absl::StatusCode::kInvalidArgument);
  struct Bend {
    size_t at;
    char value;
  };
  // IER, MCR, modem delta, three booleans.
  for (const Bend bend : {Bend{0, 0x10}, Bend{2, 0x20}, Bend{4, 0x10}, Bend{5, 2}, Bend{6, 2},
                          Bend{7, 2}, Bend{10, 1}}) {
    std::string bad = good;
    bad[bend.at] = bend.value;
    EXPECT_EQ(restore(bad).code(), absl::StatusCode::kInvalidArgument) << bend.at;
  }
  // More bytes than the queue can hold.
  std::string flood = good;
  flood[10] = static_cast<char>(0xff);
  flood[11] = static_cast<char>(0xff);
  EXPECT_EQ(restore(flood + std::string(0xffff, 'x')).code(), absl::StatusCode::kInvalidArgument);
  state::MachineState none;
  EXPECT_EQ(serial_.Restore(none).code(), absl::StatusCode::kNotFound);
  state::MachineState after;
  ASSERT_TRUE(serial_.Save(after).ok());
  EXPECT_EQ(after, saved);
}

}  // namespace
}  // namespace romulus::devices
