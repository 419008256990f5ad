// A network card on a real tap: the guest's side is a fake driver, the network's a packet socket.
// No KVM; a network namespace of the test's own.
#include "daemon/nic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "daemon/config.h"
#include "devices/net_announce.h"
#include "devices/virtio/net.h"
#include "support/net_namespace.h"
#include "support/virtio_nic.h"

namespace romulus::daemon {
namespace {

using devices::NetHeader;
using devices::VirtioNet;
using devices::testing::kAllNetFeatures;
using devices::testing::kCardMac;
using devices::testing::TestFrame;
using devices::testing::WithHeader;
using romulus::testing::TapPeer;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr devices::MacAddress kElsewhere{2, 0, 0, 0, 0, 9};

template <typename Condition>
void Await(Condition condition) {
  while (!condition()) std::this_thread::yield();
}

// A frame as an Ethernet card would send it; the text makes it this one.
std::string Frame(const std::string& text, const devices::MacAddress& from = kElsewhere) {
  std::string frame(12, '\xff');
  std::copy(from.begin(), from.end(), frame.begin() + 6);
  frame += "\x88\xb5";  // IEEE: for local experiments
  frame += text;
  frame.resize(std::max<size_t>(frame.size(), 60));
  return frame;
}

// The driver's side of the card, with buffers of its own.
class GuestCard {
 public:
  static constexpr uint16_t kSize = 256;
  static constexpr uint32_t kBufferBytes = 2048;

  GuestCard(Nic& nic, AsioExecutor& loop, memory::GuestMemory& memory)
      : cpu_(memory),
        spec_(nic.Spec()),
        transport_(spec_.name, spec_.make(), memory, irq_, loop),
        port_(transport_) {}

  void BringUp(uint64_t features = kAllNetFeatures) {
    ROMULUS_CHECK(port_.Negotiate(features));
    for (uint32_t i = 0; i < 2; ++i) {
      queues_.emplace_back(cpu_, 0x10000 + i * 0x8000, kSize, true);
      ROMULUS_CHECK(
          cpu_.memory().Fill(Gpa(queues_.back().descriptors()), std::byte{0}, 6 * kPageSize).ok());
      ROMULUS_CHECK(port_.SetUpQueue(i, queues_.back()));
    }
    port_.AddStatus(devices::virtio::kDriverOk);
  }
  void OfferBuffers(uint16_t count) {
    for (uint16_t head = 0; head < count; ++head) OfferBuffer(head);
    port_.Notify(VirtioNet::kReceiveQueue);
  }
  // Waits for the next frame, without its header, and offers its buffer again. Frames fit into one.
  std::string Receive() {
    std::optional<devices::testing::UsedEntry> used;
    Await([&] { return (used = queues_[0].PollUsed()).has_value(); });
    const std::string text = cpu_.Text(BufferAt(static_cast<uint16_t>(used->id)), used->size_bytes);
    OfferBuffer(static_cast<uint16_t>(used->id));
    port_.Notify(VirtioNet::kReceiveQueue);
    return text.substr(sizeof(NetHeader));
  }
  // Waits until a buffer is free.
  void Send(const std::string& frame, const NetHeader& header = {}) {
    Await([&] { return sent_ - Transmitted() < kSize; });
    const auto head = static_cast<uint16_t>(sent_++ % kSize);
    const std::string bytes = WithHeader(header, frame);
    const uint64_t gpa = 0x200000 + uint64_t{head} * 0x2000;
    ROMULUS_CHECK(bytes.size() <= 0x2000);
    cpu_.Write(gpa, bytes.data(), bytes.size());
    queues_[1].OfferChain(head, {{gpa, static_cast<uint32_t>(bytes.size()), 0, 0}});
    port_.Notify(VirtioNet::kTransmitQueue);
  }
  // How many of the sent frames the card has taken; in order, so that heads can be used again.
  uint64_t Transmitted() {
    while (queues_[1].PollUsed()) ++transmitted_;
    return transmitted_;
  }
  devices::VirtioMmio& transport() { return transport_; }
  // The guest is the same, on another machine.
  void TakeOver(const GuestCard& from, state::MachineState state) {
    queues_ = from.queues_;
    ROMULUS_CHECK(transport_.Restore(state).ok());
  }

 private:
  static uint64_t BufferAt(uint16_t head) { return 0x100000 + uint64_t{head} * kBufferBytes; }
  void OfferBuffer(uint16_t head) {
    queues_[0].OfferChain(head, {{BufferAt(head), kBufferBytes, devices::testing::kDescWrite, 0}});
  }

