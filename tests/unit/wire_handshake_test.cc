#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "wire/handshake.h"

namespace romulus::wire {
namespace {

using testing::HasSubstr;

HelloInput Primary() {
  HelloInput input;
  input.machine = {.vm_name = "web",
                   .vm_uuid = "11111111-2222-3333-4444-555555555555",
                   .vcpu_count = 2,
                   .memory = memory::MemoryLayout::ForMib(4096)->regions(),
                   .machine_digest = 0xabcdef};
  input.node_name = "alpha";
  input.build = "romulusd 0.1.0";
  input.current_term = Term(16);
  input.stream_term = Term(32);
  input.cpuid = {{.function = 7, .index = 0, .flags = 1, .eax = 1, .ebx = 2, .ecx = 3, .edx = 4}};
  input.tsc_khz = 2'400'000;
  input.required_capabilities = {"xsave:2696", "sregs2"};
  input.max_frame_bytes = 4u << 20;
  return input;
}

HelloJudge Secondary() {
  HelloJudge judge;
  judge.machine = Primary().machine;
  judge.node_name = "beta";
  judge.build = "romulusd 0.1.0";
  judge.newest_term = Term(16);
  judge.max_frame_bytes = 1u << 20;
  return judge;
}

TEST(HandshakeTest, EqualNodesAgree) {
  const v1::HelloReply reply = EvaluateHello(BuildHello(Primary()), Secondary());
  EXPECT_TRUE(reply.accepted());
  EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_UNSPECIFIED);
  EXPECT_EQ(reply.detail(), "");
  EXPECT_EQ(reply.term(), 16u);
  EXPECT_EQ(reply.node_name(), "beta");
  EXPECT_EQ(reply.max_frame_bytes(), 1u << 20);
  EXPECT_TRUE(StatusOf(reply).ok());
}

TEST(HandshakeTest, TheNewestVersionThatBothSpeakIsSpoken) {
  using codec::ProtocolRange;
  struct Skew {
    ProtocolRange primary, secondary;
    uint32_t spoken;  // 0: none
  };
  for (const Skew& skew :
       {Skew{{5, 6}, {5, 6}, 6}, Skew{{5, 6}, {6, 7}, 6}, Skew{{6, 7}, {5, 6}, 6},
        Skew{{5, 6}, {5, 5}, 5}, Skew{{5, 5}, {5, 6}, 5}, Skew{{6, 7}, {5, 5}, 0},
        Skew{{5, 5}, {6, 7}, 0}}) {
    HelloInput primary = Primary();
    primary.protocols = skew.primary;
    primary.build = "old";
    HelloJudge judge = Secondary();
    judge.protocols = skew.secondary;
    judge.build = "new";
    const v1::HelloReply reply = EvaluateHello(BuildHello(primary), judge);
    const std::string label =
        absl::StrCat(RangeText(skew.primary), " with ", RangeText(skew.secondary));
    EXPECT_EQ(reply.accepted(), skew.spoken != 0) << label;
    EXPECT_EQ(reply.oldest_protocol_version(), skew.secondary.oldest) << label;
    EXPECT_EQ(reply.newest_protocol_version(), skew.secondary.newest) << label;
    if (skew.spoken != 0) {
      EXPECT_EQ(reply.protocol_version(), skew.spoken) << label;
      continue;
    }
    EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_PROTOCOL_VERSION) << label;
    for (const std::string& named :
         {RangeText(skew.secondary), std::string("'old'"), std::string("'new'")}) {
      EXPECT_THAT(reply.detail(), HasSubstr(named)) << label;
    }
  }
}

// What the builds of protocol 5 do, which know no ranges: a primary names its one version, and goes
// on only with that one; a secondary accepts only its own, and answers with it.
TEST(HandshakeTest, ABuildThatKnowsNoRangesPairs) {
  v1::Hello hello = BuildHello(Primary());
  EXPECT_EQ(hello.protocol_version(), 5u) << "an old secondary refuses";
  hello.set_protocol_version(5);
  hello.clear_newest_protocol_version();
  const v1::HelloReply reply = EvaluateHello(hello, Secondary());
  EXPECT_TRUE(reply.accepted());
  EXPECT_EQ(reply.protocol_version(), 5u) << "an old primary ends the stream";
}

TEST(HandshakeTest, TheDaemonThatIsHeardMayBeginANewStream) {
  HelloInput primary = Primary();
  primary.instance = 7;
  HelloJudge judge = Secondary();
  judge.heard_instance = 7;
  EXPECT_TRUE(EvaluateHello(BuildHello(primary), judge).accepted());
  // Which one an older build's is nobody knows.
  judge.heard_instance = 0;
  EXPECT_TRUE(EvaluateHello(BuildHello(primary), judge).accepted());
}

