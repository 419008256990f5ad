// The secondary's half of the audit: compared at exactly the epoch that it is for, and whatever a
// primary may send.
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "codec/audit_records.h"
#include "unit/replica_session_rig.h"

namespace romulus::replica {
namespace {

using codec::FrameKind;

constexpr Term kTerm(3);

class AuditReplicaTest : public ::testing::Test {
 protected:
  AuditReplicaTest() {
    rig_.Feed(primary_.StartStream(kTerm));
    rig_.Feed(primary_.FullSync(kTerm));
    rig_.Feed(primary_.RandomEpoch(kTerm, EpochId(1), 10));
  }
  v1::Ack LastAckBody() const {
    v1::Ack ack;
    for (const Reply& reply : rig_.Replies()) {
      if (reply.kind == FrameKind::kAck) ack.ParseFromString(reply.body);
    }
    return ack;
  }
  // All of memory, in epochs from `first` on: what was compared is in the ack of one epoch more.
  EpochId AuditAll(EpochId first) {
    for (uint64_t gfn = 0; gfn < primary_.layout().page_count(); gfn += 512) {
      const std::vector<Gfn> changed = {Gfn(1), Gfn(20), Gfn(600)};
      for (const Gfn page : changed) primary_.Mutate(page);
      primary_.audit = {primary_.Run(Gfn(gfn), 512)};
      rig_.Feed(primary_.Epoch(kTerm, first, changed));
      first = first.Next();
    }
    rig_.Feed(primary_.Epoch(kTerm, first, {}));
    return first.Next();
  }
  void Flip(Gfn gfn) {
    (*rig_.memory->WritableSpan(GpaOf(gfn), kPageSize))[4095] ^= std::byte{0x80};
  }

