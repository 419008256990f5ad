// Compressed bodies: the methods, what a frame says of them, and what a sender makes of a body.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>
#include <zstd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "codec/body_compressor.h"
#include "codec/compression.h"
#include "codec/frame.h"

namespace romulus::codec {
namespace {

using testing::HasSubstr;

constexpr Compression kMethods[] = {Compression::kLz4, Compression::kZstd};
constexpr size_t kMaxBody = 1 << 20;

std::string Noise(size_t bytes, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::string noise(bytes, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  return noise;
}
std::string Text(size_t bytes) {
  std::string text;
  for (uint64_t n = 0; text.size() < bytes; ++n) text += "record " + std::to_string(n * n) + ";";
  text.resize(bytes);
  return text;
}

std::string Pack(Compression method, const std::string& raw) {
  Compressor compressor;
  std::string packed(2 * raw.size() + 1000, '\0');
  packed.resize(compressor.Compress(method, raw, packed.data(), packed.size()));
  EXPECT_FALSE(packed.empty());
  return packed;
}

// Both sides on the heap, of exactly their sizes, so that asan sees what reads or writes beyond.
absl::Status Unpack(Compression method, const std::string& packed, size_t raw_bytes,
                    std::string* raw = nullptr) {
  const std::vector<char> from(packed.begin(), packed.end());
  std::vector<char> into(raw_bytes);
  Decompressor decompressor;
  absl::Status status = decompressor.Decompress(method, absl::string_view(from.data(), from.size()),
                                                into.data(), raw_bytes);
  if (raw != nullptr) raw->assign(into.begin(), into.end());
  return status;
}

TEST(CompressionTest, BodiesComeBackAsTheyWere) {
  for (const Compression method : kMethods) {
    Compressor compressor;
    Decompressor decompressor;
    for (const std::string& raw : {std::string("x"), Text(600), Text(300'000), Noise(70'000),
                                   std::string(4 << 20, '\0'), Text(600)}) {
      std::string packed(2 * raw.size() + 1000, '\0');
      packed.resize(compressor.Compress(method, raw, packed.data(), packed.size()));
      std::string again(raw.size(), 'x');
      ASSERT_TRUE(decompressor.Decompress(method, packed, again.data(), again.size()).ok());
      EXPECT_EQ(again, raw) << CompressionName(method) << " " << raw.size();
    }
  }
}

TEST(CompressionTest, WhatDoesNotFitIsNotWritten) {
  for (const Compression method : kMethods) {
    Compressor compressor;
    std::vector<char> room(5000);
    EXPECT_EQ(compressor.Compress(method, Noise(10'000), room.data(), room.size()), 0u);
    EXPECT_EQ(compressor.Compress(method, Text(10'000), room.data(), 10), 0u);
    EXPECT_GT(compressor.Compress(method, Text(10'000), room.data(), room.size()), 0u);
  }
}

TEST(CompressionTest, OnlyExactlyTheAnnouncedSizeIsGood) {
  for (const Compression method : kMethods) {
    for (const size_t size : {600u, 100'000u}) {
      const std::string packed = Pack(method, Text(size));
      for (const size_t other :
           {size_t{0}, size_t{1}, size - 1, size + 1, size + 13, 2 * size, size_t{4} << 20}) {
        EXPECT_TRUE(absl::IsInvalidArgument(Unpack(method, packed, other)))
            << CompressionName(method) << ": " << size << " as " << other;
      }
    }
  }
}

TEST(CompressionTest, TruncatedExtendedAndDamagedBodiesAreRefusedOrHarmless) {
  for (const Compression method : kMethods) {
    const std::string raw = Text(3000);
    const std::string packed = Pack(method, raw);
    for (size_t size = 0; size < packed.size(); ++size) {
      EXPECT_TRUE(absl::IsInvalidArgument(Unpack(method, packed.substr(0, size), raw.size())))
          << CompressionName(method) << " " << size;
    }
    EXPECT_TRUE(absl::IsInvalidArgument(Unpack(method, packed + "x", raw.size())));
    EXPECT_TRUE(absl::IsInvalidArgument(Unpack(method, packed + packed, raw.size())));
    EXPECT_TRUE(absl::IsInvalidArgument(Unpack(method, packed + packed, 2 * raw.size())));
    // A flipped bit may make another body; the frame's checksum is what sees that.
    for (size_t bit = 0; bit < 8 * packed.size(); ++bit) {
      std::string bad = packed;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      Unpack(method, bad, raw.size()).IgnoreError();
    }
  }
}

TEST(CompressionTest, ZstdIsOneFrameOfThePresentFormatThatSaysItsSize) {
  const std::string raw = Text(3000);
  const std::string skippable("\x50\x2a\x4d\x18\x04\x00\x00\x00skip", 12);
  EXPECT_THAT(
      std::string(Unpack(Compression::kZstd, skippable + Pack(Compression::kZstd, raw), raw.size())
                      .message()),
      HasSubstr("bad magic"));
  // The library would go over what follows, and come to the same size.
  for (const std::string& more :
       {skippable, std::string("\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00", 9)}) {
    EXPECT_THAT(
        std::string(
            Unpack(Compression::kZstd, Pack(Compression::kZstd, raw) + more, raw.size()).message()),
        HasSubstr("not one whole frame"));
  }
  for (const char old : {'\x24', '\x25', '\x26', '\x27'}) {  // zstd 0.4 to 0.7
    std::string legacy = Pack(Compression::kZstd, raw);
    legacy[0] = old;
    EXPECT_THAT(std::string(Unpack(Compression::kZstd, legacy, raw.size()).message()),
                HasSubstr("bad magic"));
  }
  // Without a content size in its header: made by streaming.
  ZSTD_CCtx* context = ZSTD_createCCtx();
  std::string streamed(10'000, '\0');
  ZSTD_outBuffer out{streamed.data(), streamed.size(), 0};
  ZSTD_inBuffer in{raw.data(), raw.size(), 0};
  ASSERT_EQ(ZSTD_isError(ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush)), 0u);
  ASSERT_EQ(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0u);
  ZSTD_freeCCtx(context);
  streamed.resize(out.pos);
  EXPECT_THAT(std::string(Unpack(Compression::kZstd, streamed, raw.size()).message()),
              HasSubstr("another size"));
}

TEST(CompressionTest, UnknownMethodsAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Unpack(Compression::kNone, "body", 4)));
  EXPECT_TRUE(absl::IsInvalidArgument(Unpack(static_cast<Compression>(3), "body", 4)));
}

// ---- Frames ----

class CompressedFrameTest : public testing::Test {
 protected:
  CompressedFrameTest() { writer_.SetDialect(Dialect(kCompressionSince)); }

  // A frame of a body that is `packed`.
  std::string FrameOf(const std::string& body, const Packed& packed,
                      FrameKind kind = FrameKind::kEpochPages) {
    std::string message;
    const size_t begin = FrameWriter::Begin(kind, Term(1), EpochId(2), &message);
    message += body;
    writer_.End(begin, &message, packed);
    return message;
  }
  std::string Good(Compression method, const std::string& raw) {
    return FrameOf(Pack(method, raw), {method, static_cast<uint32_t>(raw.size())});
  }
  // As a peer would that knows no rules: any header, with the checksum that belongs to it.
  static void Patch(std::string* message, size_t at, uint8_t value) {
    (*message)[at] = static_cast<char>(value);
    const uint64_t checksum =
        XXH3_64bits_withSeed(message->data() + kFrameHeaderBytes,
                             message->size() - kFrameHeaderBytes, XXH3_64bits(message->data(), 40));
    std::memcpy(message->data() + 40, &checksum, sizeof(checksum));
  }
  // The body, or the fault in brackets.
  static std::string Read(const std::string& message, uint32_t version = kCompressionSince,
                          size_t max_body = kMaxBody) {
    FrameReader reader(max_body);
    reader.SetDialect(Dialect(version));
    absl::string_view rest = message;
    const absl::StatusOr<Frame> frame = reader.Next(&rest);
    if (frame.ok()) return std::string(frame->body);
    const bool oversize = reader.fault() == FrameFault::kOversize;
    EXPECT_EQ(frame.status().code(),
              oversize ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(reader.Next(&rest).status(), frame.status()) << "an error is final";
    return "<" + std::string(FrameFaultName(reader.fault())) + ">";
  }

  FrameWriter writer_;
};

TEST_F(CompressedFrameTest, BodiesComeBackAsTheyWere) {
  std::string message;
  const std::vector<std::string> bodies = {Text(5000), std::string(kMaxBody, 'z'), Text(700)};
  for (const std::string& raw : bodies) {
    message += Good(Compression::kLz4, raw);
    message += Good(Compression::kZstd, raw);
    message += FrameOf(raw, {});
  }
  EXPECT_LT(message.size(), kMaxBody + 20'000);
  FrameReader reader(kMaxBody);
  reader.SetDialect(Dialect(kCompressionSince));
  absl::string_view rest = message;
  for (const std::string& raw : bodies) {
    for (const Compression method : {Compression::kLz4, Compression::kZstd, Compression::kNone}) {
      const absl::StatusOr<Frame> frame = reader.Next(&rest);
      ASSERT_TRUE(frame.ok()) << frame.status();
      EXPECT_EQ(frame->kind, FrameKind::kEpochPages);
      EXPECT_EQ(frame->epoch, EpochId(2));
      EXPECT_EQ(frame->compression, method);
      EXPECT_TRUE(frame->body == raw);
    }
  }
  EXPECT_TRUE(rest.empty());
}

// As written down in frame.h and in the descriptions of both formats: whatever the libraries write
// one day, these bytes stay good.
TEST_F(CompressedFrameTest, BytesArePermanent) {
  const std::string lz4(
      "\x1f"
      "a"
      "\x01\x00\x47"
      "\x50"
      "aaaaa",
      11);
  const std::string zstd(
      "\x28\xb5\x2f\xfd\x20\x60"
      "\x03\x03\x00"
      "a",
      10);
  const std::string with_lz4 = FrameOf(lz4, {Compression::kLz4, 96});
  EXPECT_EQ(with_lz4.substr(6, 2), "\x07\x01");
  EXPECT_EQ(with_lz4.substr(32, 8), std::string("\x0b\x00\x00\x00\x60\x00\x00\x00", 8));
  EXPECT_EQ(Read(with_lz4), std::string(96, 'a'));
  writer_ = FrameWriter();
  writer_.SetDialect(Dialect(kCompressionSince));
  const std::string with_zstd = FrameOf(zstd, {Compression::kZstd, 96});
  EXPECT_EQ(with_zstd.substr(6, 2), "\x07\x02");
  EXPECT_EQ(Read(with_zstd), std::string(96, 'a'));
}

TEST_F(CompressedFrameTest, AnOlderStreamHasNone) {
  const std::string message = Good(Compression::kLz4, Text(5000));
  EXPECT_EQ(Read(message), Text(5000));
  for (uint32_t version = kOldestProtocol; version < kCompressionSince; ++version) {
    EXPECT_EQ(Read(message, version), "<flags>");
  }
}

TEST_F(CompressedFrameTest, NoWriterPutsOneOntoAnOlderStream) {
  writer_.SetDialect(Dialect(kCompressionSince - 1));
  EXPECT_DEATH(Good(Compression::kLz4, Text(5000)), "kCompressionSince");
}

TEST_F(CompressedFrameTest, OnlyBulkIsCompressed) {
  EXPECT_DEATH(FrameOf("body", {Compression::kLz4, 100}, FrameKind::kEpochCommit),
               "MayBeCompressed");
  for (uint8_t kind = 1; kind < kFrameKindEnd; ++kind) {
    std::string message = Good(Compression::kLz4, Text(5000));
    writer_ = FrameWriter();
    writer_.SetDialect(Dialect(kCompressionSince));
    Patch(&message, 6, kind);
    EXPECT_EQ(Read(message), MayBeCompressed(static_cast<FrameKind>(kind)) ? Text(5000) : "<flags>")
        << FrameKindName(static_cast<FrameKind>(kind));
  }
}

TEST_F(CompressedFrameTest, UnknownMethodsAndStraySizesAreRefused) {
  std::string message = Good(Compression::kLz4, Text(5000));
  for (const int method : {3, 4, 0x81, 255}) {
    Patch(&message, 7, static_cast<uint8_t>(method));
    EXPECT_EQ(Read(message), "<flags>") << method;
  }
  Patch(&message, 7, 0);  // not compressed, and yet with a size
  EXPECT_EQ(Read(message), "<flags>");
}

TEST_F(CompressedFrameTest, ABombIsRefusedBeforeAnythingIsAllocated) {
  // Some bytes that claim gigabytes; and some that really are a body's worth more than is allowed.
  for (const Compression method : kMethods) {
    writer_.Reset();
    writer_.SetDialect(Dialect(kCompressionSince));
    const std::string tiny = FrameOf("tiny", {method, UINT32_MAX});
    EXPECT_EQ(Read(tiny), "<oversize>") << CompressionName(method);
    writer_.Reset();
    writer_.SetDialect(Dialect(kCompressionSince));
    const std::string beyond = Good(method, std::string(kMaxBody + 1, '\0'));
    EXPECT_LT(beyond.size(), 10'000u);
    EXPECT_EQ(Read(beyond), "<oversize>");
    EXPECT_EQ(Read(beyond, kCompressionSince, kMaxBody + 1).size(), kMaxBody + 1);
  }
}

TEST_F(CompressedFrameTest, ABodyThatIsNotWhatItClaimsIsRefused) {
  for (const Compression method : kMethods) {
    const std::string raw = Text(5000);
    const std::string packed = Pack(method, raw);
    const auto read = [&](const std::string& body, size_t claims) {
      writer_.Reset();
      writer_.SetDialect(Dialect(kCompressionSince));
      return Read(FrameOf(body, {method, static_cast<uint32_t>(claims)}));
    };
    EXPECT_EQ(read(packed, raw.size()), raw);
    EXPECT_EQ(read(packed, raw.size() - 1), "<compression>");
    EXPECT_EQ(read(packed, raw.size() + 1), "<compression>");
    EXPECT_EQ(read(packed, kMaxBody), "<compression>");
    EXPECT_EQ(read(packed.substr(0, packed.size() - 1), raw.size()), "<compression>");
    EXPECT_EQ(read(packed + "x", raw.size()), "<compression>");
    EXPECT_EQ(read("", 1000), "<compression>");
    EXPECT_EQ(read(Noise(900), 1000), "<compression>");
    // Nothing is compressed to as much or more.
    const std::string noise = Noise(1000);
    const std::string larger = Pack(method, noise);
    ASSERT_GE(larger.size(), noise.size());
    EXPECT_EQ(read(larger, noise.size()), "<compression>");
    EXPECT_EQ(read(packed, packed.size()), "<compression>");
    EXPECT_EQ(read(packed, 0), "<compression>");
  }
}

TEST_F(CompressedFrameTest, EveryFlippedBitIsSeen) {
  for (const Compression method : kMethods) {
    writer_.Reset();
    writer_.SetDialect(Dialect(kCompressionSince));
    const std::string good = Good(method, Text(2000));
    ASSERT_EQ(Read(good), Text(2000));
    for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      ASSERT_THAT(Read(bad), testing::StartsWith("<")) << bit;
    }
  }
}

// ---- What a sender makes of a body ----

// Each look is some time later.
class SteppingClock final : public base::Clock {
 public:
  uint64_t NowNs() const override { return now_ns_ += step_ns; }
  uint64_t step_ns = 0;

 private:
  mutable uint64_t now_ns_ = 1;
};

Packed Shrink(BodyCompressor& compressor, const std::string& body, std::string* message) {
  *message = "head" + body;
  const Packed packed = compressor.Shrink(4, message);
  EXPECT_TRUE(message->starts_with("head"));
  return packed;
}

TEST(BodyCompressorTest, MakesBodiesSmallerInPlace) {
  for (const auto& [policy, method] : {std::pair(CompressionPolicy::kLz4, Compression::kLz4),
                                       std::pair(CompressionPolicy::kZstd, Compression::kZstd)}) {
    BodyCompressor compressor(policy, nullptr);
    EXPECT_EQ(compressor.method(), method);
    std::string message;
    const Packed packed = Shrink(compressor, Text(20'000), &message);
    EXPECT_EQ(packed.method, method);
    EXPECT_EQ(packed.raw_bytes, 20'000u);
    std::string raw;
    ASSERT_TRUE(Unpack(method, message.substr(4), 20'000, &raw).ok());
    EXPECT_EQ(raw, Text(20'000));
    const CompressionStats stats = compressor.TakeStats();
    EXPECT_EQ(stats.raw_bytes[static_cast<size_t>(method)], 20'000u);
    EXPECT_EQ(stats.wire_bytes[static_cast<size_t>(method)], message.size() - 4);
    EXPECT_EQ(compressor.TakeStats().raw_bytes[static_cast<size_t>(method)], 0u);
  }
}

TEST(BodyCompressorTest, WhatGainsLessThanAnEighthStaysAsItIs) {
  for (const CompressionPolicy policy : {CompressionPolicy::kLz4, CompressionPolicy::kZstd}) {
    BodyCompressor compressor(policy, nullptr);
    std::string message;
    // Nine tenths, and then six tenths, are noise.
    for (const auto& [noise, shrinks] : {std::pair(9000, false), std::pair(6000, true)}) {
      const std::string body = Noise(noise) + std::string(10'000 - noise, 'x');
      EXPECT_EQ(Shrink(compressor, body, &message).method != Compression::kNone, shrinks) << noise;
      EXPECT_EQ(message == "head" + body, !shrinks);
    }
    const CompressionStats stats = compressor.TakeStats();
    EXPECT_EQ(stats.raw_bytes[0], 10'000u);
    EXPECT_EQ(stats.wire_bytes[0], 10'000u);
  }
}

TEST(BodyCompressorTest, SmallBodiesAndThoseOfNobodyWhoWantsItAreLeftAlone) {
  SteppingClock clock;
  std::string message;
  BodyCompressor zstd(CompressionPolicy::kZstd, &clock);
  EXPECT_EQ(Shrink(zstd, Text(BodyCompressor::kMinBodyBytes - 1), &message).raw_bytes, 0u);
  EXPECT_EQ(Shrink(zstd, std::string(BodyCompressor::kMinBodyBytes, 'x'), &message).raw_bytes,
            BodyCompressor::kMinBodyBytes);
  BodyCompressor off(CompressionPolicy::kOff, &clock);
  off.SetLinkRate(1);
  EXPECT_EQ(Shrink(off, Text(20'000), &message).raw_bytes, 0u);
  EXPECT_EQ(message.size(), 20'004u);
  // Measures by a clock; without one it does not know.
  BodyCompressor blind(CompressionPolicy::kAuto, nullptr);
  blind.SetLinkRate(1'000'000);
  EXPECT_EQ(Shrink(blind, Text(20'000), &message).raw_bytes, 0u);
}

TEST(BodyCompressorTest, AutoGoesByWhatIsMeasured) {
  for (const bool quick : {true, false}) {
    SteppingClock clock;
    // Of a body of 100,000 bytes: 1 GB/s, and 1 MB/s, which no link of 10 MB/s waits for.
    clock.step_ns = quick ? 100'000 : 100'000'000;
    BodyCompressor compressor(CompressionPolicy::kAuto, &clock);
    std::string message;
    EXPECT_EQ(Shrink(compressor, Text(100'000), &message).raw_bytes, 0u) << "of no known link";
    compressor.SetLinkRate(10'000'000);
    for (int i = 0; i < 10; ++i) Shrink(compressor, Text(100'000), &message);
    EXPECT_EQ(compressor.method() != Compression::kNone, quick);
    EXPECT_EQ(Shrink(compressor, Text(100'000), &message).raw_bytes != 0, quick);
    compressor.SetLinkRate(1'250'000'000);
    EXPECT_EQ(Shrink(compressor, Text(100'000), &message).raw_bytes, 0u);
  }
}

}  // namespace
}  // namespace romulus::codec