void RunsGuest(HelloJudge& judge, Term own_term, const Lineage& lineage) {
  judge.plays_secondary = false;
  judge.holds = v1::HOLDS_GUEST;
  judge.newest_term = own_term;
  judge.lineage = lineage;
}

struct Case {
  std::string name;
  std::function<void(v1::Hello&, HelloJudge&)> change;
  v1::RefusalReason reason;
  std::vector<std::string> named;  // what the detail must say
};

const std::vector<Case>& Cases() {
  static const auto* const cases = new std::vector<Case>{
      {"protocol",
       [](v1::Hello& h, HelloJudge&) { h.set_protocol_version(9); },
       v1::REFUSAL_REASON_PROTOCOL_VERSION,
       {"protocol version", "9", "1"}},
      {"vm_name",
       [](v1::Hello& h, HelloJudge&) { h.set_vm_name("db"); },
       v1::REFUSAL_REASON_VM,
       {"vm name", "'db'", "'web'"}},
      {"vm_uuid",
       [](v1::Hello& h, HelloJudge&) { h.set_vm_uuid("99"); },
       v1::REFUSAL_REASON_VM,
       {"vm uuid", "'99'", "'11111111-"}},
      {"same_node",
       [](v1::Hello& h, HelloJudge&) { h.set_node_name("beta"); },
       v1::REFUSAL_REASON_VM,
       {"node name", "'beta'"}},
      {"vcpus",
       [](v1::Hello& h, HelloJudge&) { h.set_vcpu_count(4); },
       v1::REFUSAL_REASON_CPU,
       {"vcpus", "4", "2"}},
      {"memory",
       [](v1::Hello& h, HelloJudge&) { h.mutable_memory(0)->set_size_bytes(4096); },
       v1::REFUSAL_REASON_MEMORY,
       {"memory", "4096 bytes", "3221225472 bytes"}},
      {"memory_gpa",
       [](v1::Hello& h, HelloJudge&) { h.mutable_memory(1)->set_gpa(4096); },
       v1::REFUSAL_REASON_MEMORY,
       {"0x1000", "0x100000000"}},
      {"no_memory",
       [](v1::Hello& h, HelloJudge&) { h.clear_memory(); },
       v1::REFUSAL_REASON_MEMORY,
       {"none on the primary"}},
      {"devices",
       [](v1::Hello& h, HelloJudge&) { h.set_machine_digest(1); },
       v1::REFUSAL_REASON_DEVICES,
       {"devices", "0000000000000001", "0000000000abcdef"}},
      {"cpu",
       [](v1::Hello&, HelloJudge& j) {
         j.missing_cpu_features = [](const std::vector<CpuidLeaf>& leaves, uint32_t tsc_khz) {
           EXPECT_EQ(leaves, Primary().cpuid);
           EXPECT_EQ(tsc_khz, 2'400'000u);
           return std::vector<std::string>{"avx512f", "sha_ni"};
         };
       },
       v1::REFUSAL_REASON_CPU,
       {"avx512f, sha_ni"}},
      {"capability",
       [](v1::Hello&, HelloJudge& j) {
         j.has_capability = [](absl::string_view name) { return name != "sregs2"; };
       },
       v1::REFUSAL_REASON_CAPABILITY,
       {"'sregs2'"}},
      {"old_term",
       [](v1::Hello&, HelloJudge& j) { j.newest_term = Term(64); },
       v1::REFUSAL_REASON_TERM,
       {"term", "32", "64"}},
      {"no_term",
       [](v1::Hello& h, HelloJudge& j) { h.set_term(0), j.newest_term = Term(0); },
       v1::REFUSAL_REASON_TERM,
       {"term"}},
      {"busy",
       [](v1::Hello& h, HelloJudge& j) {
         h.set_instance(2);
         j.heard_instance = 1;
         j.heard_from = "ipv4:192.0.2.1:7";
       },
       v1::REFUSAL_REASON_BUSY,
       {"another daemon, at ipv4:192.0.2.1:7", "'alpha'", "stop the one that is not wanted"}},
      {"busy_with_one_that_says_more",
       [](v1::Hello&, HelloJudge& j) { j.heard_instance = 1; },
       v1::REFUSAL_REASON_BUSY,
       {"another daemon"}},
      {"role",
       [](v1::Hello&, HelloJudge& j) {
         j.plays_secondary = false;
         j.role_detail = "runs the guest in term 16";
       },
       v1::REFUSAL_REASON_ROLE,
       {"not a secondary", "runs the guest in term 16"}},
      // A term alone is no guest.
      {"newer_term_without_a_guest",
       [](v1::Hello&, HelloJudge& j) {
         j.plays_secondary = false;
         j.newest_term = Term(1700);
       },
       v1::REFUSAL_REASON_ROLE,
       {"not a secondary"}},
      // Two that run a guest: only a promotion over the other decides, whatever their terms are.
      {"promoted_over_the_sender",
       [](v1::Hello& h, HelloJudge& j) {
         h.set_current_term(9999);
         h.mutable_lineage()->set_shared_term(32);
         RunsGuest(j, Term(65), {Term(65), Term(32), Term(32)});
       },
       v1::REFUSAL_REASON_TERM,
       {"not a secondary", "promoted over"}},
      {"a_new_guest_beside_a_promoted_one",
       [](v1::Hello&, HelloJudge& j) {
         RunsGuest(j, Term(3), {Term(3), Term(1), Term(1)});
       },
       v1::REFUSAL_REASON_TERM,
       {"promoted over"}},
      {"two_booted",
       [](v1::Hello&, HelloJudge& j) { RunsGuest(j, Term(48), {}); },
       v1::REFUSAL_REASON_TWO_PRIMARIES,
       {"not a secondary"}},
      {"two_of_which_the_other_is_newer",
       [](v1::Hello&, HelloJudge& j) { RunsGuest(j, Term(1), {}); },
       v1::REFUSAL_REASON_TWO_PRIMARIES,
       {"not a secondary"}},
      {"promoted_before_the_sender_shared_more",
       [](v1::Hello& h, HelloJudge& j) {
         h.mutable_lineage()->set_shared_term(33);
         RunsGuest(j, Term(48), {Term(48), Term(32), Term(32)});
       },
       v1::REFUSAL_REASON_TWO_PRIMARIES,
       {"not a secondary"}},
      {"promoted_over_us",
       [](v1::Hello& h, HelloJudge& j) {
         RunsGuest(j, Term(1500), {.promoted = {}, .covers = {}, .shared = Term(10)});
         *h.mutable_lineage() = LineageToProto({Term(16), Term(10), Term(10)});
       },
       v1::REFUSAL_REASON_ROLE,
       {"not a secondary"}},
  };
  return *cases;
}

