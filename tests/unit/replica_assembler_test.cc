#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "codec/machine_delta.h"
#include "codec/page_encoding.h"
#include "replica/assembler.h"
#include "replica/fault.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::replica {
namespace {

using codec::FrameKind;

class AssemblerTest : public testing::Test {
 protected:
  AssemblerTest()
      : memory_(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4))),
        assembler_(memory_.get(), 64 * kPageSize) {}

  // `page` has one byte set, in every word; as a raw record.
  std::string RawPage(uint64_t gfn, char value) {
    std::string body;
    const std::string page(kPageSize, value);
    codec::AppendPage({}, Gfn(gfn), std::as_bytes(std::span<const char, kPageSize>(page)), nullptr,
                      &body);
    return body;
  }
  absl::Status Pages(uint64_t term, uint64_t epoch, const std::string& body) {
    return assembler_.AddPages({FrameKind::kEpochPages, Term(term), EpochId(epoch), 1, body});
  }
  absl::Status Abort(uint64_t term, uint64_t epoch) {
    return assembler_.Abort({FrameKind::kEpochAbort, Term(term), EpochId(epoch), 1, ""});
  }
  v1::EpochCommit EmptyCommit() {
    v1::EpochCommit commit;
    commit.set_machine_digest(codec::HashBytes(commit.machine()));
    return commit;
  }
  absl::StatusOr<AssembledEpoch> Commit(uint64_t term, uint64_t epoch,
                                        const v1::EpochCommit& commit) {
    const std::string body = commit.SerializeAsString();
    return assembler_.Commit({FrameKind::kEpochCommit, Term(term), EpochId(epoch), 1, body,
                              codec::Dialect(codec::kNewestProtocol)});
  }
  absl::Status CommitEmpty(uint64_t term, uint64_t epoch) {
    return Commit(term, epoch, EmptyCommit()).status();
  }

  std::unique_ptr<memory::GuestMemory> memory_;
  Assembler assembler_;
};

TEST_F(AssemblerTest, NothingBeforeAFullSync) {
  EXPECT_EQ(FaultOf(Pages(1, 1, RawPage(1, 'x'))), Fault::kUnexpected);
  EXPECT_EQ(FaultOf(CommitEmpty(1, 1)), Fault::kUnexpected);
  EXPECT_EQ(FaultOf(Abort(1, 1)), Fault::kUnexpected);
}

TEST_F(AssemblerTest, AnEpochComesOutWhole) {
  assembler_.Start();
  ASSERT_TRUE(Pages(1, 5, RawPage(1, 'x') + RawPage(3, 'y')).ok());
  std::string zeros;
  codec::AppendZeroRun(Gfn(10), 4, &zeros);
  ASSERT_TRUE(Pages(1, 5, zeros).ok());
  codec::PagesDigest digest;
  const auto hash = [](char value) {
    const std::string page(kPageSize, value);
    return codec::PageHash(std::as_bytes(std::span<const char, kPageSize>(page)));
  };
  digest.Add(Gfn(1), hash('x'));
  digest.Add(Gfn(3), hash('y'));
  for (uint64_t gfn = 10; gfn < 14; ++gfn) digest.Add(Gfn(gfn), hash('\0'));
  state::MachineState machine;
  machine.Put("cpu", 0, 1, "registers");
  v1::EpochCommit commit;
  commit.set_page_count(6);
  commit.set_pages_digest(digest.value());
  commit.set_machine(machine.Serialize());
  commit.set_machine_digest(codec::HashBytes(commit.machine()));
  commit.set_console_bytes("hello");
  commit.set_sent_monotonic_ns(99);
  absl::StatusOr<AssembledEpoch> epoch = Commit(1, 5, commit);
  ASSERT_TRUE(epoch.ok()) << epoch.status();
  EXPECT_EQ(epoch->key, (EpochKey{Term(1), EpochId(5)}));
  ASSERT_EQ(epoch->pages.pages().size(), 6u);
  EXPECT_EQ(epoch->pages.pages()[1].gfn, Gfn(3));
  EXPECT_EQ(epoch->pages.pages()[1].bytes[4095], std::byte{'y'});
  EXPECT_EQ(epoch->pages.pages()[2].bytes, nullptr);
  EXPECT_EQ(epoch->machine, machine);
  EXPECT_EQ(epoch->console_bytes, "hello");
  EXPECT_EQ(epoch->sent_monotonic_ns, 99u);
  EXPECT_EQ(memory_->Page(Gfn(1))[0], std::byte{0}) << "the assembler wrote guest memory";
}

