#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "memory/guest_memory.h"
#include "memory/lock.h"
#include "memory/memory_layout.h"
#include "memory/page_set.h"

namespace romulus::memory {
namespace {

TEST(MemoryLayoutTest, LeavesTheHoleBelowFourGib) {
  auto layout = MemoryLayout::ForMib(4096);
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->regions().size(), 2u);
  EXPECT_EQ(layout->regions()[0].size_bytes, 3ull << 30);
  EXPECT_EQ(layout->regions()[1].gpa, Gpa(4ull << 30));
  EXPECT_EQ(layout->regions()[1].size_bytes, 1ull << 30);
  EXPECT_FALSE(layout->Contains(GfnOf(Gpa(3ull << 30))));
  EXPECT_TRUE(layout->Contains(GfnOf(Gpa((5ull << 30) - 1))));
  EXPECT_EQ(layout->gfn_end(), GfnOf(Gpa(5ull << 30)));
  EXPECT_EQ(layout->GfnAt(3ull << 18), GfnOf(Gpa(4ull << 30)));
}

TEST(MemoryLayoutTest, RefusesNonsense) {
  EXPECT_EQ(MemoryLayout::ForMib(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MemoryLayout::ForMib(~0ull).status().code(), absl::StatusCode::kInvalidArgument);
}

class GuestMemoryTest : public ::testing::Test {
 protected:
  GuestMemoryTest() : memory_(*GuestMemory::Create(*MemoryLayout::ForMib(4))) {}
  std::set<uint64_t> Drain() {
    PageSet pages(memory_->layout().gfn_end());
    memory_->write_log().Drain(pages);
    std::set<uint64_t> gfns;
    for (Gfn gfn : pages.pages()) gfns.insert(gfn.value());
    return gfns;
  }
  std::unique_ptr<GuestMemory> memory_;
};

TEST_F(GuestMemoryTest, P4_EveryWriteOfTheVmmIsMarked) {
  const std::vector<std::byte> bytes(2 * kPageSize, std::byte{7});
  ASSERT_TRUE(memory_->Write(Gpa(3 * kPageSize + 100), bytes).ok());
  EXPECT_EQ(Drain(), (std::set<uint64_t>{3, 4, 5}));
  EXPECT_TRUE(Drain().empty());
  ASSERT_TRUE(memory_->Fill(Gpa(9 * kPageSize), std::byte{1}, kPageSize).ok());
  ASSERT_TRUE(memory_->WriteObject<uint64_t>(Gpa(1023 * kPageSize), 1).ok());
  ASSERT_TRUE(memory_->MarkWritten(Gpa(64 * kPageSize - 1), 2).ok());
  EXPECT_EQ(Drain(), (std::set<uint64_t>{9, 63, 64, 1023}));
}

TEST_F(GuestMemoryTest, ReplicaWritesAreNotMarked) {
  std::array<std::byte, kPageSize> page;
  page.fill(std::byte{5});
  ASSERT_TRUE(memory_->ApplyPage(Gfn(2), page).ok());
  EXPECT_EQ(std::memcmp(memory_->Page(Gfn(2)).data(), page.data(), kPageSize), 0);
  ASSERT_TRUE(memory_->ApplyZeroPage(Gfn(2)).ok());
  EXPECT_EQ(memory_->Page(Gfn(2))[17], std::byte{0});
  EXPECT_TRUE(Drain().empty());
}

TEST_F(GuestMemoryTest, OneOfManyPagesIsTheSamePage) {
  std::vector<std::byte> bytes(kPageSize + 1);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31 % 251);
  const PageBytes odd(bytes.data() + 1, kPageSize);  // as it lies in a message
  {
    PastCaches many;
    ASSERT_TRUE(memory_->ApplyPage(Gfn(2), odd, &many).ok());
    EXPECT_FALSE(memory_->ApplyPage(Gfn(1024), odd, &many).ok());
  }
  EXPECT_EQ(std::memcmp(memory_->Page(Gfn(2)).data(), odd.data(), kPageSize), 0);
  EXPECT_EQ(memory_->Page(Gfn(1))[kPageSize - 1], std::byte{0});
  EXPECT_EQ(memory_->Page(Gfn(3))[0], std::byte{0});
  EXPECT_TRUE(Drain().empty());
}

TEST_F(GuestMemoryTest, PopulatedPagesExistAndNoOthers) {
  memory_->PopulatePages(Gfn(4), 3);
  memory_->PopulatePages(Gfn(1023), 2);  // not all in memory
  memory_->PopulatePages(Gfn(~0ull >> 12), 1);
  const auto seek = [this](uint64_t page, int what) {
    return ::lseek(memory_->fd(), static_cast<off_t>(page * kPageSize), what);
  };
  EXPECT_EQ(seek(0, SEEK_DATA), 4 * off_t{kPageSize});
  EXPECT_EQ(seek(4, SEEK_HOLE), 7 * off_t{kPageSize});
  EXPECT_EQ(seek(7, SEEK_DATA), -1);
  EXPECT_EQ(memory_->Page(Gfn(5))[0], std::byte{0});
}

TEST_F(GuestMemoryTest, P7_RefusesEverythingOutsideMemory) {
  std::array<std::byte, 16> bytes{};
  const uint64_t end = 4ull << 20;
  for (uint64_t gpa : std::vector<uint64_t>{end - 15, end, ~0ull - 7, ~0ull, 1ull << 63}) {
    EXPECT_EQ(memory_->Read(Gpa(gpa), bytes).code(), absl::StatusCode::kOutOfRange) << gpa;
    EXPECT_EQ(memory_->Write(Gpa(gpa), bytes).code(), absl::StatusCode::kOutOfRange) << gpa;
  }
  EXPECT_EQ(memory_->Fill(Gpa(8), std::byte{0}, ~0ull).code(), absl::StatusCode::kOutOfRange);
  EXPECT_FALSE(memory_->WritableSpan(Gpa(end - 1), 2).ok());
  std::array<std::byte, kPageSize> page{};
  EXPECT_FALSE(memory_->ApplyPage(Gfn(1024), page).ok());
  EXPECT_FALSE(memory_->ApplyPage(Gfn(~0ull >> 12), page).ok());
  EXPECT_TRUE(Drain().empty());
}

TEST(WriteLogTest, P4_NoMarkIsLostBesideADrain) {
  constexpr uint64_t kPages = 4096;
  WriteLog log{Gfn(kPages)};
  std::atomic<bool> done{false};
  std::thread marker([&] {
    std::mt19937_64 random(1);
    for (int i = 0; i < 200'000; ++i) log.Mark(Gfn(random() % kPages));
    done = true;
  });
  PageSet seen{Gfn(kPages)};
  while (!done) log.Drain(seen);
  marker.join();
  log.Drain(seen);
  EXPECT_EQ(seen.size(), kPages);  // 200,000 draws miss a page with probability 1e-18
}

TEST(WriteLogTest, KnowsWhetherItHoldsAnything) {
  WriteLog log{Gfn(4096 * 64 + 1)};
  EXPECT_TRUE(log.LikelyEmpty());
  log.Mark(Gfn(4096 * 64));  // the last one
  EXPECT_FALSE(log.LikelyEmpty());
  PageSet taken{Gfn(4096 * 64 + 1)};
  log.Drain(taken);
  EXPECT_TRUE(log.LikelyEmpty());
}

TEST(PageSetTest, KeepsMembersOnceAndForgetsThem) {
  PageSet set{Gfn(200)};
  EXPECT_TRUE(set.Insert(Gfn(199)));
  EXPECT_TRUE(set.Insert(Gfn(3)));
  EXPECT_FALSE(set.Insert(Gfn(3)));
  set.Sort();
  EXPECT_EQ(set.pages()[0], Gfn(3));
  EXPECT_TRUE(set.Contains(Gfn(199)));
  EXPECT_FALSE(set.Contains(Gfn(200)));
  EXPECT_TRUE(set.Erase(Gfn(3)));
  EXPECT_FALSE(set.Contains(Gfn(3)));
  set.Clear();
  EXPECT_TRUE(set.empty());
  EXPECT_TRUE(set.Insert(Gfn(199)));
}

TEST(LockInRamTest, IsLockedInRamOrSaysWhatForbidsIt) {
  const auto locked_kib = [] {
    std::ifstream status("/proc/self/status");
    std::string word;
    uint64_t kib = 0;
    while (status >> word) {
      if (word == "VmLck:") status >> kib;
    }
    return kib;
  };
  const auto layout = MemoryLayout::ForMib(16);
  ASSERT_TRUE(layout.ok());
  auto memory = GuestMemory::Create(*layout);
  ASSERT_TRUE(memory.ok());
  const uint64_t before = locked_kib();
  const absl::Status locked = LockInRam(**memory);
  if (!locked.ok()) {  // neither CAP_IPC_LOCK nor a limit
    EXPECT_EQ(locked.code(), absl::StatusCode::kResourceExhausted) << locked;
    EXPECT_NE(locked.message().find("16 MiB are to be locked"), std::string::npos) << locked;
    return;
  }
  EXPECT_EQ(locked_kib(), before + (16u << 10));
  // A page that was touched can still be made zero.
  ASSERT_TRUE((*memory)->Fill(Gpa(0x1000), std::byte{7}, 4096).ok());
  ASSERT_TRUE((*memory)->ApplyZeroPage(Gfn(1)).ok());
  EXPECT_EQ((*memory)->Page(Gfn(1))[5], std::byte{0});
}

}  // namespace
}  // namespace romulus::memory