  ModelPrimary primary_;
  SessionRig rig_;
};

TEST_F(AuditReplicaTest, EqualMemoryHasNoMismatch) {
  AuditAll(EpochId(2));
  EXPECT_EQ(LastAckBody().audited_pages(), primary_.layout().page_count());
  EXPECT_EQ(LastAckBody().mismatched_pages(), 0u);
  EXPECT_EQ(rig_.counters.audited_pages, primary_.layout().page_count());
  EXPECT_TRUE(rig_.listener.mismatches.empty());
}

TEST_F(AuditReplicaTest, AFlippedBitIsToldOnceWithItsEpoch) {
  Flip(Gfn(700));
  const EpochId next = AuditAll(EpochId(2));
  ASSERT_EQ(rig_.listener.mismatches.size(), 1u) << rig_.listener.why;
  EXPECT_EQ(rig_.listener.mismatches[0].gfn, Gfn(700));
  EXPECT_EQ(rig_.listener.mismatches[0].epoch, EpochId(3));
  EXPECT_EQ(rig_.counters.audit_mismatches, 1u);
  v1::Ack told;
  for (const Reply& reply : rig_.Replies()) {
    v1::Ack ack;
    if (reply.kind == FrameKind::kAck && ack.ParseFromString(reply.body)) told.MergeFrom(ack);
  }
  ASSERT_EQ(told.mismatches_size(), 1);
  EXPECT_EQ(told.mismatches(0).gfn(), 700u);
  EXPECT_EQ(told.mismatches(0).epoch(), 3u);
  EXPECT_EQ(told.mismatched_pages(), 1u);
  // The primary sends it whole: all is well.
  primary_.encoder().ForgetPrevious({Gfn(700)});
  rig_.Feed(primary_.Epoch(kTerm, next, {Gfn(700)}));
  AuditAll(next.Next());
  EXPECT_EQ(rig_.listener.mismatches.size(), 1u);
  EXPECT_EQ(rig_.listener.closed, 0);
  EXPECT_EQ(primary_.Difference(*rig_.memory), "");
}

// A page that was zero from the beginning is not written when it comes as zero again, unless it is
// known to be something else now.
TEST_F(AuditReplicaTest, AFlippedBitInAPageThatIsZeroIsRepaired) {
  uint64_t zero = 0;
  while (!codec::IsZeroPage(codec::PageBytes(primary_.page(Gfn(zero)), kPageSize))) ++zero;
  Flip(Gfn(zero));
  primary_.audit = {primary_.Run(Gfn(zero), 1)};
  rig_.Feed(primary_.Epoch(kTerm, EpochId(2), {}));
  rig_.Feed(primary_.Epoch(kTerm, EpochId(3), {}));
  ASSERT_EQ(rig_.listener.mismatches.size(), 1u);
  primary_.encoder().ForgetPrevious({Gfn(zero)});
  rig_.Feed(primary_.Epoch(kTerm, EpochId(4), {Gfn(zero)}));
  EXPECT_EQ(primary_.Difference(*rig_.memory), "");
}

// The same of one that is not named, as its tag is equal, beside one that is.
TEST_F(AuditReplicaTest, ASuspectPageThatIsZeroIsRepaired) {
  const auto is_zero = [this](uint64_t gfn) {
    return codec::IsZeroPage(codec::PageBytes(primary_.page(Gfn(gfn)), kPageSize));
  };
  uint64_t zero = 0;
  while (!is_zero(zero) || !is_zero(zero + 1)) ++zero;
  const std::span<std::byte> bytes = *rig_.memory->WritableSpan(GpaOf(Gfn(zero)), kPageSize);
  const auto tag = [&bytes] {
    return codec::AuditTag(memory::HashPage128(memory::PageBytes(bytes.data(), kPageSize)),
                           EpochId(2));
  };
  const uint16_t equal = tag();
  for (size_t at = 0; bytes[at] == std::byte{0} || tag() != equal;) {
    at += bytes[at] == std::byte{255} ? 1 : 0;
    bytes[at] = std::byte(static_cast<uint8_t>(bytes[at]) + 1);
  }
  Flip(Gfn(zero + 1));
  primary_.audit = {primary_.Run(Gfn(zero), 2)};
  rig_.Feed(primary_.Epoch(kTerm, EpochId(2), {}));
  rig_.Feed(primary_.Epoch(kTerm, EpochId(3), {}));
  ASSERT_EQ(rig_.listener.mismatches.size(), 1u);
  EXPECT_EQ(rig_.listener.mismatches[0].gfn, Gfn(zero + 1));
  const std::vector<Gfn> both = {Gfn(zero), Gfn(zero + 1)};
  primary_.encoder().ForgetPrevious(both);
  rig_.Feed(primary_.Epoch(kTerm, EpochId(4), both));
  rig_.Feed(primary_.Epoch(kTerm, EpochId(5), {}));
  EXPECT_EQ(primary_.Difference(*rig_.memory), "");
}

// Each of 70 pages by itself, which are in two groups.
TEST_F(AuditReplicaTest, OfAGroupTheDifferentPagesAreNamed) {
  for (const uint64_t gfn : {0, 62, 65}) Flip(Gfn(gfn));
  primary_.audit = {primary_.Run(Gfn(0), 70)};
  rig_.Feed(primary_.Epoch(kTerm, EpochId(2), {}));
  rig_.Feed(primary_.Epoch(kTerm, EpochId(3), {}));
  ASSERT_EQ(rig_.listener.mismatches.size(), 3u);
  EXPECT_EQ(rig_.listener.mismatches[0].gfn, Gfn(0));
  EXPECT_EQ(rig_.listener.mismatches[1].gfn, Gfn(62));
  EXPECT_EQ(rig_.listener.mismatches[2].gfn, Gfn(65));
  EXPECT_EQ(rig_.counters.audited_pages, 70u);
}

// 100 zero pages of the replica, beside hashes of the primary's that a test changes.
class AuditGroupTest : public ::testing::Test {
 protected:
  static constexpr EpochId kEpoch{20};
  static constexpr size_t kTagByte = 20 % 8 * sizeof(uint16_t);

