#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "codec/frame.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::codec {
namespace {

std::string ThreeFrames() {
  FrameWriter writer;
  std::string message;
  writer.Append(FrameKind::kHello, Term(7), EpochId(), absl::string_view("hi"), &message);
  writer.Append(FrameKind::kEpochPages, Term(7), EpochId(3), std::string(1000, 'x'), &message);
  writer.Append(FrameKind::kAck, Term(7), EpochId(3), absl::string_view(), &message);
  return message;
}

// Reads all of `message`; the first error, or OK.
absl::Status ReadAll(FrameReader* reader, absl::string_view message) {
  while (!message.empty()) {
    absl::StatusOr<Frame> frame = reader->Next(&message);
    if (!frame.ok()) return frame.status();
  }
  return absl::OkStatus();
}

FrameFault FaultOf(absl::string_view message, size_t max_body_bytes = kDefaultMaxBodyBytes) {
  FrameReader reader(max_body_bytes);
  const absl::Status status = ReadAll(&reader, message);
  EXPECT_EQ(status.ok(), reader.fault() == FrameFault::kNone);
  return reader.fault();
}

TEST(FrameTest, FramesComeBackAsTheyWere) {
  const std::string message = ThreeFrames();
  absl::string_view rest = message;
  FrameReader reader;
  absl::StatusOr<Frame> frame = reader.Next(&rest);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->kind, FrameKind::kHello);
  EXPECT_EQ(frame->term, Term(7));
  EXPECT_EQ(frame->epoch, EpochId());
  EXPECT_EQ(frame->sequence, 1u);
  EXPECT_EQ(frame->body, "hi");
  frame = reader.Next(&rest);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->kind, FrameKind::kEpochPages);
  EXPECT_EQ(frame->epoch, EpochId(3));
  EXPECT_EQ(frame->body, std::string(1000, 'x'));
  frame = reader.Next(&rest);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->kind, FrameKind::kAck);
  EXPECT_EQ(frame->sequence, 3u);
  EXPECT_TRUE(frame->body.empty());
  EXPECT_TRUE(rest.empty());
}

TEST(FrameTest, HeaderBytesArePermanent) {
  // The format that is written down in frame.h, byte by byte (the checksum apart).
  FrameWriter writer;
  std::string message;
  writer.Append(FrameKind::kEpochAbort, Term(0x0102), EpochId(0x0304), absl::string_view("abc"),
                &message);
  ASSERT_EQ(message.size(), kFrameHeaderBytes + 3);
  const std::string want(
      "RMLF\x01\x00\x09\x00"
      "\x02\x01\x00\x00\x00\x00\x00\x00"
      "\x04\x03\x00\x00\x00\x00\x00\x00"
      "\x01\x00\x00\x00\x00\x00\x00\x00"
      "\x03\x00\x00\x00\x00\x00\x00\x00",
      40);
  EXPECT_EQ(message.substr(0, 40), want);
  EXPECT_EQ(message.substr(48), "abc");
}

TEST(FrameTest, EveryFlippedBitIsSeen) {
  const std::string good = ThreeFrames();
  ASSERT_EQ(FaultOf(good), FrameFault::kNone);
  for (size_t byte = 0; byte < good.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[byte] = static_cast<char>(bad[byte] ^ (1 << bit));
      ASSERT_NE(FaultOf(bad), FrameFault::kNone) << "byte " << byte << " bit " << bit;
    }
  }
}

TEST(FrameTest, EveryTruncationIsSeen) {
  const std::string good = ThreeFrames();
  const size_t first = kFrameHeaderBytes + 2;
  const size_t second = first + kFrameHeaderBytes + 1000;
  for (size_t size = 1; size < good.size(); ++size) {
    // A heap copy of exactly this size, so that asan sees a read past its end.
    const std::vector<char> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    const bool whole_frames = size == first || size == second;
    ASSERT_EQ(FaultOf(absl::string_view(cut.data(), cut.size())),
              whole_frames ? FrameFault::kNone : FrameFault::kTruncated)
        << size;
  }
}

TEST(FrameTest, LostDoubledAndSwappedFramesAreSeen) {
  FrameWriter writer;
  std::string a, b, c;
  writer.Append(FrameKind::kHeartbeat, Term(1), EpochId(), absl::string_view("a"), &a);
  writer.Append(FrameKind::kHeartbeat, Term(1), EpochId(), absl::string_view("b"), &b);
  writer.Append(FrameKind::kHeartbeat, Term(1), EpochId(), absl::string_view("c"), &c);
  EXPECT_EQ(FaultOf(a + b + c), FrameFault::kNone);
  EXPECT_EQ(FaultOf(a + c), FrameFault::kSequenceGap);
  EXPECT_EQ(FaultOf(b), FrameFault::kSequenceGap);
  EXPECT_EQ(FaultOf(a + a), FrameFault::kSequenceRepeat);
  EXPECT_EQ(FaultOf(a + b + a), FrameFault::kSequenceRepeat);
  EXPECT_EQ(FaultOf(a + c + b), FrameFault::kSequenceGap);
}

