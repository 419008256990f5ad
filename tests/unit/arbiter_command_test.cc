// The fence command as arbiter: what its end means, and that nothing of it stays.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "arbiter/command_arbiter.h"
#include "base/unique_fd.h"
#include "support/arbiter_asker.h"
#include "support/temp_folder.h"

namespace romulus::arbiter {
namespace {

using failover::ArbiterAnswer;
using failover::ArbiterClaim;
using failover::ClaimAction;
using failover::Verdict;
using ::testing::AllOf;
using testing::ArbiterAsker;
using testing::ArbiterNode;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class CommandArbiterTest : public ::testing::Test {
 protected:
  // A command that is this shell text.
  std::unique_ptr<ArbiterAsker> Script(const std::string& text) {
    const std::string path = folder_.Path("fence");
    testing::WriteAll(path, "#!/bin/sh\n" + text + "\n");
    ::chmod(path.c_str(), 0700);
    return Command({path});
  }
  std::unique_ptr<ArbiterAsker> Command(const std::vector<std::string>& argv) {
    return std::make_unique<ArbiterAsker>([&](base::Executor* executor) {
      CommandOptions options;
      options.argv = argv;
      options.on_output = [this](const std::string& line) { said_.push_back(line); };
      return MakeCommandArbiter(options, ArbiterNode("alpha"), executor);
    });
  }
  // Whoever holds this FIFO open for writing lives. Opened before the command runs.
  base::UniqueFd MakeLifeline() {
    ::mkfifo(folder_.Path("life").c_str(), 0600);
    return base::UniqueFd(::open(folder_.Path("life").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  }
  // Until all who held it are gone.
  static void AwaitDeath(const base::UniqueFd& lifeline) {
    for (;;) {
      pollfd polled = {lifeline.get(), POLLIN, 0};
      ASSERT_GT(::poll(&polled, 1, 60'000), 0) << "somebody lives";
      char bytes[64];
      if (::read(lifeline.get(), bytes, sizeof(bytes)) == 0) return;
    }
  }

  testing::TempFolder folder_;
  std::vector<std::string> said_;
};

TEST_F(CommandArbiterTest, TheExitCodeIsTheAnswer) {
  EXPECT_EQ(Script("exit 0")->Claim(16, 32).verdict, Verdict::kYes);
  for (const int code : {1, 2, 3, 126, 127, 255}) {
    const ArbiterAnswer answer = Script(absl::StrCat("exit ", code))->Claim(16, 32);
    EXPECT_EQ(answer.verdict, Verdict::kSilent);
    EXPECT_THAT(answer.detail, HasSubstr(absl::StrCat("ended with ", code)));
  }
  const ArbiterAnswer killed = Script("echo why; kill -9 $$")->Claim(16, 32);
  EXPECT_EQ(killed.verdict, Verdict::kSilent);
  EXPECT_THAT(killed.detail, AllOf(HasSubstr("signal 9"), HasSubstr("it said: why")));
}

TEST_F(CommandArbiterTest, WhatIsWithdrawnIsKnownWhenTheCommandEnds) {
  const ArbiterClaim claim = {ClaimAction::kPromote, Term(16), Term(33), Term(33)};
  for (const int code : {0, 1}) {
    ::mkfifo(folder_.Path("go").c_str(), 0600);
    auto asker = Script(absl::StrCat("read line < ", folder_.Path("go"), "; exit ", code));
    EXPECT_EQ(asker->Withdraw(claim).verdict, Verdict::kYes);  // nothing runs
    auto pending = asker->Begin(claim);
    ArbiterAsker::Pending withdrawal = asker->BeginWithdraw(claim);
    EXPECT_FALSE(withdrawal.answered());
    testing::WriteAll(folder_.Path("go"), "\n");
    EXPECT_EQ(pending.Await().verdict, code == 0 ? Verdict::kYes : Verdict::kSilent);
    EXPECT_EQ(withdrawal.Await().verdict, code == 0 ? Verdict::kNo : Verdict::kYes);
  }
}

TEST_F(CommandArbiterTest, ItIsToldWhatIsAsked) {
  ::setenv("ROMULUS_PEER", "nonsense", 1);
  auto asker =
      Script("env | grep ^ROMULUS_ | sort; echo $0 $#; cat; exec 3>&- ; ls -l /proc/$$/fd | wc -l");
  EXPECT_EQ(asker->Claim({ClaimAction::kSolo, Term(16), Term(32), Term()}).verdict, Verdict::kYes);
  ::unsetenv("ROMULUS_PEER");
  ASSERT_THAT(said_, SizeIs(9));
  said_.resize(7);
  EXPECT_THAT(said_,
              ElementsAre("ROMULUS_ACTION=solo", "ROMULUS_EXPECTED_TERM=16", "ROMULUS_NODE=alpha",
                          "ROMULUS_PEER=beta", "ROMULUS_TERM=32",
                          absl::StrCat("ROMULUS_UUID=", testing::kVmUuid), "ROMULUS_VM=vm1"));
  said_.clear();
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kYes);
  EXPECT_EQ(said_[0], "ROMULUS_ACTION=promote");
}

TEST_F(CommandArbiterTest, ItHasNoDescriptorOfTheDaemonsAndNoSignalBlocked) {
  const base::UniqueFd leak(::open("/dev/null", O_RDONLY));  // without O_CLOEXEC
  sigset_t blocked, before;
  ::sigfillset(&blocked);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  ::signal(SIGPIPE, SIG_IGN);
  auto asker =
      Script("for fd in /proc/self/fd/*; do readlink $fd; done; grep Sig[BI] /proc/self/status");
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kYes);
  ::signal(SIGPIPE, SIG_DFL);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(said_, Contains(HasSubstr("pipe:")).Times(2));
  EXPECT_THAT(said_, Contains("/dev/null").Times(1));  // its input
  EXPECT_THAT(said_, Contains("SigBlk:?0000000000000000"));
  const auto ignored = absl::StripPrefix(said_.back(), "SigIgn:?");
  uint64_t mask = ~uint64_t{0};
  EXPECT_TRUE(absl::SimpleHexAtoi(ignored, &mask)) << said_.back();
  EXPECT_EQ(mask & 0x7fffffff, 0u) << ignored;  // above are glibc's own
}

TEST_F(CommandArbiterTest, ToProtectNobodyIsFenced) {
  auto asker = Script("touch " + folder_.Path("ran") + "; exit 1");
  const ArbiterAnswer answer = asker->Claim({ClaimAction::kProtect, Term(16), Term(32), Term()});
  EXPECT_EQ(answer.verdict, Verdict::kYes);
  EXPECT_NE(::access(folder_.Path("ran").c_str(), F_OK), 0);
  EXPECT_EQ(asker->Read().verdict, Verdict::kError);
  EXPECT_EQ(asker->Claim(16, 16).verdict, Verdict::kError);
  EXPECT_NE(::access(folder_.Path("ran").c_str(), F_OK), 0);
}

TEST_F(CommandArbiterTest, AHungCommandIsKilledWithItsChildren) {
  const base::UniqueFd lifeline = MakeLifeline();
  // It and its children do not care for SIGTERM; one of them waits for nobody.
  auto asker = Script("exec 9>" + folder_.Path("life") +
                      "; trap '' TERM; (sleep 1000; exit 0) & echo hello >&9; sleep 1000");
  const ArbiterAnswer answer = asker->Claim(16, 32, absl::Seconds(1));
  EXPECT_EQ(answer.verdict, Verdict::kSilent);
  EXPECT_THAT(answer.detail, HasSubstr("did not end in time"));
  AwaitDeath(lifeline);
}

TEST_F(CommandArbiterTest, WhatItLeavesBehindIsKilled) {
  const base::UniqueFd lifeline = MakeLifeline();
  auto asker = Script("exec 9>" + folder_.Path("life") + "; sleep 1000 & exit 0");
  // It holds the output open, which is not waited for.
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kYes);
  AwaitDeath(lifeline);
}

TEST_F(CommandArbiterTest, WhatIsNoCommandIsAnError) {
  ArbiterAnswer answer = Command({"/no/such/fence"})->Claim(16, 32);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, AllOf(HasSubstr("/no/such/fence"), HasSubstr("No such file")));
  testing::WriteAll(folder_.Path("plain"), "#!/bin/sh\nexit 0\n");
  answer = Command({folder_.Path("plain")})->Claim(16, 32);
  EXPECT_EQ(answer.verdict, Verdict::kError);
  EXPECT_THAT(answer.detail, HasSubstr("Permission denied"));
  // No shell guesses what it might be.
  testing::WriteAll(folder_.Path("text"), "exit 0\n");
  ::chmod(folder_.Path("text").c_str(), 0700);
  EXPECT_EQ(Command({folder_.Path("text")})->Claim(16, 32).verdict, Verdict::kError);
  EXPECT_EQ(Command({folder_.path()})->Claim(16, 32).verdict, Verdict::kError);
  for (const std::vector<std::string>& argv : {std::vector<std::string>{}, {"fence"}, {""}}) {
    CommandOptions options;
    options.argv = argv;
    EXPECT_FALSE(MakeCommandArbiter(options, ArbiterNode("alpha"), nullptr).ok());
  }
}

TEST_F(CommandArbiterTest, P6_AFloodIsReadAndDropped) {
  auto asker = Script(
      "head -c 3000000 /dev/zero | tr '\\0' 'x'; i=0; while [ $i -lt 200 ]; do "
      "echo line $i; i=$((i+1)); done; exit 0");
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kYes);
  EXPECT_THAT(said_, SizeIs(CommandOptions::kMaxLines));
  EXPECT_THAT(said_, Each(SizeIs(::testing::Le(CommandOptions::kMaxLineBytes))));
  EXPECT_THAT(said_.back(), HasSubstr("more bytes"));
  // For ever.
  said_.clear();
  auto yes = Command({"/usr/bin/yes", "\x01\x1b[31m"});
  EXPECT_EQ(yes->Claim(16, 32, absl::Milliseconds(300)).verdict, Verdict::kSilent);
  EXPECT_EQ(said_[0], "??[31m");
  EXPECT_THAT(said_, SizeIs(CommandOptions::kMaxLines));
}

TEST_F(CommandArbiterTest, OneRunsAtATime) {
  ::mkfifo(folder_.Path("go").c_str(), 0600);
  auto asker = Script("read word < " + folder_.Path("go") + "; exit $word");
  auto first = asker->Begin({ClaimAction::kPromote, Term(16), Term(32), Term(32)});
  EXPECT_EQ(asker->Claim(16, 32).verdict, Verdict::kSilent);
  testing::WriteAll(folder_.Path("go"), "1\n");
  EXPECT_EQ(first.Await().verdict, Verdict::kSilent);
  auto second = asker->Begin({ClaimAction::kPromote, Term(16), Term(32), Term(32)});
  testing::WriteAll(folder_.Path("go"), "0\n");
  EXPECT_EQ(second.Await().verdict, Verdict::kYes);
}

TEST_F(CommandArbiterTest, ADestroyedArbiterKillsItsCommand) {
  const base::UniqueFd lifeline = MakeLifeline();
  auto asker = Script("exec 9>" + folder_.Path("life") + "; echo here >&9; sleep 1000");
  auto pending = asker->Begin({ClaimAction::kPromote, Term(16), Term(32), Term(32)});
  pollfd polled = {lifeline.get(), POLLIN, 0};
  ASSERT_GT(::poll(&polled, 1, 60'000), 0);  // it runs
  asker->Destroy();
  AwaitDeath(lifeline);
  asker->OnLoop([] {});
  EXPECT_FALSE(pending.answered());
}

}  // namespace
}  // namespace romulus::arbiter
