// What may be said in which version of the protocol, by our own definitions and by those of the
// previous release, as they were recorded (tests/skew/record.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "codec/dialect.h"
#include "codec/frame.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "romulus/v1/replication.pb.h"
#include "romulus/v1/since.pb.h"

namespace romulus::codec {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

constexpr uint32_t kPrevious = 5;

v1::Goodbye ReplicaWrong() {
  v1::Goodbye goodbye;
  goodbye.set_reason(v1::Goodbye::REASON_REPLICA_WRONG);
  goodbye.set_detail("audit");
  goodbye.set_term(48);
  return goodbye;
}

v1::Goodbye Said(const Dialect& dialect, const v1::Goodbye& goodbye) {
  std::string bytes = "before";  // appended to
  dialect.Serialize(goodbye, &bytes);
  v1::Goodbye said;
  EXPECT_TRUE(said.ParseFromString(bytes.substr(6)));
  return said;
}

TEST(DialectTest, WhatIsNewerIsNotSaid) {
  const v1::Goodbye older = Said(Dialect(5), ReplicaWrong());
  EXPECT_EQ(older.reason(), v1::Goodbye::REASON_PROTOCOL);
  EXPECT_EQ(older.detail(), "audit");
  EXPECT_EQ(older.term(), 48u);
  EXPECT_EQ(Said(Dialect(6), ReplicaWrong()).reason(), v1::Goodbye::REASON_REPLICA_WRONG);
  // Nothing is agreed yet: whoever hears it may be old.
  EXPECT_EQ(Said(Dialect(), ReplicaWrong()).reason(), v1::Goodbye::REASON_PROTOCOL);
}

TEST(DialectTest, WhatIsNewerIsNotHeard) {
  const std::string bytes = ReplicaWrong().SerializeAsString();
  v1::Goodbye heard;
  ASSERT_TRUE(Dialect(5).Parse(bytes, &heard));
  EXPECT_EQ(heard.reason(), v1::Goodbye::REASON_PROTOCOL);
  ASSERT_TRUE(Dialect(6).Parse(bytes, &heard));
  EXPECT_EQ(heard.reason(), v1::Goodbye::REASON_REPLICA_WRONG);
  EXPECT_FALSE(Dialect(5).Parse("\xff", &heard));
}

// A Hello of 100,000 disks whose roles are numbers without names, none of which came before.
std::string StrangeHello(int32_t first) {
  v1::Hello hello;
  for (int32_t i = 0; i < 100'000; ++i) {
    hello.add_disks()->set_role(static_cast<v1::DiskCopyRole>(first + i));
  }
  return hello.SerializeAsString();
}

TEST(DialectTest, NumbersWithoutNamesLeaveNothingBehind) {
  const auto used_bytes = [] { return ::mallinfo2().uordblks; };  // 0 under sanitizers
  const auto hear = [](int32_t first) {
    v1::Hello hello;
    ASSERT_TRUE(Dialect(5).Parse(StrangeHello(first), &hello));
    EXPECT_EQ(hello.disks_size(), 100'000);
    EXPECT_EQ(hello.disks(7).role(), first + 7) << "what is not known to be newer stays";
  };
  hear(1'000'000);
  const size_t before = used_bytes();
  hear(2'000'000);
  EXPECT_LT(used_bytes(), before + (1u << 20));
}

// Kinds are added at the end, each with its version.
TEST(DialectTest, AFrameKindIsKnownSinceSomeVersion) {
  for (size_t kind = 1; kind < kFrameKindEnd; ++kind) {
    EXPECT_TRUE(Dialect(kNewestProtocol).Has(static_cast<FrameKind>(kind))) << kind;
    EXPECT_EQ(Dialect(kPrevious).Has(static_cast<FrameKind>(kind)),
              kind <= static_cast<size_t>(FrameKind::kEpochAudit))
        << kind;
  }
  EXPECT_FALSE(Dialect(kNewestProtocol).Has(static_cast<FrameKind>(kFrameKindEnd)));
}

// Frames pass the dialect on both ways, whoever writes and reads them.
TEST(DialectTest, FramesAreOfTheirStreamsDialect) {
  for (const uint32_t version : {5u, 6u}) {
    FrameWriter writer;
    writer.SetDialect(Dialect(version));
    FrameReader reader;
    reader.SetDialect(Dialect(version));
    std::string message;
    writer.Append(FrameKind::kGoodbye, Term(1), EpochId(), ReplicaWrong(), &message);
    absl::string_view rest = message;
    const absl::StatusOr<Frame> frame = reader.Next(&rest);
    ASSERT_TRUE(frame.ok()) << frame.status();
    v1::Goodbye raw;
    ASSERT_TRUE(raw.ParseFromString(std::string(frame->body)));
    EXPECT_EQ(raw.reason() == v1::Goodbye::REASON_REPLICA_WRONG, version == 6);
  }
}

TEST(DialectTest, AFrameOfANewerVersionIsUnknown) {
  for (const auto& [kind, first] :
       {std::pair(FrameKind::kEpochAudit, 5u), {FrameKind::kHandOver, 4u}}) {
    EXPECT_TRUE(Dialect(first).Has(kind));
    EXPECT_FALSE(Dialect(first - 1).Has(kind));
    std::string message;
    FrameWriter().Append(kind, Term(1), EpochId(1), absl::string_view("body"), &message);
    FrameReader reader;
    reader.SetDialect(Dialect(first - 1));
    absl::string_view rest = message;
    EXPECT_THAT(std::string(reader.Next(&rest).status().message()),
                testing::HasSubstr(absl::StrCat("unknown to protocol version ", first - 1)));
    EXPECT_EQ(reader.fault(), FrameFault::kKind);
  }
}

TEST(DialectTest, RangesMeetInTheNewestOfBoth) {
  EXPECT_EQ(NewestCommon({5, 6}, {6, 7}), 6u);
  EXPECT_EQ(NewestCommon({5, 6}, {5, 5}), 5u);
  EXPECT_EQ(NewestCommon({5, 6}, {7, 8}), 0u);
  EXPECT_EQ(NewestCommon({9, 2}, {1, 20}), 0u);
  EXPECT_EQ(NewestCommon({0, UINT32_MAX}, {5, 6}), 6u);
  EXPECT_LT(kOldestProtocol, kNewestProtocol) << "or no upgrade goes host by host";
}

// Name of what is defined -> {what it is, the version that brought it}.
using Definitions = std::map<std::string, std::pair<std::string, uint32_t>>;

void Define(const EnumDescriptor& type, Definitions* all) {
  for (int i = 0; i < type.value_count(); ++i) {
    const auto& value = *type.value(i);
    (*all)[value.full_name()] = {absl::StrCat(value.number()),
                                 value.options().GetExtension(v1::value_since)};
  }
}

void Define(const Descriptor& type, Definitions* all) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    (*all)[field.full_name()] = {
        absl::StrCat(field.number(), " ", field.is_repeated() ? "repeated " : "", field.type_name(),
                     " ", field.message_type() ? field.message_type()->full_name() : ""),
        field.options().GetExtension(v1::since)};
  }
  for (int i = 0; i < type.nested_type_count(); ++i) Define(*type.nested_type(i), all);
  for (int i = 0; i < type.enum_type_count(); ++i) Define(*type.enum_type(i), all);
}