// Raising a term near 2^64 would wrap to an old one.
TEST(FrameTest, TermsThatNobodyReachesAreRefused) {
  for (const uint64_t beyond : {kMaxPeerTerm.value() + 1, UINT64_MAX}) {
    FrameWriter writer;
    std::string good, bad;
    writer.Append(FrameKind::kHeartbeat, kMaxPeerTerm, EpochId(), absl::string_view(), &good);
    writer.Append(FrameKind::kHeartbeat, Term(beyond), EpochId(), absl::string_view(), &bad);
    EXPECT_EQ(FaultOf(good), FrameFault::kNone);
    EXPECT_EQ(FaultOf(good + bad), FrameFault::kTermRange);
  }
}

TEST(FrameTest, OversizedBodyIsRefusedBeforeItIsThere) {
  FrameWriter writer;
  std::string message;
  writer.Append(FrameKind::kHeartbeat, Term(1), EpochId(), std::string(101, 'x'), &message);
  EXPECT_EQ(FaultOf(message, 101), FrameFault::kNone);
  EXPECT_EQ(FaultOf(message, 100), FrameFault::kOversize);
  EXPECT_EQ(FaultOf(message.substr(0, kFrameHeaderBytes), 100), FrameFault::kOversize);
  FrameReader reader(100);
  absl::string_view rest = message;
  EXPECT_EQ(reader.Next(&rest).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(FrameTest, OtherVersionsAndKindsAreNamed) {
  std::string message = ThreeFrames();
  message[4] = 2;
  FrameReader reader;
  absl::string_view rest = message;
  absl::StatusOr<Frame> frame = reader.Next(&rest);
  EXPECT_EQ(reader.fault(), FrameFault::kVersion);
  EXPECT_NE(frame.status().message().find("version 2"), absl::string_view::npos) << frame.status();

  for (const int kind : {0, static_cast<int>(kFrameKindEnd), 255}) {
    std::string unknown;
    FrameWriter fresh;
    fresh.Append(static_cast<FrameKind>(kind), Term(1), EpochId(), absl::string_view(), &unknown);
    EXPECT_EQ(FaultOf(unknown), FrameFault::kKind) << kind;
  }
}

TEST(FrameTest, AnErrorIsFinal) {
  std::string message = ThreeFrames();
  std::string bad = message;
  bad[kFrameHeaderBytes] = 'X';
  FrameReader reader;
  EXPECT_FALSE(ReadAll(&reader, bad).ok());
  EXPECT_FALSE(ReadAll(&reader, message).ok()) << "a stream goes on after a bad frame";
  EXPECT_EQ(reader.fault(), FrameFault::kChecksum);
}

TEST(FrameTest, FramesOpenedInSeveralMessagesAreNumberedAsTheyClose) {
  FrameWriter writer;
  std::string pages, heartbeat;
  const size_t begin = FrameWriter::Begin(FrameKind::kSyncPages, Term(1), EpochId(), &pages);
  pages += "body";
  writer.Append(FrameKind::kHeartbeat, Term(1), EpochId(), absl::string_view(), &heartbeat);
  pages += " and more";
  writer.End(begin, &pages);
  EXPECT_EQ(FaultOf(heartbeat + pages), FrameFault::kNone);
  EXPECT_EQ(FaultOf(pages + heartbeat), FrameFault::kSequenceGap);
}

TEST(FrameTest, ProtobufBodies) {
  v1::Goodbye goodbye;
  goodbye.set_detail("enough");
  FrameWriter writer;
  std::string message;
  writer.Append(FrameKind::kGoodbye, Term(1), EpochId(), goodbye, &message);
  absl::string_view rest = message;
  FrameReader reader;
  absl::StatusOr<Frame> frame = reader.Next(&rest);
  ASSERT_TRUE(frame.ok());
  v1::Goodbye parsed;
  ASSERT_TRUE(ParseBody(*frame, &parsed).ok());
  EXPECT_EQ(parsed.detail(), "enough");
  frame->body = "\xff\xff\xff";
  const absl::Status status = ParseBody(*frame, &parsed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("goodbye"), absl::string_view::npos);
}

}  // namespace
}  // namespace romulus::codec
