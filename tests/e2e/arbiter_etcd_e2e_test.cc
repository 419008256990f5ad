// The etcd arbiter and real etcd servers, which are killed, frozen and started again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "arbiter/etcd_arbiter.h"
#include "support/arbiter_asker.h"
#include "support/etcd_cluster.h"

namespace romulus::arbiter {
namespace {

using failover::ArbiterAnswer;
using failover::Verdict;
using testing::ArbiterAsker;
using testing::ArbiterNode;
using testing::EtcdCluster;
using ::testing::HasSubstr;

// Longer than an election, which is half a second.
constexpr absl::Duration kNoQuorum = absl::Seconds(3);

class EtcdE2eTest : public ::testing::Test {
 protected:
  void MakeCluster(int members, bool tls = false) {
    cluster_ = std::make_unique<EtcdCluster>(members, tls);
    options_.endpoints = cluster_->Endpoints();
    if (!tls) return;
    options_.tls = true;
    options_.ca_file = cluster_->Path("ca.pem");
    options_.cert_file = cluster_->Path("client.pem");
    options_.key_file = cluster_->Path("client.key");
  }
  static std::unique_ptr<ArbiterAsker> Ask(const EtcdOptions& options,
                                           const std::string& node = "alpha") {
    return std::make_unique<ArbiterAsker>([&](base::Executor* executor) {
      return MakeEtcdArbiter(options, ArbiterNode(node), executor);
    });
  }
  void TearDown() override {
    if (HasFailure() && cluster_) std::fprintf(stderr, "%s\n", cluster_->Logs().c_str());
  }
  void Race(int rounds);

