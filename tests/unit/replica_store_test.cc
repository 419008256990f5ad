// The store fed through a session with what the real encoder writes: exact copies, all or nothing,
// and what there is to promote.
#include "replica/replica_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "replica/fault.h"
#include "unit/replica_rig.h"
#include "unit/replica_session_rig.h"

namespace romulus::replica {
namespace {

using testing::HasSubstr;

constexpr Term kTerm(3);

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Synced, and one epoch committed.
void Protect(ModelPrimary* primary, SessionRig* rig) {
  rig->Feed(primary->StartStream(kTerm));
  rig->Feed(primary->FullSync(kTerm));
  rig->Feed(primary->RandomEpoch(kTerm, EpochId(1), 30));
  ASSERT_EQ(rig->LastAck(), EpochId(1)) << rig->listener.why;
  ASSERT_EQ(primary->Difference(*rig->memory), "");
}

TEST(ReplicaStoreTest, SaysWhyThereIsNothingToPromote) {
  ModelPrimary primary(4, {.sync_body_bytes = codec::kPageBodyBytes});
  SessionRig rig;
  EXPECT_THAT(Message(rig.store.TakeForPromotion(Term(9)).status()),
              HasSubstr("nothing to promote: no full sync has begun"));
  rig.Feed(primary.StartStream(kTerm));
  Messages sync = primary.FullSync(kTerm);
  ASSERT_GT(sync.size(), 4u);
  const size_t middle = sync.size() / 2;
  for (size_t i = 0; i < middle; ++i) rig.Feed({sync[i]});
  const absl::Status half = rig.store.TakeForPromotion(Term(9)).status();
  EXPECT_EQ(half.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(half), testing::ContainsRegex("full sync [1-9][0-9] % done .[0-9]+ of 1024 "
                                                    "pages., no epoch committed yet"));
  for (size_t i = middle; i < sync.size(); ++i) rig.Feed({sync[i]});
  EXPECT_TRUE(rig.listener.sync_complete) << rig.listener.why;
  EXPECT_THAT(Message(rig.store.TakeForPromotion(Term(9)).status()),
              HasSubstr("full sync done, no epoch committed yet"));
  // Asking in vain has broken nothing.
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 30));
  EXPECT_EQ(rig.LastAck(), EpochId(1));
  EXPECT_TRUE(rig.store.TakeForPromotion(Term(9)).ok());
  EXPECT_THAT(Message(rig.store.TakeForPromotion(Term(9)).status()), HasSubstr("was promoted"));
}

TEST(ReplicaStoreTest, AFullSyncGivesMemoryToNoPageThatIsZero) {
  ModelPrimary primary;
  SessionRig rig;
  rig.Feed(primary.StartStream(kTerm));
  rig.Feed(primary.FullSync(kTerm));
  ASSERT_TRUE(rig.listener.sync_complete) << rig.listener.why;
  const auto exists = [&rig](uint64_t gfn) {
    const auto at = static_cast<off_t>(gfn * kPageSize);
    return ::lseek(rig.memory->fd(), at, SEEK_DATA) == at;
  };
  uint64_t zeros = 0;
  for (uint64_t gfn = 0; gfn < primary.layout().page_count(); ++gfn) {
    const bool is_zero = codec::IsZeroPage(codec::PageBytes(primary.page(Gfn(gfn)), kPageSize));
    zeros += is_zero;
    EXPECT_EQ(exists(gfn), !is_zero) << gfn;
  }
  EXPECT_GT(zeros, 0);
}

TEST(ReplicaStoreTest, RandomEpochsAreCopiedExactly) {
  // With a previous-version cache of few, some and all pages.
  for (const uint64_t cache_pages : {0, 30, 4096}) {
    codec::EncoderOptions options;
    options.previous_cache_bytes = cache_pages * kPageSize;
    options.page_body_bytes = 20000;
    options.message_bytes = 50000;
    ModelPrimary primary(4, options, cache_pages + 7);
    SessionRig rig;
    Protect(&primary, &rig);
    for (uint64_t epoch = 2; epoch < 60; ++epoch) {
      const size_t pages = primary.random()() % (primary.random()() % 10 == 0 ? 600 : 20);
      const Messages messages = primary.RandomEpoch(kTerm, EpochId(epoch), pages);
      const std::vector<std::byte> now = primary.memory();
      rig.Feed(messages);
      ASSERT_EQ(rig.LastAck(), EpochId(epoch)) << rig.listener.why;
      ASSERT_EQ(ModelPrimary::DifferenceFrom(now, *rig.memory), "") << "epoch " << epoch;
    }
    absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(4));
    ASSERT_TRUE(taken.ok());
    EXPECT_EQ(taken->key, (EpochKey{kTerm, EpochId(59)}));
    EXPECT_EQ(taken->machine, primary.Machine(EpochId(59)));
    EXPECT_EQ(taken->memory, rig.memory);
  }
}