  devices::testing::GuestCpu cpu_;
  devices::testing::LevelIrq irq_;
  vmm::VirtioSpec spec_;
  devices::VirtioMmio transport_;
  devices::testing::DriverPort port_;
  std::vector<devices::testing::DriverQueue> queues_;
  uint64_t sent_ = 0;
  uint64_t transmitted_ = 0;
};

class NicTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = romulus::testing::EnterNetNamespace(); !why.empty()) {
      GTEST_SKIP() << why;
    }
    for (const char* tap : {"t0", "t1"}) romulus::testing::MakeTap(tap);
    memory_ = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(8));
    loop_ = std::make_unique<AsioExecutor>(/*own_thread=*/true);
  }
  void TearDown() override {
    card_.reset();
    nic_.reset();
    loop_.reset();
  }
  NicOptions Options(const std::string& tap) {
    NicOptions options;
    options.name = "virtio.net.0";
    options.tap = tap;
    options.mac = kCardMac;
    options.announce_ips = {devices::Ipv4Address{10, 9, 0, 2}};
    options.announce_gap_ms = 1;
    return options;
  }
  std::unique_ptr<Nic> Open(const NicOptions& options, NicEvents events = {}) {
    absl::StatusOr<std::unique_ptr<Nic>> nic = Nic::Open(options, *loop_, std::move(events));
    ROMULUS_CHECK(nic.ok());
    // Up only now: a carrier that comes when it is up already is noticed some time later.
    romulus::testing::SetLinkUp(options.tap, false);
    romulus::testing::SetLinkUp(options.tap, true);
    return *std::move(nic);
  }
  // What has been asked of the loop so far is done.
  void Settle() {
    std::atomic<bool> done{false};
    loop_->Post([&] { done = true; });
    Await([&] { return done.load(); });
  }
  // A guest that runs here.
  void Run(NicEvents events = {}, uint64_t cap_bytes = 8u << 20) {
    NicOptions options = Options("t0");
    options.cap_bytes = cap_bytes;
    nic_ = Open(options, std::move(events));
    peer_ = std::make_unique<TapPeer>("t0");
    card_ = std::make_unique<GuestCard>(*nic_, *loop_, *memory_);
    card_->BringUp();
    nic_->Activate();
    Settle();  // what comes before is thrown away
  }

  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<AsioExecutor> loop_;
  std::unique_ptr<Nic> nic_;
  std::unique_ptr<TapPeer> peer_;
  std::unique_ptr<GuestCard> card_;
};

