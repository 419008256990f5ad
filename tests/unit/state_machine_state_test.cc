// A machine's state: what travels is protobuf's own encoding, taking removes, parsing refuses.
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "romulus/v1/machine_state.pb.h"
#include "state/machine_state.h"

namespace romulus::state {
namespace {

std::string ByProtobuf(const std::vector<Section>& sections) {
  v1::MachineState proto;
  for (const Section& s : sections) {
    v1::Section& out = *proto.add_sections();
    out.set_kind(s.kind);
    out.set_instance(s.instance);
    out.set_version(s.version);
    out.set_payload(s.payload);
  }
  return proto.SerializeAsString();
}

MachineState Of(const std::vector<Section>& sections) {
  MachineState state;
  for (const Section& s : sections) state.Put(s.kind, s.instance, s.version, s.payload);
  return state;
}

// Every field at its default, at both sides of each length of a varint, and at its most.
std::vector<Section> Edges() {
  std::vector<Section> sections = {{"", 0, 0, ""}, {"", 1, 0, ""}, {"kind", 0, 0, "payload"}};
  for (const uint32_t number : {1u, 127u, 128u, 16383u, 16384u, ~0u}) {
    sections.push_back({"instance", number, 1, "x"});
    sections.push_back({"version", static_cast<uint32_t>(sections.size()), number, ""});
  }
  for (const size_t length : {1u, 126u, 127u, 128u, 129u, 16383u, 16384u, 70000u}) {
    sections.push_back({std::string(length, 'k'), 0, 1, "y"});
    sections.push_back({"long", static_cast<uint32_t>(length), 1, std::string(length, '\0')});
  }
  return sections;
}

TEST(MachineStateTest, TravelsAsProtobufWritesIt) {
  const std::vector<Section> sections = Edges();
  for (const Section& section : sections) {
    EXPECT_EQ(Of({section}).Serialize(), ByProtobuf({section}));
  }
  const MachineState state = Of(sections);
  EXPECT_EQ(state.Serialize(), ByProtobuf(sections));
  EXPECT_EQ(state.sections(), sections);
  EXPECT_EQ(state.section_count(), sections.size());
}

TEST(MachineStateTest, ComesBackAsItWas) {
  const MachineState state = Of(Edges());
  absl::StatusOr<MachineState> again = MachineState::Parse(state.Serialize());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, state);
  EXPECT_EQ(again->sections(), Edges());
}

TEST(MachineStateTest, IsEqualOnlyToTheSameSectionsInTheSameOrder) {
  const Section one{"a", 0, 1, "x"};
  const Section two{"a", 1, 1, "x"};
  EXPECT_EQ(Of({one, two}), Of({one, two}));
  EXPECT_FALSE(Of({one, two}) == Of({two, one}));
  EXPECT_FALSE(Of({one, two}) == Of({one}));
  EXPECT_FALSE(Of({one}) == Of({{"a", 0, 2, "x"}}));
  EXPECT_FALSE(Of({one}) == Of({{"a", 0, 1, "y"}}));
}

// What is left behind is a state as if the others had never been put, in whatever order they go.
TEST(MachineStateTest, TakingLeavesTheRestAsItWas) {
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    std::vector<Section> left = Edges();
    MachineState state = Of(left);
    while (!left.empty()) {
      const auto victim = left.begin() + static_cast<std::ptrdiff_t>(random() % left.size());
      absl::StatusOr<Section> taken = state.Take(victim->kind, victim->instance, victim->version);
      ASSERT_TRUE(taken.ok()) << taken.status();
      EXPECT_EQ(*taken, *victim);
      EXPECT_FALSE(state.Has(victim->kind, victim->instance));
      left.erase(victim);
      ASSERT_EQ(state, Of(left));
      ASSERT_EQ(state.sections(), left);
    }
    EXPECT_TRUE(state.ExpectEmpty().ok());
    EXPECT_EQ(state.Serialize(), "");
  }
}