TEST(ReplicaStoreTest, AbortedEpochsLeaveNoTrace) {
  for (const uint64_t cache_pages : {5, 4096}) {
    codec::EncoderOptions options;
    options.previous_cache_bytes = cache_pages * kPageSize;
    ModelPrimary primary(4, options, 11);
    SessionRig rig;
    Protect(&primary, &rig);
    std::vector<Gfn> put_back;  // dirty pages of aborted epochs, in the next one again (P5)
    EpochId epoch(2);
    for (int round = 0; round < 80; ++round) {
      std::vector<Gfn> dirty = primary.MutateSome(primary.random()() % 40);
      dirty.insert(dirty.end(), put_back.begin(), put_back.end());
      std::sort(dirty.begin(), dirty.end());
      dirty.erase(std::unique(dirty.begin(), dirty.end()), dirty.end());
      if (primary.random()() % 3 == 0) {
        const size_t sent = primary.random()() % (dirty.size() + 1);
        rig.Feed(primary.AbortedEpoch(kTerm, epoch, {dirty.begin(), dirty.begin() + sent}));
        put_back = dirty;
        if (primary.random()() % 2 == 0) epoch = epoch.Next();
        continue;
      }
      rig.Feed(primary.Epoch(kTerm, epoch, dirty));
      put_back.clear();
      ASSERT_EQ(rig.LastAck(), epoch) << rig.listener.why;
      ASSERT_EQ(primary.Difference(*rig.memory), "") << "round " << round;
      epoch = epoch.Next();
    }
    EXPECT_GT(rig.counters.epochs_aborted, 12u);
  }
}

TEST(ReplicaStoreTest, AnUnfinishedEpochChangesNothing) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  const std::vector<std::byte> committed = primary.memory();
  Messages messages = primary.RandomEpoch(kTerm, EpochId(2), 700);
  ASSERT_GT(messages.size(), 2u);
  messages.pop_back();
  rig.Feed(messages);
  rig.session->OnClosed(absl::UnavailableError("the primary died"));
  absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(4));
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->key.epoch, EpochId(1));
  EXPECT_EQ(taken->machine, primary.Machine(EpochId(1)));
  EXPECT_EQ(ModelPrimary::DifferenceFrom(committed, *rig.memory), "");
}