  AuditGroupTest() {
    const std::vector<std::byte> zeros(kPageSize);
    run_.hashes.assign(100, memory::HashPage128(memory::PageBytes(zeros.data(), kPageSize)));
  }
  // Changes a byte of the primary's hash of a page.
  void Change(size_t page, size_t at) {
    reinterpret_cast<std::byte*>(&run_.hashes[page])[at] ^= std::byte{0x10};
  }
  MemoryComparison Compare(uint32_t version = codec::kNewestProtocol) const {
    const codec::Dialect dialect(version);
    return CompareMemory(*memory_, kEpoch, {codec::ToAuditedPages(run_, kEpoch, dialect)});
  }
  static std::vector<uint64_t> Named(const MemoryComparison& compared) {
    std::vector<uint64_t> gfns;
    for (const AuditMismatch& page : compared.findings.mismatches) {
      EXPECT_EQ(page.epoch, kEpoch);
      gfns.push_back(page.gfn.value());
    }
    EXPECT_EQ(gfns.size(), compared.findings.mismatched);
    return gfns;
  }

  const std::unique_ptr<memory::GuestMemory> memory_ =
      *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  epoch::AuditRun run_{Gfn(0), {}};
};

TEST_F(AuditGroupTest, EqualPagesAreEqualInEachVersion) {
  for (const uint32_t version : {codec::kOldestProtocol, codec::kNewestProtocol}) {
    const MemoryComparison compared = Compare(version);
    EXPECT_EQ(compared.findings.compared, 100u);
    EXPECT_TRUE(Named(compared).empty());
    EXPECT_TRUE(compared.suspects.empty());
  }
}

// A page that differs, though its tag does not, is found by its group's hash.
TEST_F(AuditGroupTest, EqualTagsHideNothing) {
  for (size_t at = 0; at < sizeof(memory::PageHash128); ++at) {
    Change(70, at);
    EXPECT_EQ(Named(Compare(codec::kOldestProtocol)), std::vector<uint64_t>{70});
    const MemoryComparison compared = Compare();
    EXPECT_EQ(compared.findings.compared, 100u);
    EXPECT_EQ(compared.suspects.size(), 36u) << "all of the second group";
    EXPECT_EQ(compared.suspects.front(), Gfn(64));
    const bool in_tag = at == kTagByte || at == kTagByte + 1;
    EXPECT_EQ(Named(compared).size(), in_tag ? 1u : 36u) << at;
    EXPECT_EQ(Named(compared).front(), in_tag ? 70u : 64u) << at;
    Change(70, at);
  }
}

TEST_F(AuditGroupTest, BesideAPageThatIsNamedAnEqualTagIsSuspect) {
  Change(70, kTagByte);
  Change(80, kTagByte + 2);
  const MemoryComparison compared = Compare();
  EXPECT_EQ(Named(compared), std::vector<uint64_t>{70});
  EXPECT_EQ(compared.suspects.size(), 36u);
  EXPECT_EQ(Named(Compare(codec::kOldestProtocol)), (std::vector<uint64_t>{70, 80}));
}

// Beyond the end of the file, as a page that the kernel has given up.
TEST_F(AuditGroupTest, OfWhatCannotBeReadTheRestIsComparedByItsTags) {
  run_.first = Gfn(memory_->layout().page_count() - 100);
  ASSERT_EQ(::ftruncate(memory_->fd(), (4 << 20) - kPageSize), 0);
  const uint64_t last = memory_->layout().page_count() - 1;
  Change(98, kTagByte);
  Change(99, kTagByte);
  for (const uint32_t version : {codec::kOldestProtocol, codec::kNewestProtocol}) {
    const MemoryComparison compared = Compare(version);
    EXPECT_EQ(compared.findings.compared, 99u);
    EXPECT_EQ(Named(compared), std::vector<uint64_t>{last - 1});
  }
  Change(98, kTagByte);
  EXPECT_TRUE(Compare().suspects.empty());
}

TEST(AuditGroups, AHashForEachGroupAndATagForEachPage) {
  const epoch::AuditRun run{Gfn(0), std::vector<memory::PageHash128>(500)};
  const auto body_bytes = [&run](uint32_t version) {
    std::string body;
    codec::AppendAuditRuns({codec::ToAuditedPages(run, EpochId(2), codec::Dialect(version))},
                           &body);
    return body.size();
  };
  EXPECT_EQ(body_bytes(codec::kAuditGroupsSince), 16u + 8 * 16 + 500 * 2);
  EXPECT_EQ(body_bytes(codec::kAuditGroupsSince - 1), 16u + 500 * 16);
}

// One in which pages are not in groups, up to its first epoch.
void StartOlderStream(ModelPrimary& primary, SessionRig& rig) {
  rig.policy.protocol = codec::kAuditGroupsSince - 1;
  rig.Feed(primary.StartStream(kTerm, codec::Dialect(rig.policy.protocol)));
  rig.Feed(primary.FullSync(kTerm));
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 10));
}

