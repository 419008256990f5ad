#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "codec/machine_delta.h"
#include "codec/page_digest.h"
#include "codec/page_encoding.h"
#include "memory/memory_layout.h"
#include "romulus/v1/replication.pb.h"
#include "state/machine_state.h"

namespace romulus::codec {
namespace {

using testing::HasSubstr;

constexpr Dialect kNewest(kNewestProtocol);

std::string RandomState(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string state(bytes, '\0');
  for (char& c : state) c = static_cast<char>(random());
  return state;
}

// Both sides of a stream.
struct Stream {
  v1::EpochCommit Say(const std::string& state, const Dialect& dialect = kNewest) {
    v1::EpochCommit commit;
    writer.Put(state, dialect, &commit);
    return commit;
  }
  std::string Hear(const v1::EpochCommit& commit, const Dialect& dialect = kNewest) {
    absl::StatusOr<std::string> state = reader.Take(commit, dialect);
    EXPECT_TRUE(state.ok()) << state.status();
    if (!state.ok()) return "";
    EXPECT_EQ(HashBytes(*state), commit.machine_digest());
    reader.Keep(*state);
    return *state;
  }

  MachineDeltaWriter writer;
  MachineDeltaReader reader;
};

TEST(MachineDeltaTest, TheFirstIsWholeTheNextWhatChanged) {
  Stream stream;
  std::string state = RandomState(9900, 1);
  const v1::EpochCommit first = stream.Say(state);
  EXPECT_EQ(first.machine(), state);
  EXPECT_TRUE(first.machine_delta().empty());
  EXPECT_EQ(stream.Hear(first), state);
  // Ten words of a halted guest: its TSC, a timer, a few counters.
  for (size_t i = 0; i < 10; ++i) state[i * 960] ^= 1;
  const v1::EpochCommit second = stream.Say(state);
  EXPECT_TRUE(second.machine().empty());
  EXPECT_EQ(second.machine_bytes(), state.size());
  // Of three pages: head and line mask each; of ten words: a word mask and the value each at most.
  EXPECT_LE(second.machine_delta().size(), 3u * 16 + 10 * 9);
  EXPECT_EQ(stream.Hear(second), state);
}

TEST(MachineDeltaTest, OneThatHasNotChangedIsAFewBytes) {
  Stream stream;
  const std::string state = RandomState(9900, 1);
  stream.Hear(stream.Say(state));
  const v1::EpochCommit same = stream.Say(state);
  EXPECT_LE(same.machine_delta().size(), 3u * 8);
  EXPECT_EQ(stream.Hear(same), state);
}

TEST(MachineDeltaTest, AnySizeFollowsAny) {
  Stream stream;
  std::mt19937_64 random(7);
  std::string state = RandomState(5000, 2);
  for (int i = 0; i < 500; ++i) {
    if (random() % 4 == 0) state.resize(1 + random() % 20000);
    for (uint64_t n = random() % 6; n > 0; --n) {
      state[random() % state.size()] = static_cast<char>(random());
    }
    ASSERT_EQ(stream.Hear(stream.Say(state)), state) << i;
  }
}

TEST(MachineDeltaTest, OneThatIsNotShorterIsWhole) {
  Stream stream;
  stream.Hear(stream.Say(RandomState(5000, 1)));
  const std::string other = RandomState(5000, 2);
  const v1::EpochCommit commit = stream.Say(other);
  EXPECT_EQ(commit.machine(), other);
  EXPECT_EQ(stream.Hear(commit), other);
}

TEST(MachineDeltaTest, APeerThatKnowsNoneGetsNone) {
  Stream stream;
  const std::string state = RandomState(5000, 1);
  for (int i = 0; i < 3; ++i) {
    const v1::EpochCommit commit = stream.Say(state, Dialect(5));
    EXPECT_EQ(commit.machine(), state);
    EXPECT_TRUE(commit.machine_delta().empty());
    EXPECT_EQ(commit.machine_bytes(), 0u);
  }
}

TEST(MachineDeltaTest, AnOlderStreamHasNoSparseRecords) {
  std::string state = RandomState(5000, 1);
  const auto delta_bytes = [&state](const Dialect& dialect) {
    Stream stream;
    stream.Hear(stream.Say(state, dialect), dialect);
    state[100] ^= 1;
    const v1::EpochCommit commit = stream.Say(state, dialect);
    EXPECT_EQ(stream.Hear(commit, dialect), state);
    EXPECT_EQ(stream.reader.Take(commit, Dialect(6)).ok(), dialect.version() == 6);
    return commit.machine_delta().size();
  };
  EXPECT_EQ(delta_bytes(Dialect(6)), 2u * kRecordHeadBytes + 8 + 1 + 8);
  EXPECT_EQ(delta_bytes(Dialect(7)), 2u * kRecordHeadBytes + 2 + 2 + 1);
}

TEST(MachineDeltaTest, ANewStreamBeginsWhole) {
  Stream stream;
  const std::string state = RandomState(5000, 1);
  stream.Hear(stream.Say(state));
  stream.writer.Reset();
  EXPECT_EQ(stream.Say(state).machine(), state);
}

class HostileDeltaTest : public testing::Test {
 protected:
  HostileDeltaTest() { reader_.Keep(std::string(9000, 'x')); }