// Every way to damage the messages of one epoch: it must be refused, counted, and change nothing.
TEST(ReplicaStoreTest, DamagedEpochsAreRefusedWhole) {
  ModelPrimary primary;
  Messages before = primary.StartStream(kTerm);
  for (const std::string& m : primary.FullSync(kTerm)) before.push_back(m);
  for (const std::string& m : primary.RandomEpoch(kTerm, EpochId(1), 30)) before.push_back(m);
  const std::vector<std::byte> committed = primary.memory();
  const std::string good = Join(primary.RandomEpoch(kTerm, EpochId(2), 8));
  std::mt19937_64 random(5);
  for (size_t round = 0; round < 80; ++round) {
    std::string bad = good;
    switch (round % 4) {
      case 0:
        bad[random() % bad.size()] ^= static_cast<char>(1 << (random() % 8));
        break;
      case 1:
        bad.resize(1 + random() % (bad.size() - 1));
        break;
      case 2: {  // a piece is missing
        const size_t from = random() % (bad.size() - 1);
        bad.erase(from, 1 + random() % (bad.size() - from - 1));
        break;
      }
      case 3: {  // a piece is doubled
        const size_t from = random() % bad.size();
        const size_t size = 1 + random() % (bad.size() - from);
        bad.insert(from, bad.substr(from, size));
        break;
      }
    }
    SessionRig victim;
    victim.Feed(before);
    ASSERT_EQ(victim.LastAck(), EpochId(1));
    victim.Feed({bad});
    if (victim.store.status().newest.epoch == EpochId(1)) {
      ASSERT_EQ(ModelPrimary::DifferenceFrom(committed, *victim.memory), "") << round;
    } else {
      // Doubled bytes behind the commit damage what comes after it.
      ASSERT_EQ(round % 4, 3u) << "a damaged epoch was committed";
      ASSERT_EQ(primary.Difference(*victim.memory), "");
    }
    // Cut exactly between two frames, nothing is wrong yet: the epoch is unfinished.
    if (round % 4 != 1 && round % 4 != 2) {
      ASSERT_TRUE(victim.link->closed());
      ASSERT_EQ(victim.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
      ASSERT_EQ(victim.FaultCount(Fault::kFraming), 1u);
    }
    ASSERT_EQ(victim.LastAck(), victim.store.status().newest.epoch);
    ASSERT_TRUE(victim.store.TakeForPromotion(Term(4)).ok());
  }
}

TEST(ReplicaStoreTest, AFullSyncMustNameEveryPage) {
  ModelPrimary primary;
  SessionRig rig;
  rig.Feed(primary.StartStream(kTerm));
  rig.Feed(primary.FullSync(kTerm, /*name_all=*/false));
  EXPECT_EQ(rig.FaultCount(Fault::kCount), 1u);
  EXPECT_THAT(rig.SentGoodbye().detail(), HasSubstr("1023 of 1024 pages"));
}

// How often a full sync is refused for its pages whose first frame has this body.
uint64_t FaultsOfSyncPages(const std::string& body, uint32_t protocol = codec::kNewestProtocol) {
  ModelPrimary primary;
  SessionRig rig;
  rig.policy.protocol = protocol;
  rig.Feed(primary.StartStream(kTerm));
  v1::SyncBegin begin;
  begin.set_total_pages(1024);
  rig.Feed({primary.Control(codec::FrameKind::kSyncBegin, kTerm, EpochId(), begin)});
  std::string message;
  primary.writer().Append(codec::FrameKind::kSyncPages, kTerm, EpochId(), body, &message);
  rig.Feed({message});
  return rig.FaultCount(Fault::kPages);
}

// Page 1: a byte of a page that was 'x'.
std::string SparseRecord() {
  std::string page(kPageSize, 'x');
  const auto bytes = std::as_bytes(std::span<const char, kPageSize>(page));
  std::string body;
  codec::AppendPage({}, Gfn(1), bytes, nullptr, &body);
  const std::string before = page;
  page[9] = 'y';
  codec::AppendPage(codec::Dialect(codec::kSparseSince), Gfn(1), bytes,
                    std::as_bytes(std::span(before)).data(), &body);
  return body;
}

TEST(ReplicaStoreTest, SparseRecordsAreOfANewerStream) {
  EXPECT_EQ(FaultsOfSyncPages(SparseRecord()), 0u);
  EXPECT_EQ(FaultsOfSyncPages(SparseRecord(), codec::kSparseSince - 1), 1u);
}

TEST(ReplicaStoreTest, ChangesToVersionsNeverSentAreRefused) {
  std::string body;
  const std::string page(kPageSize, 'x');
  const auto bytes = std::as_bytes(std::span<const char, kPageSize>(page));
  codec::AppendPage({}, Gfn(1), bytes, bytes.data(), &body);
  EXPECT_EQ(FaultsOfSyncPages(body), 1u);
}

// Twelve bytes name all of memory; a frame could do so hundreds of thousands of times.
TEST(ReplicaStoreTest, AFrameNamesNoMorePagesThanTwiceTheGuests) {
  std::string body;
  for (int i = 0; i < 2; ++i) codec::AppendZeroRun(Gfn(0), 1024, &body);
  EXPECT_EQ(FaultsOfSyncPages(body), 0u);
  codec::AppendZeroRun(Gfn(0), 1024, &body);
  EXPECT_EQ(FaultsOfSyncPages(body), 1u);
}

TEST(ReplicaStoreTest, ASecondFullSyncGivesTheFirstReplicaUpAndSaysSo) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.session->OnClosed(absl::UnavailableError("cable"));
  // The link is gone, the replica is not.
  EXPECT_EQ(rig.store.status().state, ReplicaState::kCommitted);
  for (uint64_t gfn = 0; gfn < 1024; ++gfn) primary.Mutate(Gfn(gfn));
  rig.Connect();
  rig.Feed(primary.StartStream(kTerm));
  EXPECT_EQ(rig.store.status().state, ReplicaState::kCommitted) << "hello alone destroys nothing";
  const Messages sync = primary.FullSync(kTerm);
  rig.Feed({sync[0]});
  const ReplicaStatus status = rig.store.status();
  EXPECT_EQ(status.state, ReplicaState::kSyncing);
  EXPECT_THAT(status.detail, HasSubstr("the replica of epoch 1 of term 3 was given up"));
  EXPECT_FALSE(rig.store.TakeForPromotion(Term(4)).ok());
  rig.Feed({sync.begin() + 1, sync.end()});
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(12), 30));
  EXPECT_EQ(rig.LastAck(), EpochId(12)) << rig.listener.why;
  EXPECT_EQ(primary.Difference(*rig.memory), "") << "old pages show through";
}