class RefusalTest : public testing::TestWithParam<Case> {};

TEST_P(RefusalTest, NamesReasonAndBothValues) {
  v1::Hello hello = BuildHello(Primary());
  HelloJudge judge = Secondary();
  GetParam().change(hello, judge);
  const v1::HelloReply reply = EvaluateHello(hello, judge);
  EXPECT_FALSE(reply.accepted());
  EXPECT_EQ(reply.reason(), GetParam().reason) << reply.detail();
  for (const std::string& word : GetParam().named) EXPECT_THAT(reply.detail(), HasSubstr(word));
  EXPECT_EQ(reply.term(), judge.newest_term.value());
  const absl::Status status = StatusOf(reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(std::string(RefusalReasonName(reply.reason()))));
}

// Whoever asks can judge by itself, by the same facts.
TEST(HandshakeTest, TheAnswerSaysWhatIsHeldAndWhereItComesFrom) {
  HelloJudge judge = Secondary();
  judge.holds = v1::HOLDS_REPLICA;
  judge.lineage = {Term(5), Term(3), Term(4)};
  v1::Hello hello = BuildHello(Primary());
  for (bool accepted : {true, false}) {
    const v1::HelloReply reply = EvaluateHello(hello, judge);
    EXPECT_EQ(reply.accepted(), accepted);
    EXPECT_EQ(reply.holds(), v1::HOLDS_REPLICA);
    EXPECT_EQ(LineageFrom(reply.lineage()), judge.lineage);
    hello.set_vcpu_count(3);
  }
  // Another VM's, or in another protocol's words: it proves nothing.
  hello.set_vm_uuid("other");
  EXPECT_EQ(EvaluateHello(hello, judge).holds(), v1::HOLDS_UNSPECIFIED);
  hello = BuildHello(Primary());
  hello.set_protocol_version(2);
  hello.clear_newest_protocol_version();
  EXPECT_EQ(EvaluateHello(hello, judge).holds(), v1::HOLDS_UNSPECIFIED);
  EXPECT_FALSE(EvaluateHello(hello, judge).has_lineage());
}

