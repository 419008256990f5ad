// Announcements byte by byte, and the addresses of configurations.
#include "devices/net_announce.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"

namespace romulus::devices {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr MacAddress kMac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
constexpr Ipv4Address kV4{10, 1, 2, 3};
constexpr Ipv6Address kV6{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7};

std::string Hex(const EthernetFrame& frame) {
  return absl::BytesToHexString(
      std::string(reinterpret_cast<const char*>(frame.data()), frame.size()));
}
// Blanks are for reading; padded to what Ethernet asks for.
std::string Expected(const std::string& hex) {
  std::string text = absl::StrReplaceAll(hex, {{" ", ""}});
  return text + std::string(text.size() < 120 ? 120 - text.size() : 0, '0');
}

TEST(NetAnnounceTest, RarpRequest) {
  EXPECT_EQ(Hex(RarpRequest(kMac)), Expected("ffffffffffff 525400123456 8035 "  // Ethernet
                                             "0001 0800 06 04 0003 "            // request reverse
                                             "525400123456 00000000 "           // sender
                                             "525400123456 00000000"));         // target
}

TEST(NetAnnounceTest, ArpAnnouncement) {
  EXPECT_EQ(Hex(ArpAnnouncement(kMac, kV4)), Expected("ffffffffffff 525400123456 0806 "
                                                      "0001 0800 06 04 0001 "  // request
                                                      "525400123456 0a010203 "
                                                      "000000000000 0a010203"));
}

TEST(NetAnnounceTest, NeighborAdvertisement) {
  // The checksum was computed with another program than this one.
  EXPECT_EQ(Hex(NeighborAdvertisement(kMac, kV6)),
            Expected("333300000001 525400123456 86dd "
                     "60000000 0020 3a ff "  // 32 bytes of ICMPv6, hop limit 255
                     "fd000000000000000000000000000007 ff020000000000000000000000000001 "
                     "88 00 d5d3 20000000 fd000000000000000000000000000007 "
                     "02 01 525400123456"));
}

TEST(NetAnnounceTest, AllOfThemTheMacFirst) {
  const std::vector<IpAddress> ips{kV4, kV6};
  const std::vector<EthernetFrame> frames = Announcements(kMac, ips);
  ASSERT_THAT(frames, SizeIs(3));
  EXPECT_EQ(frames[0], RarpRequest(kMac));
  EXPECT_EQ(frames[1], ArpAnnouncement(kMac, kV4));
  EXPECT_EQ(frames[2], NeighborAdvertisement(kMac, kV6));
  EXPECT_THAT(Announcements(kMac, {}), SizeIs(1));
}

TEST(NetAddressTest, ReadsAndWritesMacs) {
  ASSERT_TRUE(ParseCardMac("52:54:00:12:34:56").ok());
  EXPECT_EQ(*ParseCardMac("52:54:00:12:34:56"), kMac);
  EXPECT_EQ(FormatMac(*ParseCardMac("0A:bC:De:00:09:fF")), "0a:bc:de:00:09:ff");
}

TEST(NetAddressTest, P7_RefusesWhatIsNoCardsMac) {
  for (const char* text :
       {"", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:56:", "52-54-00-12-34-56",
        "525400123456", "52:54:00:12:34:5g", " 2:54:00:12:34:56", "52:54:00:12:34:567"}) {
    EXPECT_THAT(ParseCardMac(text).status().message(), HasSubstr("no MAC address")) << text;
  }
  EXPECT_THAT(ParseCardMac("01:00:5e:00:00:01").status().message(), HasSubstr("group"));
  EXPECT_THAT(ParseCardMac("ff:ff:ff:ff:ff:ff").status().message(), HasSubstr("group"));
  EXPECT_THAT(ParseCardMac("00:00:00:00:00:00").status().message(), HasSubstr("no card's"));
}

TEST(NetAddressTest, ReadsIpAddresses) {
  EXPECT_EQ(std::get<Ipv4Address>(*ParseCardIp("10.1.2.3")), kV4);
  EXPECT_EQ(std::get<Ipv6Address>(*ParseCardIp("fd00::7")), kV6);
  EXPECT_TRUE(ParseCardIp("fe80::5054:ff:fe12:3456").ok());
}

TEST(NetAddressTest, P7_RefusesWhatNoCardCanAnnounce) {
  for (const auto& [text, why] : std::initializer_list<std::pair<std::string, std::string>>{
           {"", "no IP address"},
           {"10.1.2", "no IP address"},
           {"10.1.2.3/24", "no IP address"},
           {std::string("10.1.2.3\0x", 10), "no IP address"},
           {"fd00::7%eth0", "no IP address"},
           {"host", "no IP address"},
           {"0.0.0.0", "no host's"},
           {"127.0.0.1", "loopback"},
           {"224.0.0.1", "multicast"},
           {"255.255.255.255", "broadcast"},
           {"::", "unspecified"},
           {"::1", "loopback"},
           {"ff02::1", "multicast"}}) {
    EXPECT_THAT(ParseCardIp(text).status().message(), HasSubstr(why)) << text;
  }
}

}  // namespace
}  // namespace romulus::devices
