// The store and the session with disks: journaled before acked, applied with the memory, equal to
// one epoch when promoted, given up when they cannot take what comes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "codec/audit_records.h"
#include "codec/page_digest.h"
#include "replica/fault.h"
#include "replica/replica_store.h"
#include "unit/replica_rig.h"
#include "unit/replica_session_rig.h"

namespace romulus::replica {
namespace {

using codec::FrameKind;
using testing::HasSubstr;

constexpr Term kTerm(3);
const std::vector<uint64_t> kSizes = {300 * 1024, 1u << 20};

class ReplicaDisksTest : public testing::Test {
 protected:
  ReplicaDisksTest() {
    for (uint32_t i = 0; i < kSizes.size(); ++i) {
      disks.Add(i, "disk" + std::to_string(i), kSizes[i]);
    }
    primary.AddDisks(kSizes);
    options.disks = &disks;
    options.disk_staging_bytes = 16 << 20;
    rig = std::make_unique<SessionRig>(4, options);
  }
  void Sync() {
    rig->Feed(primary.StartStream(kTerm));
    rig->Feed(primary.FullSync(kTerm));
    ASSERT_TRUE(rig->listener.sync_complete) << rig->listener.why;
  }
  void Epoch(uint64_t number, size_t writes) {
    primary.MutateDisks(writes);
    rig->Feed(primary.RandomEpoch(kTerm, EpochId(number), 10));
  }
  std::string WrongDisk() { return ModelPrimary::DiskDifference(primary.disks(), disks); }
  std::string Control(FrameKind kind, const google::protobuf::MessageLite& body) {
    return primary.Control(kind, kTerm, EpochId(), body);
  }
  std::string Raw(FrameKind kind, EpochId epoch, absl::string_view body) {
    std::string message;
    primary.writer().Append(kind, kTerm, epoch, body, &message);
    return message;
  }

  FakeDiskReplica disks;
  StoreOptions options;
  ModelPrimary primary{4, SmallFrames()};
  std::unique_ptr<SessionRig> rig;

