// The etcd arbiter against a fake one: what it makes of answers that are late, lost, wrong or
// refused.
#include <gmock/gmock.h>
#include <grpcpp/generic/async_generic_service.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "arbiter/etcd_arbiter.h"
#include "arbiter/record.h"
#include "base/unique_fd.h"
#include "support/arbiter_asker.h"
#include "support/fake_etcd.h"
#include "support/temp_folder.h"

namespace romulus::arbiter {
namespace {

using failover::ArbiterAnswer;
using failover::ArbiterRecord;
using failover::Verdict;
using ::testing::AllOf;
using testing::ArbiterAsker;
using testing::ArbiterNode;
using testing::FakeEtcd;
using testing::FakeEtcdStore;
using ::testing::HasSubstr;
using testing::kVmUuid;
using Fault = FakeEtcd::Fault;

const std::string kKey = absl::StrCat("/romulus/", kVmUuid);

class EtcdArbiterTest : public ::testing::Test {
 protected:
  std::string Address(const std::string& name) const {
    return absl::StrCat("unix:", folder_.Path(name));
  }
  std::unique_ptr<FakeEtcd> Serve(const std::string& name) {
    return std::make_unique<FakeEtcd>(&store_, Address(name));
  }
  static std::unique_ptr<ArbiterAsker> Ask(const EtcdOptions& options,
                                           const std::string& node = "alpha") {
    return std::make_unique<ArbiterAsker>([&](base::Executor* executor) {
      return MakeEtcdArbiter(options, ArbiterNode(node), executor);
    });
  }
  std::unique_ptr<ArbiterAsker> Ask(const std::vector<std::string>& names = {"a"},
                                    const std::string& node = "alpha") const {
    EtcdOptions options;
    for (const std::string& name : names) options.endpoints.push_back(Address(name));
    return Ask(options, node);
  }
  std::string Stored(const std::string& node, uint64_t term) const {
    ArbiterRecord record;
    record.term = Term(term);
    record.holder = node;
    record.build = "b";
    return EncodeRecord(kVmUuid, record);
  }
  ArbiterRecord Now() {
    absl::StatusOr<ArbiterRecord> record = DecodeRecord(kVmUuid, store_.Get(kKey));
    return record.ok() ? *record : ArbiterRecord();
  }