  std::string Why(const std::string& delta, uint32_t bytes) {
    v1::EpochCommit commit;
    commit.set_machine_delta(delta);
    commit.set_machine_bytes(bytes);
    const absl::StatusOr<std::string> state = reader_.Take(commit, kNewest);
    if (state.ok()) return "";
    EXPECT_EQ(state.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(state.status().message());
  }
  static std::string Zeros(uint64_t gfn, uint32_t count) {
    std::string delta;
    AppendZeroRun(Gfn(gfn), count, &delta);
    return delta;
  }

  MachineDeltaReader reader_;
};

TEST_F(HostileDeltaTest, StaysWithinTheState) {
  EXPECT_EQ(Why(Zeros(0, 3), 9000), "");
  EXPECT_THAT(Why(Zeros(3, 1), 9000), HasSubstr("page 3 of 3"));
  EXPECT_THAT(Why(Zeros(1, 3), 9000), HasSubstr("page 1 of 3"));
  EXPECT_THAT(Why(Zeros(0, 4096), 9000), HasSubstr("page 0 of 3"));
  EXPECT_NE(Why(Zeros(0, 4097), 9000), "");
  EXPECT_NE(Why(Zeros(~uint64_t{0} >> 8, 1), 9000), "");
}

// A record of a few bytes clears 16 MiB; a commit could have hundreds of thousands of them.
TEST_F(HostileDeltaTest, NamesEachPageOnce) {
  EXPECT_EQ(Why(Zeros(0, 1) + Zeros(1, 2), 9000), "");
  EXPECT_THAT(Why(Zeros(0, 2) + Zeros(1, 2), 9000), HasSubstr("page 1 of 3 after 2"));
  EXPECT_THAT(Why(Zeros(1, 2) + Zeros(0, 1), 9000), HasSubstr("page 0 of 3 after 3"));
  EXPECT_THAT(Why(Zeros(0, 3) + Zeros(0, 3), 9000), HasSubstr("page 0 of 3 after 3"));
}

TEST_F(HostileDeltaTest, HasASizeThatAStateCanHave) {
  EXPECT_THAT(Why(Zeros(0, 1), 0), HasSubstr("of 0 bytes"));
  EXPECT_THAT(Why(Zeros(0, 1), (16u << 20) + 1), HasSubstr("bytes"));
  EXPECT_THAT(Why(Zeros(0, 1), ~0u), HasSubstr("bytes"));
  EXPECT_EQ(Why(Zeros(0, 1), 16u << 20), "");
}

TEST_F(HostileDeltaTest, IsWellFormed) {
  const std::string good = Zeros(0, 2);
  for (size_t bytes = 1; bytes < good.size(); ++bytes) {
    EXPECT_NE(Why(good.substr(0, bytes), 9000), "") << bytes;
  }
}

TEST_F(HostileDeltaTest, FollowsAWholeState) {
  reader_.Reset();
  EXPECT_THAT(Why(Zeros(0, 1), 9000), HasSubstr("without one before"));
}

// What was refused leaves no trace.
TEST_F(HostileDeltaTest, ChangesNothingUntilItIsKept) {
  v1::EpochCommit commit;
  commit.set_machine_delta(Zeros(0, 3));
  commit.set_machine_bytes(9000);
  ASSERT_TRUE(reader_.Take(commit, kNewest).ok());
  const std::string page(kPageSize, 'x');
  const PageBytes bytes(std::as_bytes(std::span<const char, kPageSize>(page)));
  std::string same;
  AppendPage(kNewest, Gfn(0), bytes, bytes.data(), &same);
  commit.set_machine_delta(same);
  const absl::StatusOr<std::string> state = reader_.Take(commit, kNewest);
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(*state, std::string(9000, 'x'));
}

}  // namespace
}  // namespace romulus::codec