TEST_F(AssemblerTest, WhatWasAnnouncedMustHaveCome) {
  const auto try_commit = [this](auto change) {
    assembler_.Start();
    EXPECT_TRUE(Pages(1, 1, RawPage(1, 'x')).ok());
    v1::EpochCommit commit = EmptyCommit();
    commit.set_page_count(1);
    codec::PagesDigest digest;
    const std::string page(kPageSize, 'x');
    digest.Add(Gfn(1), codec::PageHash(std::as_bytes(std::span<const char, kPageSize>(page))));
    commit.set_pages_digest(digest.value());
    change(&commit);
    return FaultOf(Commit(1, 1, commit).status());
  };
  EXPECT_EQ(try_commit([](v1::EpochCommit*) {}), Fault::kNone);
  EXPECT_EQ(try_commit([](v1::EpochCommit* c) { c->set_page_count(2); }), Fault::kCount);
  EXPECT_EQ(try_commit([](v1::EpochCommit* c) { c->set_page_count(0); }), Fault::kCount);
  EXPECT_EQ(try_commit([](v1::EpochCommit* c) { c->set_pages_digest(c->pages_digest() ^ 1); }),
            Fault::kDigest);
  EXPECT_EQ(try_commit([](v1::EpochCommit* c) { c->set_machine_digest(1); }), Fault::kDigest);
  EXPECT_EQ(try_commit([](v1::EpochCommit* c) { c->set_machine("\x0a"); }), Fault::kDigest);
  EXPECT_EQ(try_commit([](v1::EpochCommit* c) {
              c->set_machine("\xff\xff");
              c->set_machine_digest(codec::HashBytes(c->machine()));
            }),
            Fault::kMachine);
  EXPECT_FALSE(assembler_.epoch_open());
  EXPECT_EQ(FaultOf(CommitEmpty(1, 2)), Fault::kUnexpected) << "a stream goes on after an error";
}

TEST_F(AssemblerTest, SparseRecordsAreOfANewerStream) {
  const std::string page = std::string(8, '\0') + "x" + std::string(kPageSize - 9, '\0');
  std::string body;
  codec::AppendPage(codec::Dialect(codec::kSparseSince), Gfn(1),
                    std::as_bytes(std::span<const char, kPageSize>(page)),
                    memory_->Page(Gfn(1)).data(), &body);
  const auto add = [&](uint32_t protocol) {
    assembler_.Start();
    return assembler_.AddPages(
        {FrameKind::kEpochPages, Term(1), EpochId(1), 1, body, codec::Dialect(protocol)});
  };
  EXPECT_TRUE(add(codec::kSparseSince).ok());
  EXPECT_EQ(FaultOf(add(codec::kSparseSince - 1)), Fault::kPages);
}

// A state's delta is on the last one that was committed, of this stream.
TEST_F(AssemblerTest, MachineStatesTravelAsDeltas) {
  codec::MachineDeltaWriter writer;
  state::MachineState machine;
  machine.Put("cpu", 0, 1, std::string(5000, 'r'));
  const auto commit_of = [&] {
    v1::EpochCommit commit;
    writer.Put(machine.Serialize(), codec::Dialect(codec::kNewestProtocol), &commit);
    return commit;
  };
  assembler_.Start();
  ASSERT_TRUE(Commit(1, 1, commit_of()).ok());
  machine = {};
  machine.Put("cpu", 0, 1, std::string(4999, 'r') + "s");
  const v1::EpochCommit delta = commit_of();
  ASSERT_FALSE(delta.machine_delta().empty());
  ASSERT_TRUE(Abort(1, 2).ok());
  absl::StatusOr<AssembledEpoch> epoch = Commit(1, 2, delta);
  ASSERT_TRUE(epoch.ok()) << epoch.status();
  EXPECT_EQ(epoch->machine, machine);
  EXPECT_EQ(FaultOf(Commit(1, 3, delta).status()), Fault::kNone)
      << "the same once more is no change";
  v1::EpochCommit wrong = delta;
  wrong.set_machine_digest(delta.machine_digest() ^ 1);
  EXPECT_EQ(FaultOf(Commit(1, 4, wrong).status()), Fault::kDigest);
  assembler_.Start();
  EXPECT_EQ(FaultOf(Commit(1, 1, delta).status()), Fault::kMachine) << "on one of an older stream";
}