  testing::TempFolder folder_;
  FakeEtcdStore store_;
};

TEST_F(EtcdArbiterTest, ClaimsAreReadSwappedAndKept) {
  auto etcd = Serve("a");
  auto alpha = Ask({"a"}, "alpha");
  auto beta = Ask({"a"}, "beta");
  ArbiterAnswer answer = alpha->Read();
  EXPECT_EQ(answer.verdict, Verdict::kYes) << answer.detail;
  EXPECT_EQ(answer.record.term, Term());

  answer = alpha->Claim(0, 16);
  EXPECT_EQ(answer.verdict, Verdict::kYes) << answer.detail;
  EXPECT_EQ(answer.record, Now());
  EXPECT_EQ(Now().holder, "alpha");
  EXPECT_EQ(Now().term, Term(16));
  EXPECT_EQ(Now().promoted_term, Term(16));
  EXPECT_EQ(Now().build, "test-build");

  answer = beta->Claim(0, 17);
  EXPECT_EQ(answer.verdict, Verdict::kNo);
  EXPECT_EQ(answer.record.holder, "alpha");
  EXPECT_EQ(answer.record.term, Term(16));
  // Again, as after a lost answer.
  EXPECT_EQ(alpha->Claim(0, 16).verdict, Verdict::kYes);
  EXPECT_EQ(beta->Claim(16, 33).verdict, Verdict::kYes);
  EXPECT_EQ(alpha->Claim(16, 32).verdict, Verdict::kNo);
  EXPECT_EQ(alpha->Read().record.holder, "beta");
  EXPECT_EQ(Now().term, Term(33));
}

TEST_F(EtcdArbiterTest, P3_OfTwoHostsUnderOneNameOneIsAnswered) {
  auto etcd = Serve("a");
  EtcdOptions options;
  options.endpoints = {Address("a")};
  std::unique_ptr<ArbiterAsker> hosts[2];
  for (int i = 0; i < 2; ++i) {
    failover::ArbiterIdentity who = ArbiterNode("alpha");
    who.host_id = std::string(32, static_cast<char>('1' + i));
    who.host_name = absl::StrCat("rack", i + 1);
    hosts[i] = std::make_unique<ArbiterAsker>(
        [&](base::Executor* executor) { return MakeEtcdArbiter(options, who, executor); });
  }
  EXPECT_EQ(hosts[0]->Claim(0, 16).verdict, Verdict::kYes);
  EXPECT_EQ(hosts[0]->Claim(0, 16).verdict, Verdict::kYes);
  const ArbiterAnswer answer = hosts[1]->Claim(0, 16);
  EXPECT_EQ(answer.verdict, Verdict::kNo);
  EXPECT_THAT(answer.detail, AllOf(HasSubstr("'rack1' (1111"), HasSubstr("'rack2' (2222")));
  EXPECT_EQ(answer.record.host_id, std::string(32, '1'));
  EXPECT_EQ(answer.record.host_name, "rack1");
  // One that says no host is its node's, and is given one.
  store_.Put(kKey, Stored("alpha", 16));
  EXPECT_EQ(hosts[1]->Claim(16, 32).verdict, Verdict::kYes);
  EXPECT_EQ(Now().host_id, std::string(32, '2'));
}

TEST_F(EtcdArbiterTest, ALostAnswerIsFoundByReadingAgain) {
  auto etcd = Serve("a");
  auto asker = Ask();
  etcd->FailNext({Fault::kNone, Fault::kLoseAnswer});
  EXPECT_EQ(asker->Claim(0, 16).verdict, Verdict::kYes);
  EXPECT_EQ(etcd->calls(), 3);  // the swap was not done twice
  // Nor is it across two calls.
  etcd->FailNext({Fault::kNone, Fault::kHangDone});
  const ArbiterAnswer silent = asker->Claim(16, 32, ArbiterAsker::kShort);
  EXPECT_EQ(silent.verdict, Verdict::kSilent) << silent.detail;
  EXPECT_EQ(Now().term, Term(32));
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kYes);
  EXPECT_EQ(Ask({"a"}, "beta")->Claim(16, 33).verdict, Verdict::kNo);
}

// A swap that was sent and is late: it must not find what it was sent for.
TEST_F(EtcdArbiterTest, P3_AWithdrawnClaimNeverTakesEffect) {
  auto etcd = Serve("a");
  auto alpha = Ask({"a"}, "alpha");
  auto beta = Ask({"a"}, "beta");
  ASSERT_EQ(alpha->Claim(0, 16).verdict, Verdict::kYes);
  const failover::ArbiterClaim claim = {failover::ClaimAction::kPromote, Term(16), Term(33),
                                        Term(33)};
  etcd->FailNext({Fault::kNone, Fault::kLate});
  auto late = beta->Begin(claim);
  etcd->AwaitLate();
  const ArbiterAnswer answer = beta->Withdraw(claim);
  EXPECT_EQ(answer.verdict, Verdict::kYes) << answer.detail;
  EXPECT_EQ(late.Await().verdict, Verdict::kSilent);
  etcd->LetLateGo();
  beta->OnLoop([] {});
  EXPECT_EQ(Now().holder, "alpha");
  EXPECT_EQ(Now().term, Term(16));
  EXPECT_EQ(alpha->Claim(16, 32).verdict, Verdict::kYes);
  // One that has: it is said.
  const failover::ArbiterClaim next = {failover::ClaimAction::kPromote, Term(32), Term(49),
                                       Term(49)};
  etcd->FailNext({Fault::kNone, Fault::kHangDone});
  EXPECT_EQ(beta->Claim(next, ArbiterAsker::kShort).verdict, Verdict::kSilent);
  EXPECT_EQ(beta->Withdraw(next).verdict, Verdict::kNo);
  EXPECT_EQ(Now().holder, "beta");
}

TEST_F(EtcdArbiterTest, WhatIsGivenBackIsThePeersToClaim) {
  auto etcd = Serve("a");
  auto alpha = Ask({"a"}, "alpha");
  auto beta = Ask({"a"}, "beta");
  ASSERT_EQ(beta->Claim(0, 33).verdict, Verdict::kYes);
  EXPECT_EQ(alpha->Claim(16, 32).verdict, Verdict::kNo);
  etcd->FailNext({Fault::kNone, Fault::kLoseAnswer});
  EXPECT_EQ(beta->GiveBack(33).verdict, Verdict::kYes);
  EXPECT_EQ(Now().holder, "alpha");
  EXPECT_EQ(beta->GiveBack(33).verdict, Verdict::kYes);
  EXPECT_EQ(alpha->Claim(33, 48).verdict, Verdict::kYes);
  EXPECT_EQ(beta->GiveBack(33).verdict, Verdict::kNo);
}

TEST_F(EtcdArbiterTest, SomebodyElseBetweenReadAndSwapIsANo) {
  auto etcd = Serve("a");
  auto alpha = Ask({"a"}, "alpha");
  auto beta = Ask({"a"}, "beta");
  ASSERT_EQ(alpha->Claim(0, 16).verdict, Verdict::kYes);
  // Both read term 16 before either swaps, if the scheduler wants it so.
  for (int i = 1; i <= 50; ++i) {
    const uint64_t from = Now().term.value();
    const auto promote = failover::ClaimAction::kPromote;
    auto a = alpha->Begin({promote, Term(from), Term(100 * i), Term()});
    auto b = beta->Begin({promote, Term(from), Term(100 * i + 1), Term()});
    const ArbiterAnswer answers[] = {a.Await(), b.Await()};
    const int yes = (answers[0].verdict == Verdict::kYes) + (answers[1].verdict == Verdict::kYes);
    const int no = (answers[0].verdict == Verdict::kNo) + (answers[1].verdict == Verdict::kNo);
    ASSERT_EQ(yes, 1) << answers[0].detail << " / " << answers[1].detail;
    ASSERT_EQ(no, 1) << answers[0].detail << " / " << answers[1].detail;
    EXPECT_EQ(answers[0].record, answers[1].record);
  }
}

TEST_F(EtcdArbiterTest, AHungMemberIsSilenceAndLeavesTimeForTheNext) {
  auto a = Serve("a");
  auto b = Serve("b");
  a->FailAlways(Fault::kHang);
  const ArbiterAnswer silent = Ask({"a"})->Claim(0, 16, ArbiterAsker::kShort);
  EXPECT_EQ(silent.verdict, Verdict::kSilent);
  EXPECT_THAT(silent.detail, AllOf(HasSubstr("no answer in 300ms"), HasSubstr(Address("a"))));
  auto both = Ask({"a", "b"});
  EXPECT_EQ(both->Claim(0, 16, absl::Seconds(2)).verdict, Verdict::kYes);
  // The one that answers is asked first from now on.
  const int before = a->calls();
  EXPECT_EQ(both->Claim(16, 32).verdict, Verdict::kYes);
  EXPECT_EQ(a->calls(), before);
}

TEST_F(EtcdArbiterTest, AMemberThatIsDownIsPassedOverAndFoundAgain) {
  auto b = Serve("b");
  auto asker = Ask({"a", "b"});
  EXPECT_EQ(asker->Claim(0, 16).verdict, Verdict::kYes);
  b.reset();
  const ArbiterAnswer silent = asker->Claim(16, 32, ArbiterAsker::kShort);
  EXPECT_EQ(silent.verdict, Verdict::kSilent);
  EXPECT_THAT(silent.detail, AllOf(HasSubstr(Address("a")), HasSubstr(Address("b"))));
  // It comes while the question is under way.
  auto pending = asker->Begin({failover::ClaimAction::kSolo, Term(16), Term(32), Term()});
  auto a = Serve("a");
  EXPECT_EQ(pending.Await().verdict, Verdict::kYes);
}

TEST_F(EtcdArbiterTest, WithoutALeaderItIsAskedAgainUntilTheTimeIsOver) {
  auto etcd = Serve("a");
  etcd->FailNext({Fault::kUnavailable, Fault::kUnavailable, Fault::kNone, Fault::kUnavailable});
  EXPECT_EQ(Ask()->Claim(0, 16).verdict, Verdict::kYes);
  etcd->FailAlways(Fault::kUnavailable);
  const ArbiterAnswer silent = Ask()->Claim(16, 32, ArbiterAsker::kShort);
  EXPECT_EQ(silent.verdict, Verdict::kSilent);
  EXPECT_THAT(silent.detail, HasSubstr("no leader"));
}

TEST_F(EtcdArbiterTest, P7_AnswersThatWereNotAskedForAreNoAnswers) {
  auto etcd = Serve("a");
  for (const Fault fault : {Fault::kOtherKey, Fault::kNoHeader}) {
    etcd->FailAlways(fault);
    EXPECT_EQ(Ask()->Claim(0, 16, ArbiterAsker::kShort).verdict, Verdict::kSilent);
    EXPECT_EQ(Ask()->Read(ArbiterAsker::kShort).verdict, Verdict::kSilent);
    // A swap that says neither what it did nor what there is.
    etcd->FailAlways(Fault::kNone);
    etcd->FailNext({Fault::kNone, fault});
    EXPECT_EQ(Ask()->Claim(0, 16).verdict, Verdict::kYes);  // read again, and it is there
    store_.Put(kKey, Stored("alpha", 16));
    etcd->FailNext({Fault::kNone, fault, Fault::kOtherKey, Fault::kNoHeader});
    EXPECT_EQ(Ask({"a"}, "beta")->Claim(16, 33).verdict, Verdict::kYes);
    absl::MutexLock lock(&store_.mutex);
    store_.entries.clear();
  }
}

// Answers every call with the same bytes.
class Parrot final : public grpc::CallbackGenericService {
 public:
  explicit Parrot(std::string bytes) : bytes_(std::move(bytes)) {}

