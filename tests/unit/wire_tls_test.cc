// Certificates and keys as a node reads them: what is refused and how it is said, and what a change
// of the files does. scripts/certs makes them, as an administrator does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "support/temp_folder.h"
#include "wire/tls.h"

namespace romulus::wire {
namespace {

using romulus::testing::ReadAll;
using romulus::testing::TempFolder;
using romulus::testing::WriteAll;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

class TlsTest : public ::testing::Test, public TlsListener {
 protected:
  TlsTest() { Certs("ca", "alpha beta"); }
  // FOLDER/ca.pem, FOLDER/alpha.pem, ...
  void Certs(const std::string& folder, const std::string& names) {
    Run(absl::StrCat(ROMULUS_SOURCE_DIR "/scripts/certs ", folder_.Path(folder), " ", names));
  }
  static void Run(const std::string& command) {
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  TlsFiles Files(const std::string& name) const {
    return {.ca_file = folder_.Path("ca/ca.pem"),
            .cert_file = folder_.Path(absl::StrCat("ca/", name, ".pem")),
            .key_file = folder_.Path(absl::StrCat("ca/", name, ".key"))};
  }
  void Copy(const std::string& from, const std::string& to) const {
    std::filesystem::copy_file(folder_.Path(from), folder_.Path(to),
                               std::filesystem::copy_options::overwrite_existing);
  }
  std::string Error(const TlsFiles& files, absl::string_view name = "alpha") const {
    const auto read = ReadTlsFiles(files, name);
    return read.ok() ? "" : std::string(read.status().message());
  }

  void OnTlsRefused(TlsRefusal why, const std::string& from, const std::string&) override {
    std::lock_guard lock(mutex_);
    told_.push_back(
        absl::StrCat("refused ", kTlsRefusalNames[static_cast<size_t>(why)], " ", from));
  }
  void OnTlsReloaded(const TlsMaterial&) override { reloaded_ = true; }
  void OnTlsReloadFailed(const absl::Status& why) override {
    std::lock_guard lock(mutex_);
    told_.push_back(std::string(why.message()));
    if (!failed_.HasBeenNotified()) failed_.Notify();
  }
  std::vector<std::string> told() {
    std::lock_guard lock(mutex_);
    return told_;
  }

  TempFolder folder_;
  std::mutex mutex_;
  std::vector<std::string> told_;
  std::atomic<bool> reloaded_{false};
  absl::Notification failed_;
};

TEST_F(TlsTest, GoodFilesAreTaken) {
  const auto read = ReadTlsFiles(Files("alpha"), "Alpha");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->ca, ReadAll(folder_.Path("ca/ca.pem")));
  EXPECT_GT(read->expires_unix_s, absl::ToUnixSeconds(absl::Now() + absl::Hours(24 * 800)));
  EXPECT_LT(read->expires_unix_s, absl::ToUnixSeconds(absl::Now() + absl::Hours(24 * 900)));
  EXPECT_EQ(Error(Files("beta"), ""), "");
}

TEST_F(TlsTest, BadOnesAreRefusedByNameAndWithARemedy) {
  TlsFiles files = Files("alpha");
  files.ca_file = folder_.Path("none");
  EXPECT_THAT(Error(files), AllOf(HasSubstr("/none'"), HasSubstr("No such file")));
  for (const char* bad : {"", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"}) {
    WriteAll(folder_.Path("bad"), bad);
    for (std::string* path : {&files.ca_file, &files.cert_file, &files.key_file}) {
      files = Files("alpha");
      *path = folder_.Path("bad");
      EXPECT_THAT(Error(files), AllOf(HasSubstr("/bad' has no "), HasSubstr("in PEM"))) << bad;
    }
  }
  // A good certificate does not make up for a broken one behind it.
  WriteAll(folder_.Path("bad"), ReadAll(folder_.Path("ca/ca.pem")) +
                                    "-----BEGIN CERTIFICATE-----\nAAAA\n"
                                    "-----END CERTIFICATE-----\n");
  files = Files("alpha");
  files.ca_file = folder_.Path("bad");
  EXPECT_THAT(Error(files), HasSubstr("/bad' has no certificate, or a broken one"));

  files = Files("alpha");
  files.key_file = Files("beta").key_file;
  EXPECT_THAT(Error(files), AllOf(HasSubstr("beta.key' is not that of"), HasSubstr("alpha.pem'")));
  EXPECT_THAT(Error(Files("beta")),
              AllOf(HasSubstr("beta.pem' does not have the DNS name 'alpha'"),
                    HasSubstr("but beta: have one signed with subjectAltName=DNS:alpha")));

  files = Files("alpha");
  files.key_file = folder_.Path("locked");
  Run(absl::StrCat("openssl ec -aes256 -passout pass:x -in ", Files("alpha").key_file, " -out ",
                   files.key_file, " 2> /dev/null"));
  EXPECT_THAT(Error(files), AllOf(HasSubstr("/locked'"), HasSubstr("without a password")));
}

TEST_F(TlsTest, ItsTimeMustHaveComeAndNotBeOver) {
  const auto sign = [&](const std::string& days) {
    Run(absl::StrCat(
        "cd ", folder_.Path("ca"), " && openssl req -new -key alpha.key -subj /CN=alpha ",
        "-addext subjectAltName=DNS:alpha -out r 2> /dev/null && openssl x509 -req -in r ",
        "-copy_extensions copyall -CA ca.pem -CAkey ca.key -days ", days,
        " -set_serial 7 -out alpha.pem 2> /dev/null"));
  };
  sign("1");
  EXPECT_EQ(Error(Files("alpha")), "");
  sign("-1");
  EXPECT_THAT(Error(Files("alpha")),
              AllOf(HasSubstr("alpha.pem' expired at 20"), HasSubstr("have a new one signed")));
  // Only this command can say when it begins.
  WriteAll(folder_.Path("ca/config"),
           "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nrand_serial = yes\n"
           "new_certs_dir = .\ndefault_md = sha256\npolicy = p\ncopy_extensions = copy\n"
           "[p]\ncommonName = supplied\n");
  Run(absl::StrCat("cd ", folder_.Path("ca"),
                   " && touch index && openssl ca -batch -notext -config config -cert ca.pem ",
                   "-keyfile ca.key -startdate 20990101000000Z ",
                   "-enddate 20990102000000Z -in r -out alpha.pem 2> /dev/null"));
  EXPECT_THAT(Error(Files("alpha")), AllOf(HasSubstr("is not valid before 2099-01-01T00:00:00Z"),
                                           HasSubstr("is this host's clock right?")));
}

TEST_F(TlsTest, TrustGoesByWayOfOtherCAsAndEndsAtAnyThatIsNamed) {
  const std::string in_ca = absl::StrCat("cd ", folder_.Path("ca"), " && ");
  const auto sign = [&](const std::string& name, const std::string& ca, const std::string& days,
                        const std::string& extension) {
    Run(absl::StrCat(in_ca, "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 ",
                     "-noenc -subj /CN=", name, " -keyout ", name, ".key -out r 2> /dev/null && ",
                     "echo '", extension, "' > e && openssl x509 -req -in r -CA ", ca,
                     ".pem -CAkey ", ca, ".key -days ", days, " -set_serial 7 -extfile e -out ",
                     name, ".pem 2> /dev/null"));
    return ReadAll(folder_.Path(absl::StrCat("ca/", name, ".pem")));
  };
  auto material = ReadTlsFiles(Files("alpha"), "alpha");
  ASSERT_TRUE(material.ok());
  const std::string between = sign("between", "ca", "2", "basicConstraints = critical,CA:TRUE");
  const std::string leaf = sign("leaf", "between", "2", "subjectAltName = DNS:leaf");
  EXPECT_TRUE(StillTrusted(*material, leaf + between).ok());
  EXPECT_TRUE(StillTrusted(*material, leaf + leaf + between).ok());
  EXPECT_FALSE(StillTrusted(*material, leaf).ok());
  // A leaf signs nobody.
  const std::string impostor = sign("impostor", "leaf", "2", "subjectAltName = DNS:beta");
  EXPECT_FALSE(StillTrusted(*material, impostor + leaf + between).ok());
  // What an end is told to trust need not be a root.
  TlsMaterial only = *material;
  only.ca = between;
  EXPECT_TRUE(StillTrusted(only, leaf).ok());
  EXPECT_FALSE(StillTrusted(only, ReadAll(Files("beta").cert_file)).ok());
  EXPECT_TRUE(StillTrusted(*material, sign("over", "ca", "-1", "subjectAltName = DNS:over")).ok());
}

TEST_F(TlsTest, TrustIsTheCAsAndOutlivesTheTimeOfACertificate) {
  const auto alpha = ReadTlsFiles(Files("alpha"), "alpha");
  ASSERT_TRUE(alpha.ok());
  const std::string beta = ReadAll(Files("beta").cert_file);
  EXPECT_TRUE(StillTrusted(*alpha, beta).ok());
  // A leaf that is there twice, as gRPC gives it.
  EXPECT_TRUE(StillTrusted(*alpha, beta + beta).ok());
  EXPECT_FALSE(StillTrusted(*alpha, "").ok());
  EXPECT_FALSE(StillTrusted(*alpha, "no PEM").ok());
  // Of the same name, but another.
  Certs("other", "beta");
  EXPECT_FALSE(StillTrusted(*alpha, ReadAll(folder_.Path("other/beta.pem"))).ok());
  TlsMaterial both = *alpha;
  both.ca += ReadAll(folder_.Path("other/ca.pem"));
  EXPECT_TRUE(StillTrusted(both, beta).ok());
  EXPECT_TRUE(StillTrusted(both, ReadAll(folder_.Path("other/beta.pem"))).ok());
}

TEST_F(TlsTest, AChangeIsTakenOverAndABadOneIsNot) {
  auto identity = TlsIdentity::Open(Files("alpha"), "alpha", this);
  ASSERT_TRUE(identity.ok()) << identity.status();
  const std::string first = (*identity)->current()->cert;
  std::mutex mutex;
  std::vector<TlsMaterial> heard;
  absl::Notification renewed, replaced;
  auto subscription = (*identity)->Subscribe([&](const TlsMaterial& now) {
    std::lock_guard lock(mutex);
    heard.push_back(now);
    if (heard.size() == 1) renewed.Notify();
    if (heard.size() == 2) replaced.Notify();
  });
  Certs("ca", "alpha");
  ASSERT_TRUE(renewed.WaitForNotificationWithTimeout(kPatience));
  EXPECT_NE((*identity)->current()->cert, first);
  EXPECT_EQ((*identity)->current()->cert, ReadAll(Files("alpha").cert_file));
  EXPECT_TRUE(reloaded_);
  // The CAs count although the key does not belong to the certificate any more.
  Certs("other", "alpha");
  Copy("other/alpha.key", "ca/alpha.key");
  Copy("other/ca.pem", "ca/ca.pem");
  ASSERT_TRUE(replaced.WaitForNotificationWithTimeout(kPatience));
  ASSERT_TRUE(failed_.WaitForNotificationWithTimeout(kPatience));
  EXPECT_THAT(told(), ::testing::ElementsAre(HasSubstr("alpha.key' is not that of")));
  std::lock_guard lock(mutex);
  EXPECT_EQ(heard[1].ca, ReadAll(folder_.Path("other/ca.pem")));
  EXPECT_EQ(heard[1].cert, heard[0].cert);
  EXPECT_EQ(heard[1].key, heard[0].key);
}

TEST_F(TlsTest, RefusalsAreCountedEachAndToldNowAndThen) {
  auto identity = TlsIdentity::Open(Files("alpha"), "alpha", this);
  ASSERT_TRUE(identity.ok()) << identity.status();
  for (int i = 0; i < 5; ++i) (*identity)->Refused(TlsRefusal::kPlainText, "here", "");
  (*identity)->Refused(TlsRefusal::kWrongName, "there", "");
  EXPECT_EQ((*identity)->refused(TlsRefusal::kPlainText), 5u);
  EXPECT_EQ((*identity)->refused(TlsRefusal::kWrongName), 1u);
  EXPECT_EQ((*identity)->refused(TlsRefusal::kOther), 0u);
  EXPECT_THAT(told(),
              ::testing::ElementsAre("refused plain_text here", "refused wrong_name there"));
}

}  // namespace
}  // namespace romulus::wire