INSTANTIATE_TEST_SUITE_P(All, RefusalTest, testing::ValuesIn(Cases()),
                         [](const auto& test) { return test.param.name; });

TEST(HandshakeTest, HostileTextIsNotRepeatedAsItIs) {
  v1::Hello hello = BuildHello(Primary());
  hello.set_vm_name(std::string(100'000, '\x1b') + "\n");
  const v1::HelloReply reply = EvaluateHello(hello, Secondary());
  EXPECT_FALSE(reply.accepted());
  EXPECT_LT(reply.detail().size(), 500u);
  EXPECT_EQ(reply.detail().find('\x1b'), std::string::npos);
}

TEST(HandshakeTest, CountsAreBounded) {
  v1::Hello regions = BuildHello(Primary());
  for (int i = 0; i < 1'000'000; ++i) regions.add_memory()->set_size_bytes(UINT64_MAX);
  EXPECT_LT(EvaluateHello(regions, Secondary()).detail().size(), 500u);
  v1::Hello leaves = BuildHello(Primary());
  for (int i = 0; i < 2000; ++i) leaves.add_cpuid();
  HelloJudge judge = Secondary();
  judge.missing_cpu_features = [](const std::vector<CpuidLeaf>&, uint32_t) {
    ADD_FAILURE() << "must not be asked about so many";
    return std::vector<std::string>();
  };
  EXPECT_EQ(EvaluateHello(leaves, judge).reason(), v1::REFUSAL_REASON_CPU);
  v1::Hello names = BuildHello(Primary());
  for (int i = 0; i < 300; ++i) names.add_required_capabilities("x");
  EXPECT_EQ(EvaluateHello(names, Secondary()).reason(), v1::REFUSAL_REASON_CAPABILITY);
}

// --- disks

DiskCopy Root(v1::DiskCopyRole role, uint64_t term) {
  DiskCopy disk;
  disk.name = "root";
  disk.path = "/images/root.img";
  disk.size_bytes = 10u << 20;
  disk.role = role;
  disk.term = Term(term);
  return disk;
}

class DiskHandshakeTest : public testing::Test {
 protected:
  // The primary is in term 16, and its disks hold what the secondary had up to `covers`.
  v1::HelloReply Answer(const DiskCopy& theirs, uint64_t covers, bool overwrite = false) {
    HelloInput primary = Primary();
    primary.disks = {Root(v1::DISK_COPY_ROLE_PRIMARY, 16)};
    primary.disks[0].covers_term = Term(covers);
    primary.overwrite_disks = overwrite;
    HelloJudge judge = Secondary();
    judge.disks = {theirs};
    return EvaluateHello(BuildHello(primary), judge);
  }
};

TEST_F(DiskHandshakeTest, CopiesOfWhichNothingIsKnownAreTaken) {
  EXPECT_TRUE(Answer(Root(v1::DISK_COPY_ROLE_UNSPECIFIED, 0), 0).accepted());
  // An interrupted sync left it: worth nothing to anybody.
  EXPECT_TRUE(Answer(Root(v1::DISK_COPY_ROLE_SYNCING, 17), 0).accepted());
}

TEST_F(DiskHandshakeTest, CopiesThatThePrimaryContainsAreTaken) {
  EXPECT_TRUE(Answer(Root(v1::DISK_COPY_ROLE_SECONDARY, 16), 16).accepted());
  EXPECT_TRUE(Answer(Root(v1::DISK_COPY_ROLE_PRIMARY, 15), 16).accepted());
  const v1::HelloReply reply = Answer(Root(v1::DISK_COPY_ROLE_SECONDARY, 16), 16);
  ASSERT_EQ(reply.disks_size(), 1);
  EXPECT_EQ(reply.disks(0).role(), v1::DISK_COPY_ROLE_SECONDARY);
  EXPECT_EQ(reply.disks(0).term(), 16u);
}

TEST_F(DiskHandshakeTest, ANewerCopyIsNotOverwritten) {
  // That the primary is in term 16 proves nothing: it was started again and again from an old disk.
  for (const auto role : {v1::DISK_COPY_ROLE_PRIMARY, v1::DISK_COPY_ROLE_SECONDARY}) {
    for (const uint64_t term : {3, 16, 500}) {
      const v1::HelloReply reply = Answer(Root(role, term), 2);
      EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_DISKS);
      for (const char* said : {"'root' (/images/root.img)", "newer", "nothing was overwritten",
                               "--role primary", "--overwrite-peer"}) {
        EXPECT_THAT(reply.detail(), HasSubstr(said));
      }
      EXPECT_THAT(reply.detail(), HasSubstr(absl::StrCat("of term ", term)));
      EXPECT_EQ(reply.disks_size(), 1);
    }
  }
  EXPECT_TRUE(Answer(Root(v1::DISK_COPY_ROLE_PRIMARY, 3), 2, /*overwrite=*/true).accepted());
}

// Its journal is lost, say: of nothing else is known that it holds what was acked last.
TEST_F(DiskHandshakeTest, AReplicaThatCannotBeUsedIsOverwrittenOnlyByWhatContainsIt) {
  DiskCopy disk = Root(v1::DISK_COPY_ROLE_SECONDARY, 16);
  disk.unusable = "/images/root.img.journal: is empty";
  EXPECT_TRUE(Answer(disk, 16).accepted());
  const v1::HelloReply reply = Answer(disk, 15);
  EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_DISKS);
  for (const char* said : {"'root' (/images/root.img)", "/images/root.img.journal: is empty",
                           "of term 16", "nothing was overwritten", "--overwrite-peer"}) {
    EXPECT_THAT(reply.detail(), HasSubstr(said));
  }
  EXPECT_TRUE(Answer(disk, 15, /*overwrite=*/true).accepted());
}