 private:
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    explicit Reactor(const std::string& bytes) : slice_(bytes), answer_(&slice_, 1) {
      StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
    }
    void OnDone() override { delete this; }

   private:
    grpc::Slice slice_;
    grpc::ByteBuffer answer_;
  };
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new Reactor(bytes_);
  }
  const std::string bytes_;
};

TEST_F(EtcdArbiterTest, P7_GarbageIsSilence) {
  // No protobuf; one that is too deep in unknown fields; far too long.
  for (const std::string& bytes :
       {std::string("\xff\xff\xff\xff\xff\xff"), std::string(1000, '\x0b'),
        absl::StrCat("\x12\x80\x80\x06", std::string(96 << 10, 'x'))}) {
    Parrot parrot(bytes);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(Address("p"), grpc::InsecureServerCredentials());
    builder.RegisterCallbackGenericService(&parrot);
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    const ArbiterAnswer answer = Ask({"p"})->Claim(0, 16, ArbiterAsker::kShort);
    EXPECT_EQ(answer.verdict, Verdict::kSilent) << answer.detail;
    EXPECT_LT(answer.detail.size(), 2000u);
    server->Shutdown(std::chrono::system_clock::now());
  }
}

TEST_F(EtcdArbiterTest, P7_WhoSpeaksNoHttpIsSilence) {
  base::UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  folder_.Path("s").copy(name.sun_path, sizeof(name.sun_path) - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  ASSERT_EQ(::listen(listener.get(), 8), 0);
  std::thread chatter([&] {
    for (;;) {
      base::UniqueFd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer.valid()) return;
      const std::string words(5000, '?');
      ::send(peer.get(), words.data(), words.size(), MSG_NOSIGNAL);
    }
  });
  EXPECT_EQ(Ask({"s"})->Claim(0, 16, ArbiterAsker::kShort).verdict, Verdict::kSilent);
  ::shutdown(listener.get(), SHUT_RDWR);
  chatter.join();
}

