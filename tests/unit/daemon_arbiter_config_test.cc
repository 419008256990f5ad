// The arbiter in a configuration: what is refused, by line and field, and what is made of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "daemon/asio_executor.h"
#include "daemon/config.h"
#include "daemon/make_arbiter.h"
#include "support/temp_folder.h"

namespace romulus::daemon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const failover::ArbiterIdentity kSelf = {"vm1", "uuid", "alpha", "beta", "b"};

class ArbiterConfigTest : public ::testing::Test {
 protected:
  ArbiterConfigTest() {
    testing::WriteAll(folder_.Path("kernel"), "x");
    for (const char* name : {"ca.pem", "alpha.pem", "alpha.key"}) {
      testing::WriteAll(folder_.Path(name), "-----BEGIN X-----\n");
    }
    testing::WriteAll(folder_.Path("password"), "secret\n");
    testing::WriteAll(folder_.Path("fence-alpha"), "#!/bin/sh\nexit 0\n");
    ::chmod(folder_.Path("fence-alpha").c_str(), 0700);
    for (const char* name : {"alpha.key", "password"}) ::chmod(folder_.Path(name).c_str(), 0640);
  }
  // What stands in arbiter { }, from line 6 on.
  LoadedConfig Parse(const std::string& arbiter, bool check_files = true,
                     const std::string& node = "alpha") const {
    ConfigOptions options;
    options.node = node;
    options.check_files = check_files;
    return ParseConfig(
        "name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
        "guest { kernel: \"kernel\" } insecure: true\n"
        "nodes { name: \"alpha\" control_address: \"localhost:1\" replication_address: \"h:1\" }\n"
        "nodes { name: \"beta\" control_address: \"localhost:2\" replication_address: \"h:3\" }\n"
        "failover { arbiter {\n" +
            arbiter + "\n} }\n",
        folder_.Path("vm.textproto"), options);
  }
  std::string Errors(const std::string& arbiter, bool check_files = true) const {
    std::string text;
    for (const ConfigError& error : Parse(arbiter, check_files).errors) {
      absl::StrAppend(&text, error.ToString().substr(folder_.Path("vm.textproto:").size()), "\n");
    }
    return text;
  }
  std::string Etcd(const std::string& more) const {
    return Errors("etcd { endpoints: \"10.0.0.3:2379\"\n" + more + " }");
  }

  testing::TempFolder folder_;
};

TEST_F(ArbiterConfigTest, EachKindIsMade) {
  AsioExecutor loop(/*own_thread=*/false);
  EXPECT_EQ(Errors("none { }"), "");
  absl::StatusOr<std::unique_ptr<failover::Arbiter>> made =
      MakeArbiter(Parse("none { }"), kSelf, &loop, nullptr);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(*made, nullptr);
  EXPECT_EQ(ArbiterTimeout(Parse("none { }").config), absl::ZeroDuration());

  const std::string command = "command { argv: \"fence-{node}\" argv: \"--off\" timeout_ms: 7000 }";
  EXPECT_EQ(Errors(command), "");
  EXPECT_EQ(Parse(command).config.failover().arbiter().command().argv(0),
            folder_.Path("fence-alpha"));
  EXPECT_EQ(ArbiterTimeout(Parse(command).config), absl::Seconds(7));
  made = MakeArbiter(Parse(command), kSelf, &loop, nullptr);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_NE(*made, nullptr);

  const std::string etcd =
      "etcd { endpoints: [\"10.0.0.3:2379\", \"[fd00::3]:2379\", \"etcd.example:2379\"]\n"
      "tls { ca_file: \"ca.pem\" cert_file: \"{node}.pem\" key_file: \"{node}.key\" }\n"
      "user: \"romulus\" password_file: \"password\" cluster_id: 14841639068965178418 }";
  EXPECT_EQ(Errors(etcd), "");
  EXPECT_EQ(ArbiterTimeout(Parse(etcd).config), absl::Seconds(5));
  EXPECT_EQ(Parse(etcd).config.failover().arbiter().etcd().tls().key_file(),
            folder_.Path("alpha.key"));
  made = MakeArbiter(Parse(etcd), kSelf, &loop, nullptr);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_NE(*made, nullptr);
}