// Terms on disks go on rising: what is written over a copy is of a newer term than the copy.
TEST_F(DiskHandshakeTest, TheStreamsTermIsBeyondTheCopys) {
  const v1::HelloReply reply = Answer(Root(v1::DISK_COPY_ROLE_PRIMARY, 500), 2, true);
  EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_DISKS);
  EXPECT_EQ(reply.term(), 500u) << "the primary comes again in a term beyond it";
  EXPECT_FALSE(Answer(Root(v1::DISK_COPY_ROLE_SYNCING, 32), 0).accepted());
}

TEST_F(DiskHandshakeTest, OtherSizesNamesAndCountsAreNamed) {
  DiskCopy disk = Root(v1::DISK_COPY_ROLE_UNSPECIFIED, 0);
  for (const uint64_t size : {uint64_t{5} << 20, uint64_t{20} << 20}) {
    disk.size_bytes = size;
    const v1::HelloReply reply = Answer(disk, 0);
    EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_DISKS);
    EXPECT_THAT(reply.detail(), HasSubstr(absl::StrCat("10485760 bytes on the primary, ", size)));
    EXPECT_THAT(reply.detail(), HasSubstr("/images/root.img"));
  }
  disk = Root(v1::DISK_COPY_ROLE_UNSPECIFIED, 0);
  disk.name = "data";
  EXPECT_THAT(Answer(disk, 0).detail(), HasSubstr("disk 0 of the primary is 'root'"));
  disk = Root(v1::DISK_COPY_ROLE_UNSPECIFIED, 0);
  disk.disk = 1;
  EXPECT_THAT(Answer(disk, 0).detail(), HasSubstr("this is disk 1 here"));
  HelloInput primary = Primary();
  HelloJudge judge = Secondary();
  judge.disks = {disk};
  EXPECT_THAT(EvaluateHello(BuildHello(primary), judge).detail(),
              HasSubstr("the primary replicates 0, this node 1"));
  v1::Hello many = BuildHello(primary);
  for (int i = 0; i < 100'000; ++i) many.add_disks();
  EXPECT_EQ(EvaluateHello(many, Secondary()).reason(), v1::REFUSAL_REASON_DISKS);
}

TEST(HandshakeTest, TheDeviceThatDiffersIsNamed) {
  HelloInput primary = Primary();
  primary.machine.devices = {"disk root", "nic 52:54:00:00:00:01"};
  primary.machine.machine_digest = 1;
  HelloJudge judge = Secondary();
  judge.machine.devices = {"disk root"};
  const v1::HelloReply reply = EvaluateHello(BuildHello(primary), judge);
  EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_DEVICES);
  EXPECT_THAT(reply.detail(), HasSubstr("'nic 52:54:00:00:00:01' on the primary, 'nothing' here"));
}

TEST(HandshakeTest, AnEmptyHelloIsRefused) {
  EXPECT_EQ(EvaluateHello(v1::Hello(), Secondary()).reason(), v1::REFUSAL_REASON_PROTOCOL_VERSION);
  EXPECT_FALSE(EvaluateHello(v1::Hello(), HelloJudge()).accepted());
}

}  // namespace
}  // namespace romulus::wire