TEST_F(EtcdArbiterTest, ARecordThatIsNoneOfOursIsAnErrorNamingTheKey) {
  auto etcd = Serve("a");
  ArbiterRecord record;
  record.term = Term(16);
  record.holder = "alpha";
  const std::string other = EncodeRecord("00000000-7f0b-4d52-9a57-0d5f3a9d4c11", record);
  const std::pair<std::string, std::string> cases[] = {
      {"garbage!", "no record of romulusd"},
      {"", "no record of romulusd"},
      {std::string(2000, '\0'), "2000 bytes"},
      {"\x08\x02" + Stored("alpha", 16).substr(2), "format 2"},
      {other, "another VM, '00000000-"},
      {Stored("", 16), "makes no sense"},
      {Stored("alpha", 0), "makes no sense"},
      {Stored("a\nb", 16), "makes no sense"},
      {Stored("alpha", ~uint64_t{0}), "makes no sense"},
  };
  auto asker = Ask();
  for (const auto& [value, why] : cases) {
    store_.Put(kKey, value);
    for (const ArbiterAnswer& answer : {asker->Claim(16, 32), asker->Claim(0, 16), asker->Read()}) {
      EXPECT_EQ(answer.verdict, Verdict::kError) << why;
      EXPECT_THAT(answer.detail, AllOf(HasSubstr(why), HasSubstr(kKey), HasSubstr("etcdctl del")));
    }
    EXPECT_EQ(store_.Get(kKey), value);
  }
}

