#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "daemon/config.h"

namespace romulus::daemon {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    std::string pattern = testing::TempDir() + "romulus-config-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    std::ofstream(folder_ + "/kernel") << "x";
  }
  ~ConfigTest() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/vm.textproto"; }
  LoadedConfig Parse(const std::string& text, ConfigOptions options = {}) const {
    return ParseConfig(text, path(), options);
  }
  // Errors without the file's name.
  std::vector<std::string> Errors(const std::string& text, ConfigOptions options = {}) const {
    std::vector<std::string> errors;
    for (const ConfigError& error : Parse(text, options).errors) {
      errors.push_back(error.ToString().substr(path().size() + 1));
    }
    return errors;
  }

  std::string folder_;
};

// Lines 1 to 5; what a test adds begins on line 6.
constexpr char kSolo[] =
    "name: \"vm1\"\n"
    "uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
    "nodes { name: \"alpha\" control_address: \"unix:///run/a.sock\" }\n"
    "guest {\n"
    "  kernel: \"kernel\" }\n";

std::string Solo(const std::string& more) { return kSolo + more; }

TEST_F(ConfigTest, DefaultsAreThoseOfTheSchema) {
  const LoadedConfig loaded = Parse(kSolo);
  ASSERT_TRUE(loaded.ok()) << loaded.ErrorText();
  EXPECT_EQ(loaded.config.guest().vcpus(), 1u);
  EXPECT_EQ(loaded.config.guest().memory_mib(), 256u);
  EXPECT_EQ(loaded.config.tracking().ring_entries(), 4096u);
  EXPECT_EQ(loaded.config.checkpoint().max_interval_us(), 20000u);
  EXPECT_FALSE(loaded.config.failover().auto_failover());
  EXPECT_EQ(loaded.self().name(), "alpha");
  EXPECT_EQ(loaded.peer(), nullptr);
  EXPECT_EQ(loaded.config.guest().kernel(), folder_ + "/kernel");
}

TEST_F(ConfigTest, AnUnknownFieldIsNamedWithItsLine) {
  EXPECT_THAT(Errors(Solo("checkpoint { max_dirty_page: 5 }\n")),
              ElementsAre(AllOf(HasSubstr("6:28: "), HasSubstr("max_dirty_page"))));
}

TEST_F(ConfigTest, SyntaxErrorsHaveALine) {
  EXPECT_THAT(Errors(Solo("guest [")), ElementsAre(HasSubstr("6:7: ")));
  EXPECT_THAT(Errors(Solo("log_level: LOUD\n")), ElementsAre(HasSubstr("6:12: ")));
  EXPECT_THAT(Errors(Solo("tracking { ring_entries: -1 }\n")), ElementsAre(HasSubstr("6:26: ")));
}

TEST_F(ConfigTest, ARingIsAPowerOfTwoInRange) {
  EXPECT_THAT(Errors(Solo("tracking {\n  ring_entries: 1000\n}\n")),
              ElementsAre("7:3: tracking.ring_entries: 1000 is not a power of two"));
  EXPECT_THAT(Errors(Solo("tracking { ring_entries: 131072 }\n")),
              ElementsAre("6:12: tracking.ring_entries: 131072 is out of range: 256 to 65536"));
  EXPECT_THAT(Errors(Solo("tracking { ring_entries: 32768 }\n"), {.host_max_ring_entries = 4096}),
              ElementsAre("6:12: tracking.ring_entries: 32768 is more than this host's maximum "
                          "of 4096"));
  EXPECT_THAT(Errors(Solo("tracking { mode: MODE_RING }\n"), {.host_max_ring_entries = 0}),
              ElementsAre(HasSubstr("6:12: tracking.mode: KVM on this host has no dirty rings")));
}

TEST_F(ConfigTest, WhatPaysIsCompressedUnlessItIsToldOtherwise) {
  using romulus::v1::Checkpoint;
  EXPECT_EQ(romulus::v1::Config().checkpoint().compression(), Checkpoint::COMPRESSION_AUTO);
  for (const char* value : {"AUTO", "OFF", "LZ4", "ZSTD"}) {
    EXPECT_THAT(Errors(Solo(absl::StrCat("checkpoint { compression: COMPRESSION_", value, " }\n"))),
                IsEmpty());
  }
  EXPECT_THAT(Errors(Solo("checkpoint { compression: COMPRESSION_UNSPECIFIED }\n")),
              ElementsAre("6:14: checkpoint.compression: must be one of the others"));
}