TEST(ReplicaStoreTest, MemoryThatWasAGuestsIsOverwrittenToTheLastPage) {
  ModelPrimary primary;
  const std::shared_ptr<memory::GuestMemory> memory =
      *memory::GuestMemory::Create(primary.layout());
  ASSERT_TRUE(memory->Fill(Gpa(0), std::byte{0x5a}, primary.layout().size_bytes()).ok());
  StoreOptions options;
  options.memory_is_zero = false;
  ReplicaStore store(memory, options, nullptr);
  codec::FrameReader reader;
  reader.SetDialect(codec::Dialect(codec::kNewestProtocol));
  const ReplicaStore::StreamId stream = *store.OpenStream(kTerm);
  Messages messages = primary.StartStream(kTerm);
  for (const std::string& m : primary.FullSync(kTerm)) messages.push_back(m);
  for (const std::string& message : messages) {
    absl::string_view rest = message;
    while (!rest.empty()) {
      const codec::Frame frame = *reader.Next(&rest);
      if (frame.kind == codec::FrameKind::kSyncBegin) {
        ASSERT_TRUE(store.BeginSync(stream, kTerm, 1024).ok());
      } else if (frame.kind == codec::FrameKind::kSyncPages) {
        ASSERT_TRUE(store.SyncPages(stream, frame).ok());
      }
    }
  }
  ASSERT_TRUE(store.EndSync(stream, kTerm).ok());
  EXPECT_EQ(primary.Difference(*memory), "");
}

TEST(ReplicaStoreTest, APageThatTurnsZeroDuringTheSyncHasNoOtherPast) {
  ModelPrimary primary;
  SessionRig rig;
  rig.Feed(primary.StartStream(kTerm));
  Messages messages;
  const auto send = [&messages](std::string message) {
    messages.push_back(std::move(message));
    return absl::OkStatus();
  };
  codec::EpochEncoder& encoder = primary.encoder();
  const auto add = [&](Gfn gfn) {
    return encoder.AddSyncPage(gfn, codec::PageBytes(primary.page(gfn), kPageSize), send);
  };
  primary.page(Gfn(1))[8] = std::byte{7};
  primary.page(Gfn(2))[8] = std::byte{7};
  ASSERT_TRUE(encoder.BeginSync(kTerm, 1024, send).ok());
  for (uint64_t gfn = 0; gfn < 1024; ++gfn) ASSERT_TRUE(add(Gfn(gfn)).ok());
  std::memset(primary.page(Gfn(1)), 0, 2 * kPageSize);
  ASSERT_TRUE(add(Gfn(1)).ok());
  ASSERT_TRUE(encoder.AddSyncZeroRun(Gfn(2), 1, send).ok());
  primary.page(Gfn(1))[8] = std::byte{7};  // as it was at first
  ASSERT_TRUE(add(Gfn(1)).ok());
  ASSERT_TRUE(encoder.EndSync(3, send).ok());
  rig.Feed(messages);
  primary.page(Gfn(2))[8] = std::byte{7};
  rig.Feed(primary.Epoch(kTerm, EpochId(1), {Gfn(2)}));
  EXPECT_EQ(rig.LastAck(), EpochId(1)) << rig.listener.why;
  EXPECT_EQ(primary.Difference(*rig.memory), "");
}