TEST(MachineStateTest, TakesOnlyWhatIsThereOfTheVersionWanted) {
  MachineState state = Of({{"a", 0, 1, "xyz"}, {"b", 3, 2, ""}});
  EXPECT_EQ(state.Take("a", 1, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(state.Take("c", 0, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(state.Take("b", 3, 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(state.TakeStruct<uint16_t>("b", 3, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
  const absl::Status left = Of({{"a", 0, 1, "xyz"}, {"b", 3, 2, ""}}).ExpectEmpty();
  EXPECT_EQ(left.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(left.message().find("a[0]"), absl::string_view::npos) << left;
  EXPECT_NE(left.message().find("b[3]"), absl::string_view::npos) << left;
}

TEST(MachineStateTest, CarriesAStructAsItLiesInMemory) {
  struct Pair {
    uint32_t low = 0x04030201;
    uint16_t high[2] = {0x0605, 0x0807};
  };
  MachineState state;
  state.PutStruct("pair", 0, 1, Pair{});
  EXPECT_EQ(state.sections().front().payload, "\x01\x02\x03\x04\x05\x06\x07\x08");
  absl::StatusOr<Pair> pair = state.TakeStruct<Pair>("pair", 0, 1);
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->low, 0x04030201u);
}

// Put() would take memory in the pause otherwise, a little more each time.
TEST(MachineStateTest, TakesNoMemoryWithinWhatWasReserved) {
  std::vector<Section> sections = Edges();
  sections.push_back({"last", ~0u, ~0u, "short"});
  MachineState state;
  state.Reserve(sections.size(), ByProtobuf(sections).size());
  const char* const at = state.Serialize().data();
  for (const Section& s : sections) state.Put(s.kind, s.instance, s.version, s.payload);
  EXPECT_EQ(state.Serialize().data(), at);
}

TEST(MachineStateTest, GivenAwayItIsEmpty) {
  MachineState state = Of(Edges());
  EXPECT_EQ(std::move(state).Serialize(), ByProtobuf(Edges()));
  EXPECT_TRUE(state.ExpectEmpty().ok());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(state, MachineState());
}

TEST(MachineStateDeathTest, PuttingASectionTwiceEndsTheProcess) {
  MachineState state = Of({{"a", 0, 1, "x"}, {"b", 0, 1, "x"}});
  EXPECT_DEATH(state.Put("a", 0, 2, "y"), "");
}

TEST(MachineStateTest, RefusesWhatIsNoState) {
  const auto code = [](absl::string_view bytes) {
    return MachineState::Parse(bytes).status().code();
  };
  EXPECT_EQ(code("\x0a\x05zz"), absl::StatusCode::kInvalidArgument) << "truncated";
  EXPECT_EQ(code(ByProtobuf({{"a", 0, 1, "x"}, {"a", 0, 2, "y"}})),
            absl::StatusCode::kInvalidArgument)
      << "twice";
  EXPECT_EQ(code(std::string(kMaxSerializedBytes + 1, '\0')), absl::StatusCode::kInvalidArgument);
  std::vector<Section> many;
  for (uint32_t i = 0; i <= kMaxSections; ++i) many.push_back({"a", i, 1, ""});
  EXPECT_EQ(code(ByProtobuf(many)), absl::StatusCode::kInvalidArgument);
  many.pop_back();
  EXPECT_EQ(code(ByProtobuf(many)), absl::StatusCode::kOk);
}

// A field of a later version is no reason to refuse; it is not kept.
TEST(MachineStateTest, SkipsFieldsThatItDoesNotKnow) {
  v1::MachineState proto;
  v1::Section& section = *proto.add_sections();
  section.set_kind("a");
  section.set_payload("x");
  std::string bytes = proto.SerializeAsString();
  const std::string unknown("\x78\x01", 2);  // field 15, a varint
  bytes[1] = static_cast<char>(bytes[1] + static_cast<char>(unknown.size()));
  absl::StatusOr<MachineState> state = MachineState::Parse(bytes + unknown);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(*state, Of({{"a", 0, 0, "x"}}));
}

// Well-formed, but not as anybody here would write it: read as protobuf reads it.
TEST(MachineStateTest, ReadsWhateverProtobufReads) {
  const std::string as_a_rule("\x0a\x08\x0a\x01k\x10\x07\x22\x01p", 10);
  for (const std::string& section : {
           std::string("\x0a\x01k\x10\x07\x22\x01p", 8),
           std::string("\x22\x01p\x0a\x01k\x10\x07", 8),                    // in another order
           std::string("\x0a\x01k\x10\x07\x18\x00\x22\x01p", 10),           // a version that is 0
           std::string("\x0a\x01k\x10\x87\x00\x22\x01p", 9),                // a long way to say 7
           std::string("\x0a\x01j\x0a\x01k\x10\x09\x10\x07\x22\x01p", 13),  // the last one counts
           std::string("\x0a\x01k\x10\x87\x80\x80\x80\x10\x22\x01p", 12),   // more than 32 bits
       }) {
    const std::string bytes = "\x0a" + std::string(1, static_cast<char>(section.size())) + section;
    const absl::StatusOr<MachineState> state = MachineState::Parse(bytes);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(state->Serialize(), as_a_rule);
  }
  // A section ends before its payload, which is a field of the state then that nobody knows.
  const absl::StatusOr<MachineState> cut =
      MachineState::Parse(std::string("\x0a\x05\x0a\x01k\x10\x07\x22\x01p", 10));
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(*cut, Of({{"k", 7, 0, ""}}));
  const std::vector<Section> umlaut = {{"k\xc3\xb6", 7, 1, "p"}};
  const absl::StatusOr<MachineState> state = MachineState::Parse(ByProtobuf(umlaut));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->sections(), umlaut);
  EXPECT_FALSE(MachineState::Parse(std::string("\x0a\x03\x0a\x01\xc3", 5)).ok()) << "not UTF-8";
  EXPECT_FALSE(MachineState::Parse(as_a_rule.substr(0, 9)).ok());
}

}  // namespace
}  // namespace romulus::state