TEST_F(ArbiterConfigTest, OneKindMustBeNamed) {
  EXPECT_THAT(Errors(""), HasSubstr("5:12: failover.arbiter: says nothing"));
  EXPECT_THAT(Errors("none { }\ncommand { argv: \"fence-alpha\" }"), HasSubstr("7:"));
  ConfigOptions options;
  options.check_files = false;
  const LoadedConfig one = ParseConfig(
      "name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
      "guest { kernel: \"kernel\" }\n"
      "nodes { name: \"alpha\" control_address: \"localhost:1\" }\n"
      "failover { arbiter { command { argv: \"/x\" } } }\n",
      "f", options);
  EXPECT_THAT(one.ErrorText(), HasSubstr("f:4:12: failover.arbiter: contradicts a single node"));
}

TEST_F(ArbiterConfigTest, ACommandMustBeOneThatCanBeRun) {
  EXPECT_THAT(Errors("command { }"), HasSubstr("6:1: failover.arbiter.command.argv: must be set"));
  EXPECT_THAT(Errors("command { argv: \"none\" }"),
              AllOf(HasSubstr("6:11: failover.arbiter.command.argv: cannot use"),
                    HasSubstr("No such file")));
  EXPECT_EQ(Errors("command { argv: \"none\" }", /*check_files=*/false), "");
  EXPECT_THAT(Errors("command { argv: \"\" }"), HasSubstr("must not be empty"));
  EXPECT_THAT(Errors("command { argv: \"kernel\" }"), HasSubstr("Permission denied"));
  EXPECT_THAT(Errors("command { argv: \".\" }"), HasSubstr("is not a file"));
  EXPECT_THAT(Errors("command { argv: \"fence-alpha\"\nargv: \"a\\000b\" }"),
              HasSubstr("7:1: failover.arbiter.command.argv: has a zero byte"));
  EXPECT_THAT(Errors("command { argv: \"fence-alpha\"\ntimeout_ms: 99 }"),
              HasSubstr("7:1: failover.arbiter.command.timeout_ms: 99 is out of range: 100 to "
                        "600000"));
  EXPECT_THAT(Errors("command { argv: \"fence-alpha\" timeout_ms: 600001 }"),
              HasSubstr("out of range"));
  EXPECT_THAT(Errors("command { argv: \"fence-alpha\" delay_ms: 60001 }"),
              HasSubstr("command.delay_ms: 60001 is more than 60000"));
  std::string many = "command { argv: \"fence-alpha\"";
  for (int i = 0; i < 32; ++i) many += " argv: \"a\"";
  EXPECT_THAT(Errors(many + " }"), HasSubstr("33 words, at most 32"));
}

// Two that lose each other at the same moment do not fence each other.
TEST_F(ArbiterConfigTest, OnlyTheSecondNodeWaitsBeforeItFences) {
  const std::string command = "command { argv: \"fence-alpha\" delay_ms: 300 }";
  EXPECT_EQ(ArbiterDelay(Parse(command)), absl::ZeroDuration());
  EXPECT_EQ(ArbiterDelay(Parse(command, true, "beta")), absl::Milliseconds(300));
  EXPECT_EQ(ArbiterDelay(Parse("command { argv: \"fence-alpha\" }", true, "beta")),
            absl::Seconds(1));
  EXPECT_EQ(ArbiterDelay(Parse("etcd { endpoints: \"h:1\" }", true, "beta")), absl::ZeroDuration());
}

TEST_F(ArbiterConfigTest, WhatTheArbiterDecidesIsNotSetBesideIt) {
  // Beside the arbiter; the last two braces close the console.
  const auto beside = [this](const std::string& arbiter, const std::string& more) {
    return Errors(arbiter + " } " + more + " } console { stdout {");
  };
  const std::string etcd = "etcd { endpoints: \"h:1\" }";
  for (const std::string value : {"SOLO", "HOLD"}) {
    EXPECT_THAT(beside(etcd, "on_secondary_lost: ON_SECONDARY_LOST_" + value),
                HasSubstr("failover.on_secondary_lost: contradicts arbiter"));
  }
  EXPECT_EQ(beside(etcd, "stay_fenced: true"), "");
  EXPECT_THAT(beside("none { }", "stay_fenced: true"),
              HasSubstr("failover.stay_fenced: needs an etcd arbiter"));
}