 private:
  static codec::EncoderOptions SmallFrames() {
    codec::EncoderOptions small;
    small.page_body_bytes = 9000;  // writes are split
    return small;
  }
};

TEST_F(ReplicaDisksTest, P2_DisksAndMemoryAreTheSameEpoch) {
  Sync();
  EXPECT_EQ(WrongDisk(), "");
  std::vector<DiskBytes> at_last;
  for (uint64_t epoch = 1; epoch < 60; ++epoch) {
    Epoch(epoch, primary.random()() % 8);
    ASSERT_EQ(rig->LastAck(), EpochId(epoch)) << rig->listener.why;
    ASSERT_EQ(WrongDisk(), "") << "epoch " << epoch;
    ASSERT_EQ(primary.Difference(*rig->memory), "");
    at_last = primary.disks();
  }
  EXPECT_EQ(disks.journaled, 59u) << "every epoch, with writes or without";
  EXPECT_GT(rig->counters.disk_records_committed, 100u);
  // An epoch that never commits leaves no trace.
  primary.MutateDisks(10);
  Messages half = primary.RandomEpoch(kTerm, EpochId(60), 10);
  std::string all = Join(half);
  rig->Feed({all.substr(0, all.find("bulk") - 2000)});
  const absl::StatusOr<PromotableEpoch> taken = rig->store.TakeForPromotion(Term(99));
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->key, (EpochKey{kTerm, EpochId(59)}));
  EXPECT_TRUE(disks.promoted);
  EXPECT_EQ(disks.disks[0].facts.stamp.term, Term(99));
  EXPECT_EQ(ModelPrimary::DiskDifference(at_last, disks), "");
}

// Committed, and the promotion comes before anything was applied.
TEST_F(ReplicaDisksTest, P2_APromotionCompletesWhatIsCommitted) {
  Sync();
  primary.MutateDisks(20);
  const Messages messages = primary.RandomEpoch(kTerm, EpochId(1), 10);
  rig->link->on_send = [this] {
    // From within the ack.
    if (rig->LastAck() != EpochId(1) || disks.promoted) return;
    EXPECT_EQ(disks.journal.size(), 1u);
    EXPECT_TRUE(rig->store.TakeForPromotion(Term(9)).ok());
  };
  rig->Feed(messages);
  EXPECT_TRUE(disks.promoted);
  EXPECT_EQ(WrongDisk(), "");
  EXPECT_EQ(primary.Difference(*rig->memory), "");
}

TEST_F(ReplicaDisksTest, WritesLargerThanAFrameArriveWhole) {
  Sync();
  for (uint64_t epoch = 1; epoch < 20; ++epoch) {
    Epoch(epoch, 20);
    ASSERT_EQ(WrongDisk(), "");
  }
  EXPECT_GT(rig->counters.disk_records_committed, 19u * 20) << "some were split";
}

TEST_F(ReplicaDisksTest, AnAckMeansJournaled) {
  Sync();
  for (uint64_t epoch = 1; epoch < 5; ++epoch) {
    Epoch(epoch, 3);
    EXPECT_EQ(disks.journaled, epoch);
    EXPECT_EQ(rig->LastAck(), EpochId(epoch));
  }
  disks.fail_journal = absl::ResourceExhaustedError("/images/disk0.journal: no space left");
  Epoch(5, 3);
  EXPECT_EQ(rig->LastAck(), EpochId(4));
}

// The secondary's file system is full: no fault of the primary's, which is told and may go on
// alone.
TEST_F(ReplicaDisksTest, AFullDiskGivesTheReplicaUpAndSaysSo) {
  Sync();
  Epoch(1, 3);
  disks.fail_journal = absl::ResourceExhaustedError("/images/disk0.journal: no space left");
  Epoch(2, 3);
  EXPECT_EQ(rig->SentGoodbye().reason(), v1::Goodbye::REASON_DISK);
  EXPECT_THAT(rig->SentGoodbye().detail(), HasSubstr("/images/disk0.journal: no space left"));
  EXPECT_TRUE(rig->link->closed());
  EXPECT_EQ(FaultOf(rig->listener.why), Fault::kDiskIo);
  EXPECT_EQ(rig->counters.disk_failures, 1u);
  EXPECT_EQ(rig->FaultCount(Fault::kDiskIo), 0u) << "the primary did nothing wrong";
  EXPECT_TRUE(disks.given_up);
  const absl::Status promoted = rig->store.TakeForPromotion(Term(9)).status();
  EXPECT_EQ(promoted.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(promoted.message()), HasSubstr("no space left"));
  EXPECT_FALSE(disks.promoted);
  // There is room again: a new stream makes a new replica.
  disks.fail_journal = absl::OkStatus();
  rig->Connect();
  Sync();
  Epoch(1, 3);
  EXPECT_EQ(rig->LastAck(), EpochId(1));
  EXPECT_EQ(WrongDisk(), "");
  EXPECT_TRUE(rig->store.TakeForPromotion(Term(9)).ok());
}

// Two epochs in one message, and the second does not fit: the first must not be acked any more,
// because nobody can promote it.
TEST_F(ReplicaDisksTest, P2_NothingIsAckedThatWasGivenUp) {
  Sync();
  Epoch(1, 3);
  primary.MutateDisks(3);
  Messages both = primary.RandomEpoch(kTerm, EpochId(2), 5);
  primary.MutateDisks(3);
  const Messages third = primary.RandomEpoch(kTerm, EpochId(3), 5);
  both.insert(both.end(), third.begin(), third.end());
  disks.journal_room = 1;
  rig->Feed({Join(both)});
  EXPECT_EQ(rig->LastAck(), EpochId(1));
  EXPECT_EQ(rig->SentGoodbye().reason(), v1::Goodbye::REASON_DISK);
  EXPECT_FALSE(rig->store.TakeForPromotion(Term(9)).ok());
}

TEST_F(ReplicaDisksTest, EveryDiskErrorIsToldAlike) {
  const absl::Status broken = absl::DataLossError("/images/disk1: input/output error");
  const std::vector<absl::Status FakeDiskReplica::*> ways = {
      &FakeDiskReplica::fail_begin, &FakeDiskReplica::fail_write, &FakeDiskReplica::fail_end,
      &FakeDiskReplica::fail_apply};
  for (const auto& way : ways) {
    disks.*way = broken;
    rig->Connect();
    rig->Feed(primary.StartStream(kTerm));
    rig->Feed(primary.FullSync(kTerm));
    if (way == &FakeDiskReplica::fail_apply) Epoch(1, 3);
    EXPECT_EQ(rig->SentGoodbye().reason(), v1::Goodbye::REASON_DISK);
    EXPECT_THAT(rig->SentGoodbye().detail(), HasSubstr("/images/disk1"));
    EXPECT_FALSE(rig->store.TakeForPromotion(Term(9)).ok());
    disks.*way = absl::OkStatus();
  }
  EXPECT_EQ(rig->counters.disk_failures, ways.size());
}

TEST_F(ReplicaDisksTest, APromotionThatTheDisksRefuseCanBeTriedAgain) {
  Sync();
  Epoch(1, 3);
  disks.fail_promote = absl::UnavailableError("/images/disk0: input/output error");
  const absl::Status failed = rig->store.TakeForPromotion(Term(9)).status();
  EXPECT_THAT(std::string(failed.message()), HasSubstr("/images/disk0"));
  EXPECT_EQ(rig->store.status().state, ReplicaState::kCommitted);
  EXPECT_FALSE(rig->store.sealed());
  disks.fail_promote = absl::OkStatus();
  EXPECT_TRUE(rig->store.TakeForPromotion(Term(9)).ok());
  EXPECT_EQ(WrongDisk(), "");
}

TEST_F(ReplicaDisksTest, DisksOfAPromotionThatFailedAreTakenBack) {
  Sync();
  EXPECT_FALSE(rig->store.TakeBackDisks().ok());
  Epoch(1, 3);
  ASSERT_TRUE(rig->store.TakeForPromotion(Term(9)).ok());
  EXPECT_EQ(rig->store.disk_facts()[0].role, CopyRole::kPrimary);
  ASSERT_TRUE(rig->store.TakeBackDisks().ok());
  EXPECT_FALSE(disks.promoted);
  EXPECT_EQ(rig->store.disk_facts()[0].role, CopyRole::kSecondary);
  EXPECT_EQ(rig->store.disk_facts()[0].stamp, (EpochKey{kTerm, EpochId(1)}));
  EXPECT_EQ(WrongDisk(), "");
}

TEST_F(ReplicaDisksTest, AFullSyncNeedsItsDisks) {
  ModelPrimary without(4);
  rig->Feed(without.StartStream(kTerm));
  rig->Feed(without.FullSync(kTerm));
  EXPECT_FALSE(rig->listener.sync_complete);
  EXPECT_EQ(rig->FaultCount(Fault::kCount), 1u);
  EXPECT_THAT(rig->SentGoodbye().detail(), HasSubstr("2 disks"));
}

TEST_F(ReplicaDisksTest, P7_DiskFramesOutOfPlaceAreRefused) {
  v1::DiskSyncBegin begin;
  begin.set_disk_count(2);
  v1::DiskHashRequest request;
  request.set_count(1);
  std::string flush;
  codec::AppendDiskRecord(codec::DiskRecordKind::kFlush, 0, 0, 0, {}, &flush);
  std::string zeros;
  codec::AppendDiskRecord(codec::DiskRecordKind::kZeros, 0, 0, 512, {}, &zeros);
  v1::SyncBegin sync;
  sync.set_total_pages(1024);
  const auto refused = [&](const std::vector<std::function<std::string()>>& frames) {
    rig->Connect();
    rig->Feed(primary.StartStream(kTerm));
    for (const auto& frame : frames) {
      EXPECT_FALSE(rig->link->closed());
      rig->Feed({frame()});
    }
    EXPECT_TRUE(rig->link->closed());
    return FaultOf(rig->listener.why);
  };
  const auto begin_sync = [&] { return Control(FrameKind::kSyncBegin, sync); };
  const auto begin_disks = [&] { return Control(FrameKind::kDiskSyncBegin, begin); };
  const auto end_disks = [&] { return Control(FrameKind::kDiskSyncEnd, v1::DiskSyncEnd()); };
  const auto ask = [&] { return Control(FrameKind::kDiskHashRequest, request); };
  const auto write = [&] { return Raw(FrameKind::kDiskBlocks, EpochId(), zeros); };
  EXPECT_EQ(refused({begin_disks}), Fault::kUnexpected);
  EXPECT_EQ(refused({ask}), Fault::kUnexpected);
  EXPECT_EQ(refused({write}), Fault::kUnexpected);
  EXPECT_EQ(refused({end_disks}), Fault::kUnexpected);
  EXPECT_EQ(refused({begin_sync, write}), Fault::kUnexpected);
  EXPECT_EQ(refused({begin_sync, begin_disks, begin_disks}), Fault::kUnexpected);
  EXPECT_EQ(refused({begin_sync, begin_disks, end_disks, write}), Fault::kUnexpected);
  EXPECT_EQ(refused({begin_sync, begin_disks, end_disks, ask}), Fault::kUnexpected);
  EXPECT_EQ(refused({begin_sync, begin_disks,
                     [&] { return Raw(FrameKind::kDiskBlocks, EpochId(), ""); }}),
            Fault::kDisks);
  EXPECT_EQ(refused({begin_sync, begin_disks,
                     [&] { return Raw(FrameKind::kDiskBlocks, EpochId(), flush); }}),
            Fault::kDisks);
  EXPECT_EQ(refused({begin_sync, begin_disks,
                     [&] { return Raw(FrameKind::kDiskHashes, EpochId(), flush); }}),
            Fault::kUnexpected);
  EXPECT_EQ(refused({[&] { return Raw(FrameKind::kEpochDisks, EpochId(1), zeros); }}),
            Fault::kUnexpected);
  begin.set_disk_count(3);
  EXPECT_EQ(refused({begin_sync, begin_disks}), Fault::kCount);
  begin.set_disk_count(2);
  for (const auto& [disk, first, count] : std::vector<std::array<uint64_t, 3>>{
           {7, 0, 1}, {0, 0, 0}, {0, 5, 1}, {0, 4, 2}, {1, 0, 129}, {1, ~uint64_t{0}, 2}}) {
    request.set_disk(static_cast<uint32_t>(disk));
    request.set_first_block(first);
    request.set_count(count);
    EXPECT_EQ(refused({begin_sync, begin_disks, ask}), Fault::kDisks) << disk << " " << first;
  }
}

TEST_F(ReplicaDisksTest, HashesAreAnswered) {
  v1::SyncBegin sync;
  sync.set_total_pages(1024);
  v1::DiskSyncBegin begin;
  begin.set_disk_count(2);
  v1::DiskHashRequest request;
  request.set_disk(0);
  request.set_first_block(3);
  request.set_count(2);
  disks.disks[0].bytes[4 * kDiskBlockBytes] = std::byte{1};
  rig->Feed(primary.StartStream(kTerm));
  rig->Feed({Control(FrameKind::kSyncBegin, sync), Control(FrameKind::kDiskSyncBegin, begin),
             Control(FrameKind::kDiskHashRequest, request)});
  ASSERT_EQ(rig->Replies().back().kind, FrameKind::kDiskHashes);
  const auto hashes = codec::ParseDiskHashes(rig->Replies().back().body);
  ASSERT_TRUE(hashes.ok());
  EXPECT_EQ(hashes->disk, 0u);
  EXPECT_EQ(hashes->first_block, 3u);
  ASSERT_EQ(hashes->hashes.size(), 2u);
  EXPECT_EQ(hashes->hashes[0], codec::ZeroDiskBlockHash(kDiskBlockBytes));
  // The disk's last block is shorter.
  const auto tail = std::span(disks.disks[0].bytes).subspan(4 * kDiskBlockBytes);
  EXPECT_LT(tail.size(), kDiskBlockBytes);
  EXPECT_EQ(hashes->hashes[1], codec::HashDiskBlock(tail));
}

TEST_F(ReplicaDisksTest, P7_AnEpochWithOtherDiskRecordsThanAnnouncedIsRefused) {
  std::string zeros;
  codec::AppendDiskRecord(codec::DiskRecordKind::kZeros, 0, 0, 512, {}, &zeros);
  codec::DiskDigest digest;
  digest.Add(zeros);
  v1::EpochCommit good;
  good.set_machine(primary.Machine(EpochId(1)).Serialize());
  good.set_machine_digest(codec::HashBytes(good.machine()));
  good.set_disk_record_count(1);
  good.set_disk_bytes(512);
  good.set_disk_digest(digest.value());
  const auto fault_of = [&](const v1::EpochCommit& commit) {
    rig->Connect();
    Sync();
    rig->Feed({Raw(FrameKind::kEpochDisks, EpochId(1), zeros),
               primary.Control(FrameKind::kEpochCommit, kTerm, EpochId(1), commit)});
    return rig->link->closed() ? FaultOf(rig->listener.why) : Fault::kNone;
  };
  EXPECT_EQ(fault_of(good), Fault::kNone) << rig->listener.why;
  v1::EpochCommit bad = good;
  bad.set_disk_record_count(2);
  EXPECT_EQ(fault_of(bad), Fault::kCount);
  bad = good;
  bad.set_disk_bytes(1024);
  EXPECT_EQ(fault_of(bad), Fault::kCount);
  bad = good;
  bad.set_disk_digest(1);
  EXPECT_EQ(fault_of(bad), Fault::kDigest);
  EXPECT_EQ(disks.journaled, 1u);
}

TEST_F(ReplicaDisksTest, P6_TheStagingCapCountsDiskBytes) {
  options.staging_cap_bytes = 100 << 10;
  rig = std::make_unique<SessionRig>(4, options);
  Sync();
  Epoch(1, 1);
  ASSERT_EQ(rig->LastAck(), EpochId(1)) << rig->listener.why;
  EXPECT_EQ(rig->store.status().staged_bytes, 0u);
  const std::string block(64 << 10, 'b');
  std::string body;
  codec::AppendDiskRecord(codec::DiskRecordKind::kWrite, 1, 0, block.size(), base::AsBytes(block),
                          &body);
  rig->Feed({Raw(FrameKind::kEpochDisks, EpochId(2), body)});
  EXPECT_GE(rig->store.status().staged_bytes, block.size());
  rig->Feed({Raw(FrameKind::kEpochDisks, EpochId(2), body)});
  EXPECT_EQ(rig->FaultCount(Fault::kCap), 1u);
  EXPECT_EQ(rig->SentGoodbye().reason(), v1::Goodbye::REASON_CAP);
  // Many small records cost as well.
  rig->Connect();
  Sync();
  std::string flushes;
  for (int i = 0; i < 3000; ++i) {
    codec::AppendDiskRecord(codec::DiskRecordKind::kFlush, 0, 0, 0, {}, &flushes);
  }
  rig->Feed({Raw(FrameKind::kEpochDisks, EpochId(2), flushes)});
  EXPECT_EQ(rig->FaultCount(Fault::kCap), 2u);
}

TEST_F(ReplicaDisksTest, AnAbortedEpochsDiskWritesAreForgotten) {
  Sync();
  Epoch(1, 2);
  const std::vector<DiskBytes> before = primary.disks();
  std::string zeros;
  codec::AppendDiskRecord(codec::DiskRecordKind::kZeros, 1, 0, 1u << 20, {}, &zeros);
  rig->Feed({Raw(FrameKind::kEpochDisks, EpochId(2), zeros),
             primary.Control(FrameKind::kEpochAbort, kTerm, EpochId(2), v1::EpochAbort())});
  Epoch(3, 0);
  ASSERT_EQ(rig->LastAck(), EpochId(3)) << rig->listener.why;
  EXPECT_EQ(ModelPrimary::DiskDifference(before, disks), "");
}

TEST_F(ReplicaDisksTest, AnInterruptedSyncIsWorthNothing) {
  rig->Feed(primary.StartStream(kTerm));
  Messages sync = primary.FullSync(kTerm);
  sync.resize(sync.size() - 3);
  rig->Feed(sync);
  rig->session->OnClosed(absl::UnavailableError("cut"));
  ASSERT_EQ(rig->store.disk_facts().size(), 2u);
  EXPECT_EQ(rig->store.disk_facts()[0].role, CopyRole::kSyncing);
  EXPECT_FALSE(rig->store.TakeForPromotion(Term(9)).ok());
  rig->Connect();
  Sync();
  Epoch(1, 1);
  EXPECT_EQ(WrongDisk(), "");
  rig->session->OnClosed(absl::UnavailableError("cut"));
  EXPECT_EQ(rig->store.disk_facts()[0].role, CopyRole::kSecondary);
  EXPECT_EQ(rig->store.disk_facts()[0].stamp, (EpochKey{kTerm, EpochId(1)}));
}

// A copy that was empty when the node started, and that a sync has written to since: its next
// primary must compare, or what is there now would stay where that primary has zeros.
TEST_F(ReplicaDisksTest, ACopyThatWasWrittenIsNotSaidToBeEmpty) {
  const auto said = [&] {
    rig->Connect();
    rig->Feed(primary.StartStream(kTerm));
    return rig->listener.hello.disks(0).all_zero();
  };
  v1::DiskCopy stale;  // what was judged from
  stale.set_disk(0);
  stale.set_all_zero(true);
  rig->policy.disks = {stale};
  EXPECT_FALSE(said());
  disks.disks[0].facts.all_zero = true;
  EXPECT_TRUE(said());
  Messages sync = primary.FullSync(kTerm);
  sync.resize(sync.size() - 3);
  rig->Feed(sync);
  EXPECT_FALSE(said());
}

TEST_F(ReplicaDisksTest, GivenUpByThePrimaryTheDisksAreTold) {
  Sync();
  Epoch(1, 3);
  v1::Goodbye goodbye;
  goodbye.set_reason(v1::Goodbye::REASON_UNPROTECT);
  rig->Feed({Control(FrameKind::kGoodbye, goodbye)});
  EXPECT_TRUE(disks.given_up);
  EXPECT_EQ(rig->SentGoodbye().reason(), v1::Goodbye::REASON_UNPROTECT);
  EXPECT_EQ(WrongDisk(), "") << "the copies stay at the last epoch";
}

TEST_F(ReplicaDisksTest, ARetiredStoreLeavesTheDisksAlone) {
  Sync();
  Epoch(1, 3);
  rig->store.Retire();
  disks.fail_apply = absl::UnavailableError("must not be called");
  rig->session->OnClosed(absl::UnavailableError("cut"));
  SessionRig next(4, options);
  disks.fail_apply = absl::OkStatus();
  next.Feed(primary.StartStream(kTerm));
  next.Feed(primary.FullSync(kTerm));
  primary.MutateDisks(2);
  next.Feed(primary.RandomEpoch(kTerm, EpochId(7), 5));
  EXPECT_EQ(next.LastAck(), EpochId(7)) << next.listener.why;
  EXPECT_EQ(WrongDisk(), "");
}

// Several epochs in one message, each with an audit of what the next one writes.
TEST_F(ReplicaDisksTest, DisksAreAuditedAtTheirEpoch) {
  Sync();
  std::string all;
  for (uint64_t epoch = 1; epoch < 40; ++epoch) {
    primary.MutateDisks(20);
    primary.disk_audit = {primary.DiskRun(0, 0, 5), primary.DiskRun(1, 2, 14)};
    all += Join(primary.RandomEpoch(kTerm, EpochId(epoch), 10));
  }
  rig->Feed({all});
  Epoch(40, 1);
  EXPECT_EQ(rig->counters.audited_blocks, 39u * 19) << rig->listener.why;
  EXPECT_TRUE(rig->listener.block_mismatches.empty());
  disks.disks[1].bytes[200'000] ^= std::byte{1};
  primary.disk_audit = {primary.DiskRun(1, 0, 16)};
  rig->Feed(primary.Epoch(kTerm, EpochId(41), {}));
  rig->Feed(primary.Epoch(kTerm, EpochId(42), {}));
  ASSERT_EQ(rig->listener.block_mismatches.size(), 1u);
  EXPECT_EQ(rig->listener.block_mismatches[0].epoch, EpochId(41));
  EXPECT_EQ(rig->listener.block_mismatches[0].block, (epoch::DiskBlock{1, 3}));
  EXPECT_EQ(rig->counters.audit_block_mismatches, 1u);
  v1::Ack ack;
  for (const Reply& reply : rig->Replies()) {
    if (reply.kind == FrameKind::kAck) ack.ParseFromString(reply.body);
  }
  EXPECT_EQ(ack.audited_blocks(), 39u * 19 + 16);
  EXPECT_EQ(ack.mismatched_blocks(), 1u);
  ASSERT_EQ(ack.disk_mismatches_size(), 1);
  EXPECT_EQ(ack.disk_mismatches(0).disk(), 1u);
  EXPECT_EQ(ack.disk_mismatches(0).block(), 3u);
  EXPECT_EQ(ack.disk_mismatches(0).epoch(), 41u);
}

TEST_F(ReplicaDisksTest, AnAuditOfNoDiskIsRefused) {
  const auto blocks = [](const std::vector<epoch::DiskAuditRun>& runs) {
    std::string body;
    codec::AppendAuditRuns(runs, &body);
    return body;
  };
  const auto some = [](uint32_t disk, uint64_t first, size_t count) {
    return epoch::DiskAuditRun{disk, first, std::vector<DiskHash>(count)};
  };
  std::string memory_behind = blocks({some(0, 0, 1)});
  codec::AppendAuditRuns({codec::AuditedPages{Gfn(1), {{1, 2}}, {0}}}, &memory_behind);
  const std::pair<std::string, std::string> bad[] = {
      {"another disk", blocks({some(2, 0, 1)})},
      {"the last of all", blocks({some(UINT32_MAX - 1, 0, 1)})},
      {"beyond it", blocks({some(0, 4, 2)})},
      {"far beyond it", blocks({some(0, UINT64_MAX, 1)})},
      {"too many", blocks({some(1, 0, 65)})},
      {"none", blocks({some(1, 0, 0)})},
      {"twice", blocks({some(0, 1, 2), some(0, 2, 1)})},
      {"disks descend", blocks({some(1, 0, 1), some(0, 0, 1)})},
      {"memory behind", memory_behind}};
  for (const auto& [what, body] : bad) {
    rig = std::make_unique<SessionRig>(4, options);
    Sync();
    rig->Feed({Raw(FrameKind::kEpochAudit, EpochId(1), body)});
    EXPECT_EQ(rig->FaultCount(Fault::kAudit), 1u) << what;
  }
}

}  // namespace
}  // namespace romulus::replica