TEST_F(EtcdArbiterTest, ARecordThatIsGoneOrOlderIsAnError) {
  auto etcd = Serve("a");
  auto asker = Ask();
  ArbiterAnswer answer = asker->Claim(16, 32);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_TRUE(answer.lost);
  EXPECT_EQ(answer.record.term, Term());
  EXPECT_THAT(answer.detail, ::testing::Not(HasSubstr("etcdctl del")));  // it is gone
  store_.Put(kKey, Stored("beta", 5));
  answer = asker->Claim(16, 32);
  EXPECT_TRUE(answer.lost);
  EXPECT_EQ(answer.record.holder, "beta");
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, AllOf(HasSubstr(kKey), HasSubstr("term 5")));
  EXPECT_EQ(Now().term, Term(5));
}

TEST_F(EtcdArbiterTest, AnotherClustersAnswerDoesNotCount) {
  FakeEtcdStore other;
  other.cluster_id = 18000000000000000002u;
  auto a = Serve("a");
  FakeEtcd b(&other, Address("b"));
  auto asker = Ask({"a", "b"});
  ASSERT_EQ(asker->Claim(0, 16).verdict, Verdict::kYes);  // pins a's
  a->FailAlways(Fault::kUnavailable);
  ArbiterAnswer answer = asker->Claim(16, 32, ArbiterAsker::kShort);
  EXPECT_EQ(answer.verdict, Verdict::kSilent);
  EXPECT_THAT(answer.detail, HasSubstr("cluster 18000000000000000002, not of 193"));
  EXPECT_TRUE(other.entries.empty());
  // Named in the configuration.
  EtcdOptions options;
  options.endpoints = {Address("b")};
  options.cluster_id = 0xc1;
  answer = Ask(options)->Claim(0, 16);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, HasSubstr("cluster 18000000000000000002, not of 193 (cluster_id)"));
  EXPECT_TRUE(other.entries.empty());
}

class EtcdAuthTest : public EtcdArbiterTest {
 protected:
  EtcdAuthTest() {
    testing::WriteAll(folder_.Path("password"), "secret\n");
    options_.endpoints = {Address("a")};
    options_.user = "romulus";
    options_.password_file = folder_.Path("password");
    store_.auth = true;
  }
  EtcdOptions options_;
};