TEST(AuditGroups, AnOlderStreamHasAHashForEachPage) {
  ModelPrimary primary;
  SessionRig rig;
  StartOlderStream(primary, rig);
  (*rig.memory->WritableSpan(GpaOf(Gfn(66)), kPageSize))[7] ^= std::byte{1};
  primary.audit = {primary.Run(Gfn(0), 70)};
  rig.Feed(primary.Epoch(kTerm, EpochId(2), {}));
  rig.Feed(primary.Epoch(kTerm, EpochId(3), {}));
  EXPECT_EQ(rig.listener.closed, 0) << rig.listener.why;
  EXPECT_EQ(rig.counters.audited_pages, 70u);
  ASSERT_EQ(rig.listener.mismatches.size(), 1u);
  EXPECT_EQ(rig.listener.mismatches[0].gfn, Gfn(66));
}

// Several epochs in one message, each with an audit of what the next one changes.
TEST_F(AuditReplicaTest, EachEpochIsComparedBeforeTheNextIsApplied) {
  Messages all;
  for (uint64_t n = 2; n < 40; ++n) {
    const std::vector<Gfn> changed = primary_.MutateSome(200);
    primary_.audit = {primary_.Run(Gfn(0), 1024)};
    for (std::string& message : primary_.Epoch(kTerm, EpochId(n), changed)) {
      all.push_back(std::move(message));
    }
  }
  rig_.Feed({Join(all)});
  rig_.Feed(primary_.RandomEpoch(kTerm, EpochId(40), 1));
  EXPECT_EQ(rig_.listener.closed, 0) << rig_.listener.why;
  EXPECT_EQ(LastAckBody().audited_pages(), 38u * 1024);
  EXPECT_TRUE(rig_.listener.mismatches.empty());
}

TEST_F(AuditReplicaTest, AnAbortedEpochIsNotCompared) {
  std::string body;
  codec::AppendAuditRuns({codec::AuditedPages{Gfn(3), {{1, 2}}, {0}}}, &body);  // of nothing
  std::string message;
  primary_.writer().Append(FrameKind::kEpochAudit, kTerm, EpochId(2), body, &message);
  v1::EpochAbort abort;
  primary_.writer().Append(FrameKind::kEpochAbort, kTerm, EpochId(2), abort, &message);
  rig_.Feed({message});
  rig_.Feed(primary_.RandomEpoch(kTerm, EpochId(2), 3));
  rig_.Feed(primary_.RandomEpoch(kTerm, EpochId(3), 3));
  EXPECT_EQ(rig_.listener.closed, 0) << rig_.listener.why;
  EXPECT_EQ(rig_.counters.audited_pages, 0u);
}

TEST_F(AuditReplicaTest, APromotionDoesNotWaitForTheAudit) {
  Flip(Gfn(700));
  primary_.audit = {primary_.Run(Gfn(512), 512)};
  rig_.link->on_send = [this] { ASSERT_TRUE(rig_.store.TakeForPromotion(Term(4)).ok()); };
  rig_.Feed(primary_.RandomEpoch(kTerm, EpochId(2), 3));
  EXPECT_TRUE(rig_.store.sealed());
  EXPECT_TRUE(rig_.listener.mismatches.empty());
}

codec::AuditedPages Hashes(uint64_t first, size_t count) {
  return codec::ToAuditedPages({Gfn(first), std::vector<memory::PageHash128>(count)}, EpochId(2),
                               codec::Dialect(codec::kNewestProtocol));
}

