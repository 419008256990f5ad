// TLS in a configuration: who needs it, and what of it is refused, by line and field.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/config.h"
#include "daemon/config_tls.h"
#include "support/temp_folder.h"

namespace romulus::daemon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kTls[] =
    "tls { ca_file: \"ca.pem\"\ncert_file: \"{node}.pem\"\nkey_file: \"{node}.key\"\n";

class TlsConfigTest : public ::testing::Test {
 protected:
  TlsConfigTest() {
    testing::WriteAll(folder_.Path("kernel"), "x");
    const std::string command =
        absl::StrCat(ROMULUS_SOURCE_DIR "/scripts/certs ", folder_.path(), " alpha beta");
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
  LoadedConfig Parse(const std::string& alpha, const std::string& beta, const std::string& more,
                     bool check_files = true) const {
    ConfigOptions options;
    options.node = "alpha";
    options.check_files = check_files;
    return ParseConfig(
        absl::StrCat("name: \"vm1\" uuid: \"8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11\"\n"
                     "guest { kernel: \"kernel\" }\n"
                     "nodes { name: \"alpha\" control_address: \"localhost:1\"\n",
                     alpha, "}\nnodes { name: \"beta\" control_address: \"localhost:2\"\n", beta,
                     "}\n", more, "\n"),
        folder_.Path("f"), options);
  }
  // Line 4 is `alpha`, 6 is `beta`, `more` begins at 7.
  std::string Errors(const std::string& alpha, const std::string& beta, const std::string& more,
                     bool check_files = true) const {
    std::string text;
    for (const ConfigError& error : Parse(alpha, beta, more, check_files).errors) {
      absl::StrAppend(&text, error.ToString().substr(folder_.Path("f:").size()), "\n");
    }
    return text;
  }
  std::string TlsErrors(const std::string& more) const {
    return Errors("replication_address: \"10.0.0.1:7\"", "replication_address: \"10.0.0.2:7\"",
                  more);
  }

  testing::TempFolder folder_;
};

TEST_F(TlsConfigTest, PlainTextIsForLoopbackOrForWhoSaysSo) {
  const std::string a = "replication_address: \"10.0.0.1:7\"";
  const std::string b = "replication_address: \"10.0.0.2:7\"";
  const std::string secure = std::string(kTls) + "}";
  EXPECT_EQ(Errors("replication_address: \"127.0.0.1:7\"", "replication_address: \"[::1]:8\"", ""),
            "");
  EXPECT_EQ(
      Errors("replication_address: \"localhost:7\"", "replication_address: \"127.9.0.1:8\"", ""),
      "");
  EXPECT_THAT(Errors(a, b, ""),
              AllOf(HasSubstr("4:1: nodes[0].replication_address: '10.0.0.1:7' is not a loopback "
                              "address: needs `tls { }`, or `insecure: true`"),
                    HasSubstr("6:1: nodes[1].replication_address: ")));
  EXPECT_THAT(
      Errors("replication_address: \"localhost:7\"", "replication_address: \"host-b:8\"", ""),
      HasSubstr("6:1: nodes[1].replication_address: 'host-b:8' is not a loopback"));
  EXPECT_EQ(Errors(a, b, "insecure: true"), "");
  EXPECT_EQ(Errors(a, b, secure), "");
  EXPECT_THAT(Errors(a, b, secure + " insecure: true"),
              HasSubstr("10:3: insecure: contradicts tls"));
  const std::string with = "replication_address: \"localhost:7\" heartbeat_address: \"";
  EXPECT_THAT(Errors(with + "10.0.0.1:9\"", with + "10.0.0.2:9\"", ""),
              HasSubstr("nodes[0].heartbeat_address: '10.0.0.1:9' is not a loopback"));
}

TEST_F(TlsConfigTest, FilesAreThisNodesAndAreJudged) {
  const LoadedConfig loaded = Parse("replication_address: \"10.0.0.1:7\"",
                                    "replication_address: \"10.0.0.2:7\"", std::string(kTls) + "}");
  ASSERT_TRUE(loaded.ok()) << loaded.ErrorText();
  EXPECT_EQ(TlsFilesOf(loaded.config.tls()).key_file, folder_.Path("alpha.key"));

  EXPECT_THAT(TlsErrors("tls { ca_file: \"ca.pem\" }"),
              AllOf(HasSubstr("7:1: tls.cert_file: must be set"),
                    HasSubstr("7:1: tls.key_file: must be set")));
  const auto with = [&](const char* ca, const char* cert, const char* key) {
    return TlsErrors(absl::StrCat("tls {\nca_file: \"", ca, "\"\ncert_file: \"", cert,
                                  "\"\nkey_file: \"", key, "\" }"));
  };
  EXPECT_THAT(with("none.pem", "alpha.pem", "alpha.key"),
              AllOf(HasSubstr("8:1: tls.ca_file: cannot use '"), HasSubstr("No such file")));
  EXPECT_THAT(with("kernel", "alpha.pem", "alpha.key"),
              HasSubstr("8:1: tls.ca_file: '" + folder_.Path("kernel") + "' has no certificate"));
  EXPECT_THAT(with("ca.pem", "beta.pem", "beta.key"),
              HasSubstr("9:1: tls.cert_file: the certificate in '"));
  EXPECT_THAT(with("ca.pem", "alpha.pem", "beta.key"),
              HasSubstr("10:1: tls.key_file: the key in '" + folder_.Path("beta.key") +
                        "' is not that of the certificate"));
  ::chmod(folder_.Path("alpha.key").c_str(), 0644);
  EXPECT_THAT(with("ca.pem", "alpha.pem", "alpha.key"), HasSubstr("`chmod o-rwx` it"));
  EXPECT_EQ(Errors("replication_address: \"h:7\"", "replication_address: \"i:7\"",
                   "tls { ca_file: \"/x\" cert_file: \"/y\" key_file: \"/z\" }",
                   /*check_files=*/false),
            "");
}

TEST_F(TlsConfigTest, RemoteControlIsForNamesOnly) {
  const std::string a = "replication_address: \"localhost:7\" remote_control_address: \"";
  const std::string b = "replication_address: \"localhost:8\"";
  const auto with = [&](const std::string& address, const std::string& more) {
    return Errors(a + address + "\"", b, more);
  };
  EXPECT_EQ(with("10.0.0.1:9", std::string(kTls) + "admins: \"ops\" }"), "");
  EXPECT_EQ(with("10.0.0.1:9", std::string(kTls) + "read_only: \"a\" read_only: \"b\" }"), "");
  EXPECT_THAT(with("10.0.0.1:9", ""),
              HasSubstr("4:36: nodes[0].remote_control_address: needs `tls { }`"));
  EXPECT_THAT(with("10.0.0.1:9", "insecure: true"), HasSubstr("needs `tls { }`"));
  EXPECT_THAT(with("10.0.0.1:9", std::string(kTls) + "}"), HasSubstr("nobody may use it"));
  EXPECT_THAT(with("nowhere", std::string(kTls) + "admins: \"ops\" }"),
              HasSubstr("'nowhere' is not host:port"));
  EXPECT_THAT(with("localhost:7", std::string(kTls) + "admins: \"ops\" }"),
              HasSubstr("remote_control_address: port 7 is replication_address's already"));
  EXPECT_THAT(with("10.0.0.1:9", std::string(kTls) + "admins: \"o ps\" }"),
              HasSubstr("10:1: tls.admins: must be a letter"));
  std::string many(kTls);
  for (int i = 0; i < 65; ++i) absl::StrAppend(&many, "read_only: \"n", i, "\" ");
  EXPECT_THAT(with("10.0.0.1:9", many + "}"), HasSubstr("tls: more than 64 names"));
}

}  // namespace
}  // namespace romulus::daemon