TEST_F(EtcdAuthTest, ATokenThatExpiresIsRenewed) {
  auto etcd = Serve("a");
  auto asker = Ask(options_);
  EXPECT_EQ(asker->Claim(0, 16).verdict, Verdict::kYes);
  EXPECT_EQ(store_.tokens_made, 1);
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kYes);
  EXPECT_EQ(store_.tokens_made, 1);
  {
    absl::MutexLock lock(&store_.mutex);
    store_.tokens.clear();
  }
  EXPECT_EQ(asker->Claim(32, 48).verdict, Verdict::kYes);
  EXPECT_EQ(store_.tokens_made, 2);
}

TEST_F(EtcdAuthTest, WhoeverIsNotLetInSaysWhatToDo) {
  auto etcd = Serve("a");
  testing::WriteAll(folder_.Path("password"), "wrong");
  ArbiterAnswer answer = Ask(options_)->Claim(0, 16);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, AllOf(HasSubstr("'romulus'"), HasSubstr("password_file")));
  EXPECT_THAT(answer.detail, ::testing::Not(HasSubstr("wrong")));
  answer = Ask()->Claim(0, 16);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, HasSubstr("set user and password_file"));
  EXPECT_TRUE(store_.entries.empty());
}

TEST_F(EtcdAuthTest, AuthenticationMayBeOffOrComeLater) {
  auto etcd = Serve("a");
  store_.auth = false;
  auto asker = Ask(options_);
  EXPECT_EQ(asker->Claim(0, 16).verdict, Verdict::kYes);
  {
    absl::MutexLock lock(&store_.mutex);
    store_.auth = true;
  }
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kYes);
}

TEST_F(EtcdArbiterTest, ADestroyedArbiterAnswersNothing) {
  auto etcd = Serve("a");
  etcd->FailAlways(Fault::kHang);
  auto asker = Ask({"a", "none"});
  auto hung = asker->Begin({failover::ClaimAction::kSolo, Term(), Term(16), Term()});
  auto bad = asker->Begin({failover::ClaimAction::kSolo, Term(5), Term(5), Term()});
  EXPECT_EQ(bad.Await().verdict, Verdict::kError);
  std::vector<ArbiterAsker::Pending> more;
  for (int i = 0; i < 10; ++i) {
    more.push_back(asker->Begin({failover::ClaimAction::kSolo, Term(), Term(16), Term()}));
  }
  EXPECT_EQ(more.back().Await().verdict, Verdict::kSilent);  // one too many
  asker->Destroy();
  asker->OnLoop([] {});
  EXPECT_FALSE(hung.answered());
}

TEST_F(EtcdArbiterTest, OptionsThatCannotWorkAreRefused) {
  EtcdOptions good;
  good.endpoints = {"h:1"};
  const auto refused = [&](auto change) {
    EtcdOptions options = good;
    change(&options);
    return std::string(MakeEtcdArbiter(options, ArbiterNode("alpha"), nullptr).status().message());
  };
  EXPECT_THAT(refused([](EtcdOptions* o) { o->endpoints.clear(); }), HasSubstr("endpoints"));
  EXPECT_THAT(refused([](EtcdOptions* o) { o->user = "u"; }), HasSubstr("password_file"));
  EXPECT_THAT(refused([](EtcdOptions* o) { o->cert_file = "/x", o->tls = true; }),
              HasSubstr("key_file"));
  EXPECT_THAT(refused([](EtcdOptions* o) { o->ca_file = "/x"; }), HasSubstr("without TLS"));
  EXPECT_THAT(refused([](EtcdOptions* o) { o->ca_file = "/no/such", o->tls = true; }),
              HasSubstr("'/no/such': No such file"));
  EXPECT_THAT(refused([](EtcdOptions* o) { o->ca_file = "/dev/zero", o->tls = true; }),
              HasSubstr("'/dev/zero' is not a file"));
  testing::WriteAll(folder_.Path("not.pem"), "hello");
  EXPECT_THAT(refused([&](EtcdOptions* o) { o->ca_file = folder_.Path("not.pem"), o->tls = true; }),
              HasSubstr("not a PEM file"));
}

}  // namespace
}  // namespace romulus::arbiter