TEST(ReplicaStoreTest, AnotherStreamTakesOver) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  const Messages late = primary.RandomEpoch(kTerm, EpochId(2), 30);
  const std::unique_ptr<Session> old = std::move(rig.session);
  const std::shared_ptr<RecordingLink> old_link = rig.link;
  rig.Connect();
  ModelPrimary other;
  rig.Feed(other.StartStream(kTerm));
  old->OnMessage(late[0]);
  EXPECT_TRUE(old_link->closed());
  EXPECT_EQ(rig.store.status().newest.epoch, EpochId(1));
  EXPECT_EQ(rig.FaultCount(Fault::kSuperseded), 1u);
  rig.Feed(other.FullSync(kTerm));
  EXPECT_FALSE(rig.link->closed()) << "the old stream's end has ended the new one";
}

TEST(ReplicaStoreTest, ConsoleTailAfterPromotion) {
  ModelPrimary primary;
  SessionRig rig;
  rig.Feed(primary.StartStream(kTerm));
  rig.Feed(primary.FullSync(kTerm));
  rig.Feed(primary.Epoch(kTerm, EpochId(1), {}, "step 1\n", 0));
  rig.Feed(primary.Epoch(kTerm, EpochId(2), {}, "step 2\n", 0));
  rig.Feed(primary.Epoch(kTerm, EpochId(3), {}, "step 3\n", 7));
  v1::Heartbeat heartbeat;
  heartbeat.set_console_released(10);
  rig.Feed({primary.Control(codec::FrameKind::kHeartbeat, kTerm, EpochId(), heartbeat)});
  EXPECT_EQ(rig.console.content, "step 1\nstep 2\nstep 3\n");
  absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(4));
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->console_offset, 10u);
  EXPECT_EQ(taken->console_tail, "p 2\nstep 3\n");
  EXPECT_EQ(taken->console_end, 21u);
}

TEST(ReplicaStoreTest, ConsoleBytesThatDoNotFitRefuseTheEpoch) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  const std::vector<std::byte> committed = primary.memory();
  rig.Feed(primary.Epoch(kTerm, EpochId(2), {}, "abcd", 0));
  primary.Mutate(Gfn(1));
  rig.Feed(primary.Epoch(kTerm, EpochId(3), {Gfn(1)}, "", 5));  // released beyond the end
  EXPECT_EQ(rig.FaultCount(Fault::kConsole), 1u);
  EXPECT_EQ(rig.LastAck(), EpochId(2));
  EXPECT_EQ(rig.store.status().newest.epoch, EpochId(2));
  EXPECT_EQ(ModelPrimary::DifferenceFrom(committed, *rig.memory), "");
}

TEST(ReplicaStoreTest, CapsGiveTheirReason) {
  StoreOptions options;
  options.staging_cap_bytes = 10 * kPageSize;
  ModelPrimary primary;
  SessionRig rig(4, options);
  rig.Feed(primary.StartStream(kTerm));
  rig.Feed(primary.FullSync(kTerm));
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 100));
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_CAP);
  EXPECT_EQ(rig.FaultCount(Fault::kCap), 1u);
}

TEST(ReplicaStoreTest, AFinishedGuestIsNotPromoted) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  v1::Goodbye goodbye;
  goodbye.set_reason(v1::Goodbye::REASON_GUEST_FINISHED);
  goodbye.set_detail("power off");
  rig.Feed({primary.Control(codec::FrameKind::kGoodbye, kTerm, EpochId(), goodbye)});
  EXPECT_EQ(rig.listener.goodbye.detail(), "power off");
  EXPECT_THAT(Message(rig.store.TakeForPromotion(Term(4)).status()), HasSubstr("power off"));
  EXPECT_EQ(rig.store.status().state, ReplicaState::kGuestFinished);
}

}  // namespace
}  // namespace romulus::replica
