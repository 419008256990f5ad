// What `--get` prints: one field of a message, on one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/field_text.h"
#include "romulus/v1/config.pb.h"
#include "romulus/v1/control.pb.h"

namespace romulus::daemon {
namespace {

using ::testing::HasSubstr;

std::string Get(const google::protobuf::Message& message, absl::string_view path) {
  const absl::StatusOr<std::string> text = FieldText(message, path);
  return text.ok() ? *text : std::string(text.status().message());
}

TEST(FieldText, SaysWhatIsSet) {
  romulus::v1::GetStatusResponse status;
  status.set_mode(romulus::v1::MODE_DEGRADED);
  status.set_term(18446744073709551615u);
  status.mutable_peer()->set_connected(true);
  status.add_disks()->set_name("root");
  status.add_disks()->set_name("data");
  EXPECT_EQ(Get(status, "mode"), "MODE_DEGRADED");
  EXPECT_EQ(Get(status, "term"), "18446744073709551615");
  EXPECT_EQ(Get(status, "peer.connected"), "true");
  EXPECT_EQ(Get(status, "disks.1.name"), "data");
}

TEST(FieldText, SaysDefaultsOfWhatIsNot) {
  const romulus::v1::Config config;
  EXPECT_EQ(Get(config, "failover.heartbeat_timeout_ms"), "500");
  EXPECT_EQ(Get(config, "failover.auto_failover"), "false");
  EXPECT_EQ(Get(config, "failover.on_secondary_lost"), "ON_SECONDARY_LOST_UNSPECIFIED");
  EXPECT_EQ(Get(config, "nodes.1.name"), "");
  EXPECT_EQ(Get(config, "failover.arbiter.command.argv.0"), "");
}

TEST(FieldText, IsOneLineWhateverAPeerSays) {
  romulus::v1::GetStatusResponse status;
  status.mutable_peer()->set_detail("no\nROLE_PRIMARY\x1b[2J \"quoted\"");
  EXPECT_EQ(Get(status, "peer.detail"), "no ROLE_PRIMARY\ufffd[2J \"quoted\"");
}

TEST(FieldText, NamesWhatIsNoSingleValue) {
  const romulus::v1::GetStatusResponse status;
  for (const char* path : {"", ".", "rolle", "peer.", "peer.rolle", "role.name", "disks.x.name"}) {
    EXPECT_FALSE(FieldText(status, path).ok()) << path;
  }
  EXPECT_THAT(Get(status, "peer"), HasSubstr("peer has fields"));
  EXPECT_THAT(Get(status, "disks"), HasSubstr("disks is a list"));
  EXPECT_THAT(Get(status, "disks.-1.name"), HasSubstr("disks is a list"));
  EXPECT_THAT(Get(status, "counters.exits"), HasSubstr("exits is a map"));
  EXPECT_THAT(Get(status, "peer.rolle"), HasSubstr("'peer.rolle': rolle is no field"));
}

TEST(FieldText, LinesKeepTheOrderAskedFor) {
  romulus::v1::GetStatusResponse status;
  status.set_node_name("alpha");
  const absl::StatusOr<std::string> lines = FieldLines(status, {"role", "node_name", "role"});
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_EQ(*lines, "ROLE_UNSPECIFIED\nalpha\nROLE_UNSPECIFIED\n");
  EXPECT_FALSE(FieldLines(status, {"role", "nonsense"}).ok());
}

}  // namespace
}  // namespace romulus::daemon