TEST_F(NicTest, CarriesFramesBothWays) {
  Run();
  card_->OfferBuffers(GuestCard::kSize);
  for (int i = 0; i < 1000; ++i) {
    const std::string number = std::to_string(i);
    peer_->Send(Frame("ping " + number));
    ASSERT_EQ(card_->Receive(), Frame("ping " + number));
    card_->Send(Frame("pong " + number, kCardMac));
    ASSERT_EQ(peer_->Receive(), Frame("pong " + number, kCardMac));
  }
  Await([&] { return nic_->counters().frames_out == 1000; });
  const NicCounters counters = nic_->counters();
  EXPECT_EQ(counters.frames_in, 1000u);
  EXPECT_EQ(counters.bytes_in, 60'000u);
  EXPECT_EQ(counters.bytes_out, 60'000u);
  EXPECT_EQ(counters.frames_dropped_in + counters.frames_dropped_out + counters.bad_frames, 0u);
  EXPECT_EQ(counters.mac_clashes, 0u);
}

TEST_F(NicTest, P1_NoFrameIsSeenBeforeItsEpochIsAcked) {
  Run();
  std::atomic<int> waiting{0};
  nic_->SetOutputWaiting([&] { ++waiting; });
  nic_->output().CutAt(EpochId(1));
  card_->Send(Frame("first"));
  card_->Send(Frame("second"));
  Await([&] { return card_->Transmitted() == 2; });
  nic_->output().CutAt(EpochId(2));
  card_->Send(Frame("third"));
  Await([&] { return nic_->counters().held_frames == 3; });
  Settle();  // told after it is counted
  EXPECT_EQ(waiting, 2);
  nic_->output().Release(EpochId(1));
  Settle();
  // This host's own word passes what is held: what is seen first was not held back.
  nic_->Announce();
  EXPECT_EQ(peer_->Receive().substr(12, 2), "\x80\x35");
  nic_->output().Release(EpochId(2));
  std::vector<std::string> seen;
  while (seen.size() < 2) {
    const std::string frame = peer_->Receive();
    if (frame.substr(12, 2) == "\x88\xb5") seen.push_back(frame);
  }
  EXPECT_EQ(seen[0], Frame("first"));
  EXPECT_EQ(seen[1], Frame("second"));
  Await([&] { return nic_->counters().queued_bytes == 0; });
  EXPECT_EQ(nic_->counters().held_frames, 1u);
  EXPECT_EQ(nic_->counters().frames_out, 2u);
}

TEST_F(NicTest, P6_AtTheCapTheGuestWaitsAndNothingIsLost) {
  Run({}, /*cap_bytes=*/128u << 10);
  nic_->output().CutAt(EpochId(1));
  constexpr int kFrames = 500;
  const std::string filler(1400, 'x');
  std::thread guest([&] {
    for (int i = 0; i < kFrames; ++i) card_->Send(Frame(std::to_string(i) + filler));
  });
  Await([&] { return nic_->counters().held_bytes > 100'000; });
  Settle();
  EXPECT_LT(nic_->counters().held_frames, static_cast<uint64_t>(kFrames)) << "the guest waits";
  uint64_t epoch = 2;
  for (int seen = 0; seen < kFrames;) {
    ASSERT_LE(nic_->counters().held_bytes + nic_->counters().queued_bytes, 128u << 10);
    if (const std::optional<std::string> frame = peer_->TryReceive()) {
      ASSERT_EQ(*frame, Frame(std::to_string(seen++) + filler));
      continue;
    }
    nic_->output().CutAt(EpochId(epoch));
    nic_->output().Release(EpochId(epoch++));
  }
  guest.join();
  Await([&] { return nic_->counters().frames_out == static_cast<uint64_t>(kFrames); });
  EXPECT_EQ(nic_->counters().frames_dropped_out, 0u);
}

TEST_F(NicTest, TheTapIsNotReadWhileTheGuestHasNoBuffers) {
  Run();
  constexpr int kFrames = 300;  // less than a tap's queue
  for (int i = 0; i < kFrames; ++i) peer_->Send(Frame(std::to_string(i)));
  Settle();
  card_->OfferBuffers(4);
  for (int i = 0; i < kFrames; ++i) ASSERT_EQ(card_->Receive(), Frame(std::to_string(i)));
  EXPECT_EQ(nic_->counters().frames_dropped_in, 0u);
}

TEST_F(NicTest, WhatCameForAPreparedGuestIsThrownAway) {
  nic_ = Open(Options("t0"));
  peer_ = std::make_unique<TapPeer>("t0");
  peer_->Send(Frame("before the machine"));
  card_ = std::make_unique<GuestCard>(*nic_, *loop_, *memory_);
  card_->BringUp();
  card_->OfferBuffers(16);
  peer_->Send(Frame("before the promotion"));
  Settle();
  EXPECT_EQ(nic_->counters().frames_in, 0u);
  nic_->Activate();
  nic_->Activate();
  Settle();
  peer_->Send(Frame("after"));
  EXPECT_EQ(card_->Receive(), Frame("after"));
  EXPECT_EQ(nic_->counters().frames_dropped_in, 2u);
}

TEST_F(NicTest, AFrameFromOurOwnMacIsCountedAndToldOnce) {
  std::atomic<int> told{0};
  Run({.on_mac_clash = [&] { ++told; }, .on_tap_failure = {}});
  card_->OfferBuffers(16);
  peer_->Send(Frame("clash", kCardMac));
  EXPECT_EQ(card_->Receive(), Frame("clash", kCardMac));
  peer_->Send(Frame("again", kCardMac));
  EXPECT_EQ(card_->Receive(), Frame("again", kCardMac));
  EXPECT_EQ(nic_->counters().mac_clashes, 2u);
  EXPECT_EQ(told, 1);
}

TEST_F(NicTest, ATapThatIsDownLosesFramesAndSaysSo) {
  std::atomic<int> failed{0}, recovered{0};
  Run({.on_mac_clash = {}, .on_tap_failure = [&](const absl::Status& status) {
         ++(status.ok() ? recovered : failed);
       }});
  romulus::testing::SetLinkUp("t0", false);
  card_->Send(Frame("lost"));
  card_->Send(Frame("lost, too"));
  Await([&] { return nic_->counters().frames_dropped_out == 2; });
  Await([&] { return failed != 0; });  // told after it is counted
  romulus::testing::SetLinkUp("t0", true);
  card_->Send(Frame("seen"));
  Await([&] { return nic_->counters().frames_out == 1; });
  Await([&] { return recovered != 0; });
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(recovered, 1);
}

TEST_F(NicTest, ATapThatIsDeletedDoesNotKeepTheLoopBusy) {
  Run();
  card_->OfferBuffers(16);
  peer_->Send(Frame("one"));
  EXPECT_EQ(card_->Receive(), Frame("one"));
  ASSERT_EQ(std::system("ip link del t0"), 0);
  card_->Send(Frame("lost"));
  Await([&] { return nic_->counters().frames_dropped_out == 1; });
  EXPECT_EQ(nic_->counters().frames_out, 0u);
}

TEST_F(NicTest, AnnouncesSeveralTimes) {
  Run();
  nic_->Announce();
  const std::vector<devices::IpAddress> ips{devices::Ipv4Address{10, 9, 0, 2}};
  const std::vector<devices::EthernetFrame> expected = devices::Announcements(kCardMac, ips);
  for (int round = 0; round < Nic::kAnnounceRounds; ++round) {
    for (const devices::EthernetFrame& frame : expected) {
      const std::string seen = peer_->Receive();
      ASSERT_EQ(seen, std::string(reinterpret_cast<const char*>(frame.data()), frame.size()));
    }
  }
  Await(
      [&] { return nic_->counters().frames_announced == Nic::kAnnounceRounds * expected.size(); });
}

TEST_F(NicTest, P3_ALoserStopsAnnouncing) {
  Run();
  nic_->output().Hold();
  nic_->Announce();
  EXPECT_EQ(peer_->Receive().substr(12, 2), "\x80\x35");
  nic_->output().Discard();
  const uint64_t announced = nic_->counters().frames_announced;
  nic_->Announce();
  Settle();
  EXPECT_EQ(nic_->counters().frames_announced, announced);
}

// What `romulusd check` says of it.
TEST_F(NicTest, TheConfigurationIsCheckedAgainstTheTaps) {
  const auto errors = [](const std::string& tap, bool check_files = true) {
    ConfigOptions options;
    options.check_files = check_files;
    return ParseConfig(absl::StrCat("name: \"vm\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
                                    "nodes { name: \"a\" control_address: \"unix:///a.sock\" }\n"
                                    "guest { kernel: \"/dev/null\"\n"
                                    "nics { mac: \"52:54:00:00:00:01\" tap: \"",
                                    tap, "\" } }\n"),
                       "/vm.textproto", options)
        .ErrorText();
  };
  EXPECT_THAT(errors("t0"), Not(HasSubstr("nics")));
  EXPECT_THAT(errors("none0"),
              AllOf(HasSubstr(":4:33: guest.nics[0].tap: tap 'none0' is not there"),
                    HasSubstr("ip tuntap add dev none0 mode tap")));
  EXPECT_THAT(errors("lo"),
              HasSubstr("guest.nics[0].tap: tap 'lo' is a network device, but no tap"));
  EXPECT_THAT(errors("none0", /*check_files=*/false), Not(HasSubstr("nics")));
  romulus::testing::SetLinkMtu("t1", 1400);
  EXPECT_THAT(errors("t1"), HasSubstr("has an MTU of 1400"));
  const auto missing = Nic::Open(Options("none0"), *loop_, {});
  EXPECT_TRUE(absl::IsNotFound(missing.status())) << missing.status();
  EXPECT_EQ(::if_nametoindex("none0"), 0u);
}

TEST_F(NicTest, TheTapIsFreeAgainAtOnce) {
  for (int round = 0; round < 20; ++round) {
    Run();
    card_->OfferBuffers(16);
    for (int i = 0; i < 50; ++i) peer_->Send(Frame("flood"));
    card_->Send(Frame("out"));
    nic_->Announce();
    card_.reset();
    nic_.reset();
  }
  loop_.reset();
}

TEST_F(NicTest, TheLoopMayStopFirst) {
  Run();
  card_->OfferBuffers(16);
  card_->Send(Frame("out"));
  peer_->Send(Frame("in"));
  nic_->Announce();
  loop_->Stop();
  card_.reset();
  nic_.reset();
  EXPECT_NE(Open(Options("t0")), nullptr);
}

TEST_F(NicTest, TheHostFillsInChecksumsForTheGuest) {
  Run();
  romulus::testing::SetLinkAddress("t0", "10.9.0.1");
  const base::UniqueFd server(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::getsockname(server.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  // UDP from 10.9.0.2:7 whose checksum field holds the sum of the pseudo-header only.
  const ifreq link = romulus::testing::GetLink("t0", SIOCGIFHWADDR);
  std::string frame(link.ifr_hwaddr.sa_data, 6);
  frame.append(kCardMac.begin(), kCardMac.end());
  const uint8_t ip[] = {0x08, 0x00, 0x45, 0,  0, 33, 0, 0,  0, 0, 64,
                        17,   0x66, 0xb8, 10, 9, 0,  2, 10, 9, 0, 1};
  frame.append(reinterpret_cast<const char*>(ip), sizeof(ip));
  const auto* const port = reinterpret_cast<const char*>(&address.sin_port);
  frame += std::string("\0\7", 2) + std::string(port, 2);
  frame += std::string("\0\x0d\x14\x33", 4) + "hello";  // 13 bytes
  card_->Send(frame,
              {.flags = NetHeader::kNeedsChecksum, .checksum_start = 34, .checksum_offset = 6});
  char text[16];
  ASSERT_EQ(::recv(server.get(), text, sizeof(text), 0), 5);
  EXPECT_EQ(std::string(text, 5), "hello");
}

TEST_F(NicTest, ARestoredGuestGoesOnOnAnotherTap) {
  Run({}, /*cap_bytes=*/1);  // one frame at a time
  nic_->output().Hold();
  for (const char* text : {"taken", "refused", "offered"}) card_->Send(Frame(text));
  Await([&] { return card_->Transmitted() == 1; });
  Settle();
  ASSERT_TRUE(card_->transport().Quiesce().ok());
  state::MachineState state;
  ASSERT_TRUE(card_->transport().Save(state).ok());

  std::unique_ptr<Nic> other_nic = Open(Options("t1"));
  TapPeer other_peer("t1");
  GuestCard other(*other_nic, *loop_, *memory_);
  other_peer.Send(Frame("stale"));
  other.TakeOver(*card_, std::move(state));
  other_nic->Activate();
  other.transport().Resume();
  other_nic->Announce();
  std::vector<std::string> seen;
  while (seen.size() < 2) {
    const std::string frame = other_peer.Receive();
    if (frame.substr(12, 2) == "\x88\xb5") seen.push_back(frame);
  }
  EXPECT_EQ(seen[0], Frame("refused")) << "the first died with its host, as if it had been lost";
  EXPECT_EQ(seen[1], Frame("offered"));
  other.OfferBuffers(4);
  other_peer.Send(Frame("fresh"));
  EXPECT_EQ(other.Receive(), Frame("fresh"));
}

TEST(NicOptionsTest, ComeFromTheConfiguration) {
  romulus::v1::Nic nic;
  nic.set_tap("tap-a");
  nic.set_mac("52:54:00:12:34:56");
  nic.add_announce_ip("10.9.0.2");
  nic.add_announce_ip("fd00::7");
  romulus::v1::Checkpoint checkpoint;
  checkpoint.set_held_frames_kib(256);
  const auto options = NicOptionsFrom(nic, checkpoint, 2);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->name, "virtio.net.2");
  EXPECT_EQ(options->tap, "tap-a");
  EXPECT_EQ(options->mac, kCardMac);
  EXPECT_EQ(options->mtu, 1500);
  EXPECT_EQ(options->announce_ips.size(), 2u);
  EXPECT_EQ(options->cap_bytes, 256u << 10);
}

TEST(NicOptionsTest, P7_ErrorsNameTheField) {
  romulus::v1::Nic nic;
  nic.set_tap("tap-a");
  nic.set_mac("52:54:00:12:34");
  EXPECT_THAT(NicOptionsFrom(nic, {}, 0).status().message(), HasSubstr("guest.nics[0].mac: '52"));
  nic.set_mac("52:54:00:12:34:56");
  nic.set_mtu(67);
  EXPECT_THAT(NicOptionsFrom(nic, {}, 1).status().message(), HasSubstr("guest.nics[1].mtu: 67"));
  nic.set_mtu(1500);
  nic.add_announce_ip("ff02::1");
  EXPECT_THAT(NicOptionsFrom(nic, {}, 1).status().message(), HasSubstr("announce_ip: 'ff02::1'"));
}

}  // namespace
}  // namespace romulus::daemon