TEST(AuditHostileTest, WhateverHasNoPlaceIsRefusedAndCounted) {
  const auto runs = [](const std::vector<codec::AuditedPages>& of) {
    std::string body;
    codec::AppendAuditRuns(of, &body);
    return body;
  };
  const auto with = [](std::string body, size_t at, char value) {
    body[at] = value;
    return body;
  };
  const std::string one = runs({Hashes(5, 2)});
  const std::pair<std::string, std::vector<std::string>> bad[] = {
      {"empty", {""}},
      {"no pages", {runs({Hashes(5, 0)})}},
      {"half a head", {one.substr(0, 9)}},
      {"half a hash", {one.substr(0, one.size() - 5)}},
      {"a tag too few", {one.substr(0, one.size() - 2)}},
      {"half a tag", {one.substr(0, one.size() - 1)}},
      {"a group too few",
       {runs({{Gfn(5), std::vector<memory::PageHash128>(1), std::vector<uint16_t>(65)}})}},
      {"as before there were groups", {runs({{Gfn(5), std::vector<memory::PageHash128>(2), {}}})}},
      {"more behind", {one + "x"}},
      {"count of 2^31", {with(one, 11, '\x80')}},
      {"of a disk that is not there", {with(one, 12, 1)}},
      {"beyond memory", {runs({Hashes(1023, 2)})}},
      {"far beyond memory", {with(one, 7, '\xff')}},
      {"page twice", {runs({Hashes(5, 2), Hashes(6, 1)})}},
      {"descending", {runs({Hashes(5, 2), Hashes(1, 1)})}},
      {"too many", {runs({Hashes(0, 1024), Hashes(5, 1)})}},
      {"twice in an epoch", {one, one}}};
  for (const auto& [what, bodies] : bad) {
    ModelPrimary primary;
    SessionRig rig;
    rig.Feed(primary.StartStream(kTerm));
    rig.Feed(primary.FullSync(kTerm));
    rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 10));
    for (const std::string& body : bodies) {
      std::string message;
      primary.writer().Append(FrameKind::kEpochAudit, kTerm, EpochId(2), body, &message);
      rig.Feed({message});
    }
    EXPECT_EQ(rig.FaultCount(Fault::kAudit), 1u) << what;
    EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL) << what;
    EXPECT_TRUE(rig.link->closed()) << what;
    EXPECT_TRUE(rig.store.TakeForPromotion(Term(4)).ok()) << what;
  }
}

TEST(AuditHostileTest, GroupsInAnOlderStreamAreRefused) {
  ModelPrimary primary;
  SessionRig rig;
  StartOlderStream(primary, rig);
  std::string body;
  codec::AppendAuditRuns({Hashes(5, 2)}, &body);
  std::string message;
  primary.writer().Append(FrameKind::kEpochAudit, kTerm, EpochId(2), body, &message);
  rig.Feed({message});
  EXPECT_EQ(rig.FaultCount(Fault::kAudit), 1u);
}

TEST(AuditHostileTest, NoEpochNoAudit) {
  std::string body;
  codec::AppendAuditRuns({Hashes(5, 2)}, &body);
  ModelPrimary primary;
  SessionRig rig;
  rig.Feed(primary.StartStream(kTerm));
  std::string message;
  primary.writer().Append(FrameKind::kEpochAudit, kTerm, EpochId(1), body, &message);
  rig.Feed({message});
  EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
}

TEST(AuditHostileTest, ManyMismatchesAreCountedAllAndNamedInPart) {
  AuditFindings all;
  for (uint64_t n = 0; n < 3; ++n) {
    AuditFindings some;
    some.compared = 1000;
    some.mismatched = 600;
    some.mismatches.resize(600, {EpochId(n), Gfn(n)});
    all.Add(std::move(some));
  }
  EXPECT_EQ(all.compared, 3000u);
  EXPECT_EQ(all.mismatched, 1800u);
  EXPECT_EQ(all.mismatches.size(), epoch::kMaxAuditPages);
}

}  // namespace
}  // namespace romulus::replica