  std::unique_ptr<EtcdCluster> cluster_;
  EtcdOptions options_;
};

void EtcdE2eTest::Race(int rounds) {
  auto alpha = Ask(options_, "alpha");
  EtcdOptions reversed = options_;
  std::reverse(reversed.endpoints.begin(), reversed.endpoints.end());
  auto beta = Ask(reversed, "beta");
  uint64_t from = 0;
  int won[2] = {0, 0};
  for (int i = 1; i <= rounds; ++i) {
    const uint64_t a_term = 16 * static_cast<uint64_t>(i);
    auto a = alpha->Begin({failover::ClaimAction::kSolo, Term(from), Term(a_term), Term()});
    auto b = beta->Begin(
        {failover::ClaimAction::kPromote, Term(from), Term(a_term + 1), Term(a_term + 1)});
    const ArbiterAnswer answers[] = {a.Await(), b.Await()};
    const bool yes[] = {answers[0].verdict == Verdict::kYes, answers[1].verdict == Verdict::kYes};
    ASSERT_NE(yes[0], yes[1]) << answers[0].detail << " / " << answers[1].detail;
    ASSERT_EQ(answers[yes[0] ? 1 : 0].verdict, Verdict::kNo) << answers[yes[0] ? 1 : 0].detail;
    ASSERT_EQ(answers[0].record, answers[1].record);
    ASSERT_EQ(answers[0].record.holder, yes[0] ? "alpha" : "beta");
    from = answers[0].record.term.value();
    ASSERT_EQ(from, yes[0] ? a_term : a_term + 1);
    ++won[yes[0] ? 0 : 1];
  }
  std::printf("%d rounds: alpha won %d, beta %d\n", rounds, won[0], won[1]);
}

TEST_F(EtcdE2eTest, P3_OfTwoClaimsOneWinsAtOneMember) {
  MakeCluster(1);
  Race(200);
}

TEST_F(EtcdE2eTest, P3_OfTwoClaimsOneWinsAtThreeMembers) {
  MakeCluster(3);
  Race(200);
}

TEST_F(EtcdE2eTest, AMinorityMayDieAMajorityIsSilenceUntilItIsBack) {
  MakeCluster(3);
  auto alpha = Ask(options_, "alpha");
  ASSERT_EQ(alpha->Claim(0, 16).verdict, Verdict::kYes);
  cluster_->Kill(0);
  ArbiterAnswer answer = alpha->Claim(16, 32);
  EXPECT_EQ(answer.verdict, Verdict::kYes) << answer.detail;
  cluster_->Kill(1);
  answer = alpha->Claim(32, 48, kNoQuorum);
  EXPECT_EQ(answer.verdict, Verdict::kSilent);
  EXPECT_THAT(answer.detail, HasSubstr(cluster_->Endpoint(2)));
  EXPECT_EQ(alpha->Read(kNoQuorum).verdict, Verdict::kSilent);
  cluster_->Start(1);
  // It may have taken effect with the majority's return, or not: the same claim again is a yes.
  EXPECT_EQ(alpha->Claim(32, 48).verdict, Verdict::kYes);
  EXPECT_EQ(Ask(options_, "beta")->Claim(32, 49).verdict, Verdict::kNo);
  // All three die, and know it when they are back.
  cluster_->Start(0);
  for (int i = 0; i < 3; ++i) cluster_->Kill(i);
  EXPECT_EQ(alpha->Read(ArbiterAsker::kShort).verdict, Verdict::kSilent);
  for (int i = 0; i < 3; ++i) cluster_->Start(i);
  answer = alpha->Read();
  EXPECT_EQ(answer.verdict, Verdict::kYes);
  EXPECT_EQ(answer.record.term, Term(48));
  EXPECT_EQ(answer.record.holder, "alpha");
}

TEST_F(EtcdE2eTest, AFrozenMemberIsSilenceUntilItGoesOn) {
  MakeCluster(1);
  auto alpha = Ask(options_);
  ASSERT_EQ(alpha->Claim(0, 16).verdict, Verdict::kYes);
  cluster_->Signal(0, SIGSTOP);
  const ArbiterAnswer answer = alpha->Claim(16, 32, ArbiterAsker::kShort);
  EXPECT_EQ(answer.verdict, Verdict::kSilent);
  cluster_->Signal(0, SIGCONT);
  EXPECT_EQ(alpha->Claim(16, 32).verdict, Verdict::kYes);
}

TEST_F(EtcdE2eTest, AFrozenMemberOfThreeIsPassedOver) {
  MakeCluster(3);
  auto alpha = Ask(options_);
  ASSERT_EQ(alpha->Claim(0, 16).verdict, Verdict::kYes);
  // Leader or not, and whichever was asked first.
  for (int i = 0; i < 3; ++i) {
    cluster_->Signal(i, SIGSTOP);
    const uint64_t from = 16 + 16 * static_cast<uint64_t>(i);
    const ArbiterAnswer answer = alpha->Claim(from, from + 16, absl::Seconds(30));
    EXPECT_EQ(answer.verdict, Verdict::kYes) << answer.detail;
    cluster_->Signal(i, SIGCONT);
  }
}

TEST_F(EtcdE2eTest, TlsProvesBothSides) {
  MakeCluster(1, /*tls=*/true);
  const ArbiterAnswer first = Ask(options_)->Claim(0, 16);
  EXPECT_EQ(first.verdict, Verdict::kYes) << first.detail;
  cluster_->MakeCa("other");
  cluster_->MakeCertificate("stranger", "/CN=romulus", "other");
  EtcdOptions no_certificate = options_;
  no_certificate.cert_file = no_certificate.key_file = "";
  EtcdOptions stranger = options_;
  stranger.cert_file = cluster_->Path("stranger.pem");
  stranger.key_file = cluster_->Path("stranger.key");
  EtcdOptions strange_ca = options_;
  strange_ca.ca_file = cluster_->Path("other.pem");
  EtcdOptions plain;
  plain.endpoints = options_.endpoints;
  for (const EtcdOptions& options : {no_certificate, stranger, strange_ca, plain}) {
    const ArbiterAnswer answer = Ask(options)->Claim(16, 32, ArbiterAsker::kShort);
    EXPECT_EQ(answer.verdict, Verdict::kSilent);
    std::printf("%s\n", answer.detail.c_str());
  }
  const ArbiterAnswer last = Ask(options_)->Claim(16, 32);
  EXPECT_EQ(last.verdict, Verdict::kYes) << last.detail;
}

TEST_F(EtcdE2eTest, AUserNeedsThePasswordAndTheKey) {
  MakeCluster(1);
  ASSERT_EQ(Ask(options_)->Claim(0, 16).verdict, Verdict::kYes);
  const std::vector<std::vector<std::string>> commands = {
      {"user", "add", "root:rootpw"},
      {"user", "grant-role", "root", "root"},
      {"role", "add", "romulus"},
      {"role", "grant-permission", "romulus", "--prefix=true", "readwrite", "/romulus/"},
      {"user", "add", "romulus:secret"},
      {"user", "grant-role", "romulus", "romulus"},
      {"auth", "enable"}};
  for (const auto& command : commands) ASSERT_EQ(cluster_->Ctl(command), 0);
  ArbiterAnswer answer = Ask(options_)->Claim(16, 32);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, HasSubstr("set user and password_file"));
  options_.user = "romulus";
  options_.password_file = cluster_->Path("password");
  testing::WriteAll(options_.password_file, "wrong\n");
  answer = Ask(options_)->Claim(16, 32);
  EXPECT_EQ(answer.verdict, Verdict::kError) << answer.detail;
  EXPECT_THAT(answer.detail, HasSubstr("does not accept user 'romulus'"));
  testing::WriteAll(options_.password_file, "secret\n");
  auto asker = Ask(options_);
  answer = asker->Claim(16, 32);
  EXPECT_EQ(answer.verdict, Verdict::kYes) << answer.detail;
  // Every token ends here.
  ASSERT_EQ(cluster_->Ctl({"--user", "root:rootpw", "auth", "disable"}), 0);
  ASSERT_EQ(cluster_->Ctl({"auth", "enable"}), 0);
  answer = asker->Claim(32, 48);
  EXPECT_EQ(answer.verdict, Verdict::kYes) << answer.detail;
  EtcdOptions elsewhere = options_;
  elsewhere.prefix = "/not-ours/";
  answer = Ask(elsewhere)->Claim(0, 16);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, HasSubstr("denies access to key '/not-ours/"));
}

}  // namespace
}  // namespace romulus::arbiter
