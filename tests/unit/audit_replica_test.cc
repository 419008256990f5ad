// The secondary's half of the audit: compared at exactly the epoch that it is for, and whatever a
// primary may send.
#include <gtest/gtest.h>

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

// A page that differs, though its tag does not, is found by its group's hash.
TEST(AuditGroupTest, EqualTagsHideNothing) {
  const auto memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  epoch::AuditRun run{Gfn(0), {}};
  const std::vector<std::byte> zeros(kPageSize);
  for (int i = 0; i < 100; ++i) {
    run.hashes.push_back(memory::HashPage128(memory::PageBytes(zeros.data(), kPageSize)));
  }
  const auto compare = [&](uint32_t version) {
    return CompareMemory(*memory, EpochId(4),
                         {codec::ToAuditedPages(run, codec::Dialect(version))});
  };
  for (const uint32_t version : {codec::kOldestProtocol, codec::kNewestProtocol}) {
    EXPECT_EQ(compare(version).compared, 100u);
    EXPECT_EQ(compare(version).mismatched, 0u);
  }
  for (const auto half : {&memory::PageHash128::low, &memory::PageHash128::high}) {
    const memory::PageHash128 right = run.hashes[70];
    run.hashes[70].*half ^= uint64_t{1} << 63;  // not in the tag
    EXPECT_EQ(compare(codec::kOldestProtocol).mismatched, 1u);
    const AuditFindings found = compare(codec::kNewestProtocol);
    EXPECT_EQ(found.compared, 100u);
    ASSERT_EQ(found.mismatched, 36u) << "all of the group";
    ASSERT_EQ(found.mismatches.size(), 36u);
    EXPECT_EQ(found.mismatches.front().gfn, Gfn(64));
    EXPECT_EQ(found.mismatches.back().gfn, Gfn(99));
    run.hashes[70] = right;
  }
}

TEST(AuditGroupTest, AHashForEachGroupAndAByteForEachPage) {
  const epoch::AuditRun run{Gfn(0), std::vector<memory::PageHash128>(500)};
  const auto body_bytes = [&run](uint32_t version) {
    std::string body;
    codec::AppendAuditRuns({codec::ToAuditedPages(run, codec::Dialect(version))}, &body);
    return body.size();
  };
  EXPECT_EQ(body_bytes(codec::kAuditGroupsSince), 16u + 8 * 16 + 500);
  EXPECT_EQ(body_bytes(codec::kAuditGroupsSince - 1), 16u + 500 * 16);
}

TEST(AuditGroupTest, AnOlderStreamHasAHashForEachPage) {
  ModelPrimary primary;
  SessionRig rig;
  rig.policy.protocol = codec::kAuditGroupsSince - 1;
  rig.Feed(primary.StartStream(kTerm, codec::Dialect(rig.policy.protocol)));
  rig.Feed(primary.FullSync(kTerm));
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 10));
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
  return codec::ToAuditedPages({Gfn(first), std::vector<memory::PageHash128>(count)},
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
      {"half a hash", {one.substr(0, one.size() - 3)}},
      {"a tag too few", {one.substr(0, one.size() - 1)}},
      {"a group too few", {with(runs({Hashes(5, 64)}), 8, 65)}},
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