Definitions Of(const FileDescriptor& file) {
  Definitions all;
  for (int i = 0; i < file.message_type_count(); ++i) Define(*file.message_type(i), &all);
  for (int i = 0; i < file.enum_type_count(); ++i) Define(*file.enum_type(i), &all);
  return all;
}

// A field that the previous release does not know, and that is not marked, would be sent to it.
TEST(DialectTest, WhatThePreviousReleaseDoesNotKnowIsMarked) {
  std::ifstream file(ROMULUS_RECORDED_FOLDER "/protocol_5.definitions", std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  google::protobuf::FileDescriptorSet recorded;
  ASSERT_TRUE(recorded.ParseFromString(bytes.str()) && recorded.file_size() > 0);
  google::protobuf::DescriptorPool pool;
  const FileDescriptor* previous = nullptr;
  for (const auto& one : recorded.file()) previous = pool.BuildFile(one);
  ASSERT_NE(previous, nullptr);
  const Definitions then = Of(*previous);
  ASSERT_GT(then.size(), 100u);
  const Definitions now = Of(*v1::Hello::descriptor()->file());
  for (const auto& [name, what] : then) {
    const auto found = now.find(name);
    ASSERT_NE(found, now.end()) << name << " is gone, and the previous release may send it";
    EXPECT_EQ(found->second.first, what.first) << name << " has changed";
    EXPECT_LE(found->second.second, kPrevious) << name << " is no news";
  }
  for (const auto& [name, what] : now) {
    // These come before anything is agreed on.
    const bool handshake =
        name.starts_with("romulus.v1.Hello.") || name.starts_with("romulus.v1.HelloReply.");
    if (handshake) {
      EXPECT_EQ(what.second, 0u) << name;
      continue;
    }
    if (then.contains(name)) continue;
    EXPECT_GT(what.second, kPrevious) << name << " needs (since), see replication.proto";
    EXPECT_LE(what.second, kNewestProtocol) << name;
  }
}

}  // namespace
}  // namespace romulus::codec