TEST_F(ConfigTest, TheAuditIsOnUnlessItIsToldOtherwise) {
  EXPECT_EQ(romulus::v1::Config().audit().pass_seconds(), 300u);
  EXPECT_EQ(romulus::v1::Config().audit().on_mismatch(), romulus::v1::Audit::ON_MISMATCH_REPAIR);
  EXPECT_EQ(romulus::v1::Config().audit().disk_pass_seconds(), 86'400u);
  EXPECT_THAT(Errors(Solo("audit { pass_seconds: 0 disk_pass_seconds: 0 }\n")), IsEmpty());
  EXPECT_THAT(Errors(Solo("audit { disk_pass_seconds: 40000000 }\n")),
              ElementsAre("6:9: audit.disk_pass_seconds: 40000000 is out of range: 0 to 31536000"));
  EXPECT_THAT(Errors(Solo("audit { pass_seconds: 700000 }\n")),
              ElementsAre("6:9: audit.pass_seconds: 700000 is out of range: 0 to 604800"));
  EXPECT_THAT(Errors(Solo("stop { hand_over_ms: 30000 }\n")),
              ElementsAre("6:8: stop.hand_over_ms: 30000 is out of range: 1000 to 25000"));
  EXPECT_THAT(Errors(Solo("stop { shut_down_seconds: 3601 }\n")),
              ElementsAre("6:8: stop.shut_down_seconds: 3601 is out of range: 0 to 3600"));
  EXPECT_THAT(Errors(Solo("stop { on_stop: ON_STOP_UNSPECIFIED }\n")),
              ElementsAre("6:8: stop.on_stop: must be one of the others"));
  EXPECT_THAT(Errors(Solo("audit { on_mismatch: ON_MISMATCH_UNSPECIFIED }\n")),
              ElementsAre("6:9: audit.on_mismatch: must be one of the others"));
}

TEST_F(ConfigTest, ContradictionsNameTheFieldThatIsWritten) {
  EXPECT_THAT(Errors(Solo("tracking { mode: MODE_BITMAP\n ring_entries: 512 }\n")),
              ElementsAre(HasSubstr("7:2: tracking.ring_entries: contradicts mode")));
  EXPECT_THAT(Errors(Solo("failover { auto_failover: true\n"
                          "  on_secondary_lost: ON_SECONDARY_LOST_SOLO }\n")),
              ElementsAre(HasSubstr("7:3: failover.on_secondary_lost: contradicts auto_failover")));
  EXPECT_THAT(
      Errors(Solo("checkpoint { max_interval_us: 500 min_interval_us: 600 }\n")),
      ElementsAre("6:35: checkpoint.min_interval_us: 600 is more than max_interval_us, 500"));
  // The timeout is a default: the message that holds the contradiction is blamed.
  EXPECT_THAT(Errors(Solo("failover { heartbeat_interval_ms: 400 }\n")),
              ElementsAre(HasSubstr("6:1: failover.heartbeat_timeout_ms: 500 is less than three")));
}

TEST_F(ConfigTest, TheSecondPathHasTwoEndsOfItsOwn) {
  const auto errors = [this](const std::string& alphas, const std::string& betas) {
    return Errors(
        "name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\" node_name: \"a\"\n"
        "nodes { name: \"a\" replication_address: \"10.0.0.1:7001\" control_address: "
        "\"unix:///run/a.sock\"\n" +
        alphas +
        "}\nnodes { name: \"b\" replication_address: \"10.0.0.2:7001\" control_address: "
        "\"unix:///run/b.sock\"\n" +
        betas + "}\nguest { kernel: \"kernel\" } insecure: true\n");
  };
  const std::string good_a = "  heartbeat_address: \"192.0.2.1:7001\" ";
  const std::string good_b = "  heartbeat_address: \"192.0.2.2:7001\" ";
  EXPECT_THAT(errors("", ""), IsEmpty());
  EXPECT_THAT(errors(good_a, good_b), IsEmpty());
  EXPECT_THAT(
      errors(good_a, ""),
      ElementsAre("3:3: nodes[0].heartbeat_address: 'b' has none: both nodes must have one, "
                  "or neither"));
  EXPECT_THAT(errors("", good_b),
              ElementsAre(HasSubstr("5:3: nodes[1].heartbeat_address: 'a' has")));
  EXPECT_THAT(errors(good_a, good_a),
              ElementsAre(HasSubstr("5:3: nodes[1].heartbeat_address: another node has the same")));
  EXPECT_THAT(errors("  heartbeat_address: \"10.0.0.1:7001\" ", good_b),
              ElementsAre("3:3: nodes[0].heartbeat_address: port 7001 is replication_address's "
                          "already"));
  EXPECT_THAT(errors("  heartbeat_address: \"10.0.0.2:7001\" ", good_b),
              ElementsAre("3:3: nodes[0].heartbeat_address: is the replication_address of 'b'"));
  EXPECT_THAT(errors("  heartbeat_address: \"nowhere\" ", good_b),
              ElementsAre("3:3: nodes[0].heartbeat_address: 'nowhere' is not host:port"));
  std::string alone = kSolo;
  alone.replace(alone.find("control"), 0, "heartbeat_address: \"192.0.2.1:7001\" ");
  EXPECT_THAT(Errors(alone),
              ElementsAre(HasSubstr("heartbeat_address: contradicts a single node")));
}

TEST_F(ConfigTest, AllErrorsAreToldInOrder) {
  EXPECT_THAT(Errors("nodes { name: \"a b\" }\n"
                     "guest { vcpus: 9 memory_mib: 1 }\n"),
              ElementsAre(HasSubstr("name: must be set"), HasSubstr("uuid: must be set"),
                          HasSubstr("1:1: nodes[0].control_address: must be set"),
                          HasSubstr("1:9: nodes[0].name: must be"),
                          HasSubstr("2:1: guest.kernel: must be set"),
                          HasSubstr("2:9: guest.vcpus: 9 is out of range: 1 to 8"),
                          HasSubstr("2:18: guest.memory_mib: 1 is out of range")));
}

TEST_F(ConfigTest, FilesMustBeThere) {
  std::string text = kSolo;
  text.replace(text.find("\"kernel\""), 8, "\"missing\"");
  EXPECT_THAT(Errors(text), ElementsAre(AllOf(HasSubstr("5:3: guest.kernel: cannot use"),
                                              HasSubstr("missing': No such file or directory"))));
  EXPECT_THAT(Errors(text, {.check_files = false}), IsEmpty());
  EXPECT_THAT(Errors(Solo("console { file: \"no/such/folder\" }\n")),
              ElementsAre(HasSubstr("6:11: console.file: there is no folder")));
}

constexpr char kPairNodes[] =
    "name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
    "guest { kernel: \"kernel\" } insecure: true\n"
    "nodes { name: \"alpha\" control_address: \"127.0.0.1:1\" replication_address: \"h:1\" }\n"
    "nodes { name: \"beta\" control_address: \"[::1]:2\" replication_address: \"[::1]:3\" }\n";

TEST_F(ConfigTest, TheNodeIsChosenByTheFileOrTheCaller) {
  EXPECT_THAT(Errors(kPairNodes), ElementsAre(HasSubstr("node_name: must be set")));
  const LoadedConfig beta = Parse(kPairNodes, {.node = "beta"});
  ASSERT_TRUE(beta.ok()) << beta.ErrorText();
  EXPECT_EQ(beta.self().name(), "beta");
  EXPECT_EQ(beta.peer()->name(), "alpha");
  EXPECT_THAT(Errors(kPairNodes, {.node = "gamma"}),
              ElementsAre(HasSubstr("node_name: --node 'gamma' is none of the nodes")));
  EXPECT_THAT(Errors(std::string(kPairNodes) + "node_name: \"gamma\"\n"),
              ElementsAre("5:1: node_name: 'gamma' is none of the nodes"));
}

TEST_F(ConfigTest, PathsMayNameTheNode) {
  const LoadedConfig loaded =
      Parse(std::string(kPairNodes) + "console { file: \"{node}.console\" }\n", {.node = "beta"});
  ASSERT_TRUE(loaded.ok()) << loaded.ErrorText();
  EXPECT_EQ(loaded.config.console().file(), folder_ + "/beta.console");
}

// What stands in guest { } besides the kernel, from line 3 on.
std::string WithDevices(const std::string& more) {
  return absl::StrCat(
      "name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
      "nodes { name: \"alpha\" control_address: \"unix:///run/a.sock\" }\n"
      "guest { kernel: \"kernel\"\n",
      more, "\n}\n");
}

class DeviceConfigTest : public ConfigTest {
 protected:
  void MakeFile(const std::string& name, uint64_t bytes) {
    std::ofstream(folder_ + "/" + name).close();
    std::filesystem::resize_file(folder_ + "/" + name, bytes);
  }
};

TEST_F(DeviceConfigTest, DisksAndCardsAreTaken) {
  MakeFile("alpha.img", 1u << 20);
  MakeFile("data.img", 512);
  std::filesystem::create_directory(folder_ + "/state-alpha");
  const LoadedConfig loaded = Parse(
      WithDevices("disks { name: \"root\" path: \"{node}.img\" state_dir: \"state-{node}\" }\n"
                  "disks { name: \"data\" path: \"data.img\" read_only: true }\n"
                  "cpu_model: \"x86-64-v2\" virtio_console: true"));
  ASSERT_TRUE(loaded.ok()) << loaded.ErrorText();
  EXPECT_EQ(loaded.config.guest().disks(0).path(), folder_ + "/alpha.img");
  EXPECT_EQ(loaded.config.guest().disks(0).state_dir(), folder_ + "/state-alpha");
  EXPECT_TRUE(loaded.config.guest().rng());
  const LoadedConfig with_card = Parse(
      WithDevices(
          "nics { tap: \"tap-{node}\" mac: \"52:54:00:12:34:56\" announce_ip: \"10.0.0.7\"\n"
          "  announce_ip: \"fd00::7\" mtu: 9000 }\n"),
      {.check_files = false});  // the tap is checked where there can be one: tests/e2e/nic_test.cc
  ASSERT_TRUE(with_card.ok()) << with_card.ErrorText();
  EXPECT_EQ(with_card.config.guest().nics(0).tap(), "tap-alpha");
}

TEST_F(DeviceConfigTest, BadDisksAreNamed) {
  MakeFile("a.img", 1024);
  MakeFile("odd.img", 1000);
  MakeFile("empty.img", 0);
  std::filesystem::create_directory(folder_ + "/folder");
  std::filesystem::create_symlink("a.img", folder_ + "/link.img");
  const auto error = [this](const std::string& disks) {
    const std::vector<std::string> errors = Errors(WithDevices(disks));
    return absl::StrJoin(errors, "\n");
  };
  EXPECT_EQ(error("disks { name: \"a\" path: \"a.img\" }"), "");
  EXPECT_THAT(error("disks { path: \"a.img\" }"), HasSubstr("4:1: guest.disks[0].name: must be"));
  EXPECT_THAT(error("disks { name: \"a\" }"), HasSubstr("guest.disks[0].path: must be set"));
  EXPECT_THAT(error("disks { name: \"abcdefghijklmnopqrstu\" path: \"a.img\" }"),
              HasSubstr("guest.disks[0].name: 'abcdefghijklmnopqrstu' has 21 characters"));
  EXPECT_THAT(error("disks { name: \"a\" path: \"b.img\" }"),
              AllOf(HasSubstr("4:19: guest.disks[0].path: "), HasSubstr("No such file"),
                    HasSubstr("truncate -s SIZE")));
  EXPECT_THAT(error("disks { name: \"a\" path: \"folder\" }"),
              AllOf(HasSubstr("folder' is a folder; a disk is"), HasSubstr("truncate -s SIZE")));
  ASSERT_EQ(::mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
  for (const std::string path : {"fifo", "/dev/null"}) {
    EXPECT_THAT(error("disks { name: \"a\" path: \"" + path + "\" }"),
                AllOf(HasSubstr(path + "' is neither a file nor a block device; a disk is"),
                      HasSubstr("truncate -s SIZE")));
  }
  EXPECT_THAT(error("disks { name: \"a\" path: \"odd.img\" }"),
              AllOf(HasSubstr("has 1000 bytes, which is no multiple of 512"),
                    HasSubstr("qemu-img convert -O raw")));
  EXPECT_THAT(error("disks { name: \"a\" path: \"empty.img\" }"),
              AllOf(HasSubstr("is empty"), HasSubstr("truncate -s SIZE")));
  EXPECT_THAT(error("disks { name: \"a\" path: \"a.img\" state_dir: \"none\" }"),
              HasSubstr("guest.disks[0].state_dir: there is no folder"));
  EXPECT_THAT(error("disks { name: \"a\" path: \"a.img\" }\n"
                    "disks { name: \"a\" path: \"./folder/../a.img\" }"),
              AllOf(HasSubstr("5:9: guest.disks[1].name: 'a' names another disk already"),
                    HasSubstr("5:19: guest.disks[1].path: "), HasSubstr("is disk 'a' already")));
  EXPECT_THAT(error("disks { name: \"a\" path: \"a.img\" }\n"
                    "disks { name: \"b\" path: \"link.img\" }"),
              HasSubstr("is disk 'a' already"));
  EXPECT_THAT(Errors(WithDevices("disks { name: \"a\" path: \"b.img\" }"), {.check_files = false}),
              IsEmpty());
}

// Two images of one name would have the same side files there, and each start would refuse one.
TEST_F(DeviceConfigTest, DisksDoNotShareSideFiles) {
  for (const char* folder : {"one", "two", "state"}) {
    std::filesystem::create_directory(folder_ + "/" + folder);
  }
  MakeFile("one/root.img", 1024);
  MakeFile("two/root.img", 1024);
  const auto with = [&](const std::string& more) {
    return Errors(
        WithDevices("disks { name: \"a\" path: \"one/root.img\" state_dir: \"state\" }\n"
                    "disks { name: \"b\" path: \"two/root.img\" " +
                    more + "}"));
  };
  EXPECT_THAT(
      with("state_dir: \"./state\""),
      ElementsAre(AllOf(HasSubstr("5:40: guest.disks[1].state_dir: "),
                        HasSubstr("state/root.img.romulus' is disk 'a's already: choose"))));
  EXPECT_THAT(with(""), IsEmpty());
  EXPECT_THAT(with("state_dir: \"state\" read_only: true"), IsEmpty());
}

TEST_F(DeviceConfigTest, SideFilesAreChecked) {
  MakeFile("a.img", 1024);
  std::ofstream(folder_ + "/a.img.romulus") << "nonsense";
  const std::string text = WithDevices("disks { name: \"a\" path: \"a.img\" }");
  EXPECT_THAT(Errors(text), IsEmpty()) << "by whoever opens the disk";
  EXPECT_THAT(Errors(text, {.check_stamps = true}),
              ElementsAre(AllOf(HasSubstr("4:19: guest.disks[0].path: disk \"a\" ("),
                                HasSubstr("a.img.romulus: it does not end with a checksum"),
                                HasSubstr("remove the side file"))));
  EXPECT_THAT(Errors(text, {.check_files = false, .check_stamps = true}), IsEmpty());
}

TEST_F(DeviceConfigTest, BadCardsAreNamed) {
  const auto error = [this](const std::string& nics) {
    const std::vector<std::string> errors = Errors(WithDevices(nics), {.check_files = false});
    return absl::StrJoin(errors, "\n");
  };
  const std::string mac = " mac: \"52:54:00:00:00:01\" ";
  EXPECT_EQ(error("nics { tap: \"t0\"" + mac + "}"), "");
  EXPECT_THAT(error("nics {" + mac + "}"), HasSubstr("guest.nics[0].tap: must be set"));
  EXPECT_THAT(error("nics { tap: \"t0\" }"), HasSubstr("guest.nics[0].mac: must be set"));
  EXPECT_THAT(error("nics { tap: \"0123456789abcdef\"" + mac + "}"),
              HasSubstr("has 16 characters, at most 15"));
  EXPECT_THAT(error("nics { tap: \"a/b\"" + mac + "}"), HasSubstr("cannot be the name"));
  EXPECT_THAT(error("nics { tap: \"t0\" mac: \"52:54:00:00:00\" }"),
              HasSubstr("4:18: guest.nics[0].mac: "));
  EXPECT_THAT(error("nics { tap: \"t0\" mac: \"53:54:00:00:00:01\" }"),
              HasSubstr("4:18: guest.nics[0].mac: "));  // a group's
  EXPECT_THAT(error("nics { tap: \"t0\"" + mac + "}\nnics { tap: \"t0\"" + mac + "}"),
              AllOf(HasSubstr("5:8: guest.nics[1].tap: 't0' is another card's already"),
                    HasSubstr("guest.nics[1].mac: '52:54:00:00:00:01' is another card's")));
  EXPECT_THAT(
      error("nics { tap: \"t0\"" + mac + "announce_ip: \"10.0.0.1\" announce_ip: \"10.0\" }"),
      HasSubstr("guest.nics[0].announce_ip: "));
  EXPECT_THAT(error("nics { tap: \"t0\"" + mac + "mtu: 67 }"),
              HasSubstr("guest.nics[0].mtu: 67 is out of range: 68 to 65535"));
  EXPECT_THAT(error("nics { tap: \"t0\"" + mac + "mtu: 65536 }"), HasSubstr("out of range"));
}

TEST_F(DeviceConfigTest, ThereAreAtMostEight) {
  std::string nics;
  for (int i = 0; i < 7; ++i) {
    absl::StrAppend(&nics, "nics { tap: \"t", i, "\" mac: \"52:54:00:00:00:0", i, "\" }\n");
  }
  const ConfigOptions no_files{.check_files = false};
  EXPECT_THAT(Errors(WithDevices(nics), no_files), IsEmpty());
  EXPECT_THAT(Errors(WithDevices(nics + "virtio_console: true"), no_files),
              ElementsAre(HasSubstr("10:1: guest.nics: 9 devices (0 disks, 7 nics, ")));
  EXPECT_THAT(Errors(WithDevices(nics + "virtio_console: true rng: false"), no_files), IsEmpty());
}

TEST_F(DeviceConfigTest, CpuModelsAndCapsAreJudged) {
  EXPECT_THAT(Errors(WithDevices("cpu_model: \"pentium\"")),
              ElementsAre(AllOf(HasSubstr("4:1: guest.cpu_model: unknown CPU model 'pentium'"),
                                HasSubstr("known: host, x86-64-v2, x86-64-v3"))));
  EXPECT_THAT(Errors(Solo("checkpoint { held_frames_kib: 127 disk_log_mib: 15 }\n")),
              ElementsAre(HasSubstr("held_frames_kib: 127 is out of range: 128 to 1048576"),
                          HasSubstr("disk_log_mib: 15 is out of range: 16 to 65536")));
}

TEST_F(ConfigTest, AddressesAreJudged) {
  const auto with = [&](const std::string& fields) {
    return Errors(
        "name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
        "guest { kernel: \"kernel\" }\nnodes { name: \"a\" " +
        fields + " }\n");
  };
  EXPECT_THAT(with("control_address: \"10.0.0.1:5\""),
              ElementsAre(HasSubstr("is not a loopback address")));
  EXPECT_THAT(with("control_address: \"unix://relative\""),
              ElementsAre(HasSubstr("must be absolute")));
  EXPECT_THAT(with(absl::StrCat("control_address: \"unix:///", std::string(200, 'x'), "\"")),
              ElementsAre(HasSubstr("has at most 107 bytes")));
  EXPECT_THAT(with("control_address: \"nothing\""), ElementsAre(HasSubstr("3:19: ")));
  EXPECT_THAT(with("control_address: \"localhost:5\" metrics_address: \"host:9\""),
              ElementsAre(HasSubstr("metrics_address: 'host:9' is not ip:port")));
  EXPECT_THAT(with("control_address: \"[::1]:5\" metrics_address: \"[::1]:9\""), IsEmpty());
}

TEST_F(ConfigTest, HostsHaveNoBlanksAndServersOfANodeHavePortsOfTheirOwn) {
  const auto with = [&](const std::string& fields) {
    return Errors(
        "name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
        "guest { kernel: \"kernel\" }\nnodes { name: \"a\" control_address: \"localhost:5\"\n" +
        fields + " }\n");
  };
  for (const char* host : {"host one", " h", "h ", "h\\t", "a/b", "[::1 ]", "\\303\\244"}) {
    EXPECT_THAT(
        with(absl::StrCat("replication_address: \"", host, ":7\"")),
        ElementsAre(testing::AllOf(testing::StartsWith("4:1: "), HasSubstr("replication_address"),
                                   HasSubstr("is not host:port"))))
        << host;
  }
  EXPECT_THAT(with("replication_address: \"10.0.0.1:7\"\nmetrics_address: \"10.0.0.1:7\""),
              ElementsAre(testing::AllOf(
                  testing::StartsWith("5:1: "),
                  HasSubstr("metrics_address: port 7 is replication_address's already"))));
  EXPECT_THAT(with("replication_address: \"alpha:7\"\nmetrics_address: \"0.0.0.0:7\""),
              ElementsAre(HasSubstr("metrics_address: port 7 is replication_address's")));
  EXPECT_THAT(with("replication_address: \"localhost:5\""),
              ElementsAre(HasSubstr("control_address: port 5 is replication_address's")));
  EXPECT_THAT(with("replication_address: \"10.0.0.1:7\" metrics_address: \"10.0.1.1:7\""),
              IsEmpty());
}

TEST_F(ConfigTest, NodesAreOneOrTwoAndDiffer) {
  EXPECT_THAT(Errors(std::string(kPairNodes) + kPairNodes, {.node = "beta"}),
              Contains(HasSubstr("Non-repeated field \"name\"")));
  EXPECT_THAT(Errors("name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
                     "guest { kernel: \"kernel\" }\n"),
              ElementsAre(HasSubstr("nodes: at least one")));
  std::string same = kPairNodes;
  same.replace(same.find("beta"), 4, "alpha");
  EXPECT_THAT(Errors(same, {.node = "alpha"}),
              Contains(HasSubstr("4:9: nodes[1].name: 'alpha' names another node already")));
}

TEST_F(ConfigTest, UnreadableFiles) {
  EXPECT_THAT(LoadConfig(folder_ + "/none", {}).ErrorText(), HasSubstr("No such file"));
  EXPECT_THAT(LoadConfig(folder_, {}).ErrorText(), HasSubstr("is a folder"));
  std::ofstream(path()) << std::string(2 << 20, '#');
  EXPECT_THAT(LoadConfig(path(), {}).ErrorText(), HasSubstr("is larger than"));
}

TEST_F(ConfigTest, HostileTextIsAnError) {
  std::string deep;
  for (int i = 0; i < 20000; ++i) deep += "guest {";
  EXPECT_FALSE(Parse(deep).ok());
  EXPECT_FALSE(Parse(std::string("\0\xff\xfe name", 9)).ok());
  EXPECT_FALSE(Parse("").ok());
}

TEST(Range, TunablesHaveTheirRange) {
  EXPECT_EQ(CheckRange("max_dirty_pages", 1), "");
  EXPECT_THAT(CheckRange("max_dirty_pages", 0), HasSubstr("out of range: 1 to"));
  EXPECT_EQ(CheckRange("nonsense", 1), "no such field");
}

// "4,096" in the schema's comment and 4096 in the table are one number.
TEST(Schema, RangesAreThoseOfTheCheck) {
  std::ifstream file(std::string(ROMULUS_SOURCE_DIR) + "/proto/romulus/v1/config.proto");
  std::stringstream text;
  text << file.rdbuf();
  std::string schema = text.str();
  schema.erase(std::remove(schema.begin(), schema.end(), ','), schema.end());
  for (const char* field :
       {"vcpus", "memory_mib", "ring_entries", "max_dirty_pages", "max_interval_us",
        "idle_interval_us", "staging_mib", "max_unacked_epochs", "held_output_kib",
        "held_frames_kib", "disk_log_mib", "heartbeat_interval_ms", "stall_timeout_ms",
        "pass_seconds", "epoch_records", "max_kib", "history_period_ms"}) {
    const std::string error = CheckRange(field, uint64_t{1} << 40);
    const std::string range = error.substr(error.find(": ") + 2);
    const size_t declared = schema.find(absl::StrCat(" ", field, " = "));
    ASSERT_NE(declared, std::string::npos) << field;
    const std::string comment = schema.substr(declared - std::min<size_t>(declared, 400), 400);
    EXPECT_THAT(comment, HasSubstr(range)) << field;
  }
}

TEST(Examples, AreAccepted) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(ROMULUS_SOURCE_DIR) + "/config")) {
    if (entry.path().extension() != ".textproto") continue;
    ++count;
    ConfigOptions options;
    options.check_files = false;
    const LoadedConfig first = LoadConfig(entry.path(), options);
    for (const auto& node : first.config.nodes()) {
      options.node = node.name();
      const LoadedConfig loaded = LoadConfig(entry.path(), options);
      EXPECT_TRUE(loaded.ok()) << loaded.ErrorText();
    }
  }
  EXPECT_GE(count, 2);
}

}  // namespace
}  // namespace romulus::daemon