TEST_F(ArbiterConfigTest, EndpointsAreHostsAndPorts) {
  EXPECT_EQ(Etcd(""), "");
  EXPECT_THAT(Errors("etcd { }"), HasSubstr("6:1: failover.arbiter.etcd.endpoints: must be set"));
  EXPECT_THAT(Etcd("endpoints: \"https://h:2379\""),
              HasSubstr("7:1: failover.arbiter.etcd.endpoints: 'https://h:2379': write host:port"));
  for (const char* bad : {"h", "h:0", "h:70000", ":2379", "h:2379/x", "unix:/x"}) {
    EXPECT_THAT(Etcd(absl::StrCat("endpoints: \"", bad, "\"")), HasSubstr("is not host:port"));
  }
  EXPECT_THAT(Etcd("endpoints: \"10.0.0.3:2379\""), HasSubstr("is there twice"));
  std::string many;
  for (int i = 1; i <= 16; ++i) absl::StrAppend(&many, "endpoints: \"h:", i, "\" ");
  EXPECT_THAT(Etcd(many), HasSubstr("17 endpoints, at most 16"));
}

TEST_F(ArbiterConfigTest, ContradictionsOfEtcdAreNamed) {
  EXPECT_THAT(Etcd("timeout_ms: 60001"),
              HasSubstr("7:1: failover.arbiter.etcd.timeout_ms: 60001 is out of range: 100 to "
                        "60000"));
  for (const char* prefix : {"", "x/", "/x", "/x y/", "/x\\001/"}) {
    EXPECT_THAT(Etcd(absl::StrCat("prefix: \"", prefix, "\"")),
                HasSubstr("7:1: failover.arbiter.etcd.prefix: must begin and end"));
  }
  EXPECT_THAT(Etcd(absl::StrCat("prefix: \"/", std::string(127, 'x'), "/\"")),
              HasSubstr("at most 128"));
  EXPECT_THAT(Etcd("cluster_id: 0"), HasSubstr("etcd.cluster_id: is no cluster's"));
  EXPECT_THAT(Etcd("user: \"u\""), HasSubstr("etcd.user: contradicts a missing password_file"));
  EXPECT_THAT(Etcd("password_file: \"password\""),
              HasSubstr("etcd.password_file: contradicts a missing user"));
  EXPECT_THAT(Etcd("user: \"\" password_file: \"password\""), HasSubstr("must not be empty"));
  EXPECT_EQ(Etcd("tls { }"), "");
  EXPECT_THAT(
      Etcd("tls { cert_file: \"alpha.pem\" }"),
      HasSubstr("7:7: failover.arbiter.etcd.tls.cert_file: contradicts a missing key_file"));
  EXPECT_THAT(
      Etcd("tls { key_file: \"alpha.key\" }"),
      HasSubstr("7:7: failover.arbiter.etcd.tls.key_file: contradicts a missing cert_file"));
  EXPECT_THAT(Etcd("tls { ca_file: \"none\" }"),
              HasSubstr("7:7: failover.arbiter.etcd.tls.ca_file: cannot use"));
  EXPECT_THAT(Etcd("user: \"u\" password_file: \"none\""), HasSubstr("No such file"));
  ::chmod(folder_.Path("password").c_str(), 0644);
  ::chmod(folder_.Path("alpha.key").c_str(), 0604);
  EXPECT_THAT(Etcd("user: \"u\" password_file: \"password\""),
              HasSubstr("etcd.password_file: '" + folder_.Path("password") + "' is open"));
  EXPECT_THAT(Etcd("tls { cert_file: \"alpha.pem\" key_file: \"alpha.key\" }"),
              HasSubstr("tls.key_file: '"));
}

}  // namespace
}  // namespace romulus::daemon