TEST_F(AssemblerTest, EpochsAreConsecutive) {
  assembler_.Start();
  EXPECT_EQ(FaultOf(CommitEmpty(1, 0)), Fault::kEpochOrder);
  assembler_.Start();
  ASSERT_TRUE(CommitEmpty(1, 7).ok());
  ASSERT_TRUE(CommitEmpty(1, 8).ok());
  EXPECT_EQ(FaultOf(CommitEmpty(1, 10)), Fault::kEpochOrder);
  assembler_.Start();
  ASSERT_TRUE(CommitEmpty(1, 7).ok());
  EXPECT_EQ(FaultOf(CommitEmpty(1, 7)), Fault::kEpochOrder);
  assembler_.Start();
  ASSERT_TRUE(CommitEmpty(1, 7).ok());
  EXPECT_EQ(FaultOf(CommitEmpty(1, 6)), Fault::kEpochOrder);
  assembler_.Start();
  ASSERT_TRUE(Pages(1, 7, RawPage(1, 'x')).ok());
  EXPECT_EQ(FaultOf(Pages(1, 8, RawPage(2, 'x'))), Fault::kEpochOrder) << "7 was not closed";
}

TEST_F(AssemblerTest, ANewTermBeginsWithEpochOneBetweenEpochs) {
  assembler_.Start();
  ASSERT_TRUE(CommitEmpty(3, 7).ok());
  ASSERT_TRUE(CommitEmpty(4, 1).ok());
  EXPECT_EQ(FaultOf(CommitEmpty(3, 8)), Fault::kEpochOrder) << "an older term";
  assembler_.Start();
  ASSERT_TRUE(CommitEmpty(3, 7).ok());
  EXPECT_EQ(FaultOf(CommitEmpty(4, 8)), Fault::kEpochOrder);
  assembler_.Start();
  ASSERT_TRUE(Pages(3, 7, RawPage(1, 'x')).ok());
  EXPECT_EQ(FaultOf(Pages(4, 7, RawPage(2, 'x'))), Fault::kEpochOrder) << "inside an epoch";
}

TEST_F(AssemblerTest, AbortedNumbersMayComeAgainOrNot) {
  assembler_.Start();
  ASSERT_TRUE(Pages(1, 7, RawPage(1, 'x')).ok());
  ASSERT_TRUE(Abort(1, 7).ok());
  EXPECT_EQ(assembler_.staged_bytes(), 0u);
  ASSERT_TRUE(CommitEmpty(1, 7).ok());  // without the page: its count is 0
  ASSERT_TRUE(Abort(1, 8).ok());        // nothing of it was sent
  ASSERT_TRUE(CommitEmpty(1, 9).ok());
  EXPECT_EQ(FaultOf(CommitEmpty(1, 8)), Fault::kEpochOrder);
}

TEST_F(AssemblerTest, APageComesOnce) {
  assembler_.Start();
  EXPECT_EQ(FaultOf(Pages(1, 1, RawPage(1, 'x') + RawPage(1, 'x'))), Fault::kPages);
  assembler_.Start();
  ASSERT_TRUE(Pages(1, 1, RawPage(12, 'x')).ok());
  std::string zeros;
  codec::AppendZeroRun(Gfn(10), 4, &zeros);
  EXPECT_EQ(FaultOf(Pages(1, 1, zeros)), Fault::kPages);
  assembler_.Start();
  ASSERT_TRUE(Pages(1, 1, RawPage(12, 'x')).ok());
  ASSERT_TRUE(Abort(1, 1).ok());
  EXPECT_TRUE(Pages(1, 2, RawPage(12, 'x')).ok()) << "in another epoch it may";
}

TEST_F(AssemblerTest, BadPageFramesAreRefused) {
  for (const std::string& body :
       {std::string(), RawPage(1, 'x') + "x", RawPage(1, 'x').substr(0, 100), RawPage(1024, 'x')}) {
    assembler_.Start();
    EXPECT_EQ(FaultOf(Pages(1, 1, body)), Fault::kPages) << body.size();
  }
}

TEST_F(AssemblerTest, StagingIsBounded) {
  assembler_.Start();
  absl::Status status;
  uint64_t gfn = 0;
  while (status.ok() && gfn < 1024) status = Pages(1, 1, RawPage(gfn++, 'x'));
  EXPECT_EQ(FaultOf(status), Fault::kCap) << status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(gfn, 64u) << "64 pages of cap, the list's cost counts too";
  EXPECT_EQ(assembler_.staged_bytes(), 0u);
}

}  // namespace
}  // namespace romulus::replica
