// When compression pays.
#include <gtest/gtest.h>

#include <cstdint>

#include "codec/compression_choice.h"

namespace romulus::codec {
namespace {

constexpr uint64_t kMega = 1'000'000;

// What the methods do with what is sent, in MB/s and shares.
struct World {
  double lz4_speed = 600, lz4_ratio = 0.5;
  double zstd_speed = 300, zstd_ratio = 0.4;
};

struct Bodies {
  int none = 0, lz4 = 0, zstd = 0;
};

// `count` bodies of 64 KiB.
Bodies Send(CompressionChoice& choice, const World& world, int count = 200) {
  constexpr size_t kBytes = 64 << 10;
  Bodies sent;
  for (int i = 0; i < count; ++i) {
    const Compression method = choice.Next();
    if (method == Compression::kNone) {
      ++sent.none;
      continue;
    }
    const bool lz4 = method == Compression::kLz4;
    ++(lz4 ? sent.lz4 : sent.zstd);
    const double speed = lz4 ? world.lz4_speed : world.zstd_speed;
    const double ratio = lz4 ? world.lz4_ratio : world.zstd_ratio;
    choice.Took(method, kBytes, static_cast<size_t>(kBytes * ratio),
                static_cast<uint64_t>(kBytes * 1e3 / speed));
  }
  return sent;
}

Compression Chosen(uint64_t rate, const World& world) {
  CompressionChoice choice;
  choice.SetLinkRate(rate);
  Send(choice, world);
  return choice.current();
}

TEST(CompressionChoiceTest, NothingIsEvenTriedOnAnUnknownOrAThickLink) {
  const World ideal = {.lz4_speed = 1e6, .lz4_ratio = 0.01, .zstd_speed = 1e6, .zstd_ratio = 0.01};
  for (const uint64_t rate :
       {uint64_t{0}, CompressionChoice::kThickBytesPerSecond, 1250 * kMega, UINT64_MAX}) {
    CompressionChoice choice;
    choice.SetLinkRate(rate);
    EXPECT_EQ(Send(choice, ideal).none, 200) << rate;
    EXPECT_EQ(choice.current(), Compression::kNone);
    // Nor when all is known, and would pay.
    choice.SetLinkRate(10 * kMega);
    Send(choice, ideal);
    ASSERT_NE(choice.current(), Compression::kNone);
    choice.SetLinkRate(rate);
    EXPECT_EQ(choice.current(), Compression::kNone) << rate;
  }
}

TEST(CompressionChoiceTest, AThinLinkWithCompressiblePagesIsCompressedFor) {
  for (const uint64_t rate : {1 * kMega, 10 * kMega, 50 * kMega}) {
    CompressionChoice choice;
    choice.SetLinkRate(rate);
    const Bodies sent = Send(choice, World());
    EXPECT_NE(choice.current(), Compression::kNone) << rate;
    EXPECT_EQ(sent.none, 0) << rate;
  }
}

TEST(CompressionChoiceTest, WhatDoesNotGetSmallerIsTriedNowAndThenOnly) {
  CompressionChoice choice;
  choice.SetLinkRate(10 * kMega);
  const Bodies sent = Send(choice, {.lz4_ratio = 1, .zstd_ratio = 1}, 1000);
  EXPECT_EQ(choice.current(), Compression::kNone);
  EXPECT_GT(sent.none, 940);
  EXPECT_GT(sent.lz4, 5);  // both: pages may change
  EXPECT_GT(sent.zstd, 5);
  Send(choice, World(), 4000);
  EXPECT_NE(choice.current(), Compression::kNone) << "pages have changed, and nobody looked";
}

TEST(CompressionChoiceTest, ASlowProcessorDoesNotCompressForAMiddlingLink) {
  // 1/100 s as it is; 1/60 + 0.5/100 s compressed.
  EXPECT_EQ(Chosen(100 * kMega, {.lz4_speed = 60, .zstd_speed = 30}), Compression::kNone);
  EXPECT_EQ(Chosen(10 * kMega, {.lz4_speed = 60, .zstd_speed = 30}), Compression::kLz4);
}

TEST(CompressionChoiceTest, Lz4FirstAndZstdWhereTheLinkIsMuchThinner) {
  const World world = {.zstd_speed = 200, .zstd_ratio = 0.3};
  EXPECT_EQ(Chosen(300 * kMega, world), Compression::kNone);
  EXPECT_EQ(Chosen(100 * kMega, world), Compression::kLz4);
  EXPECT_EQ(Chosen(10 * kMega, world), Compression::kZstd);
  // Hardly smaller is not worth twice the work.
  EXPECT_EQ(Chosen(10 * kMega, {.zstd_ratio = 0.45}), Compression::kLz4);
}

TEST(CompressionChoiceTest, AChoiceIsKeptWhileItIsANearThing) {
  // LZ4: 1/500 + 0.5/rate; taken up below 0.8/rate, so below 150 MB/s, given up above 225 MB/s.
  const World world = {.lz4_speed = 500, .zstd_speed = 1, .zstd_ratio = 1};
  EXPECT_EQ(Chosen(180 * kMega, world), Compression::kNone);
  CompressionChoice choice;
  choice.SetLinkRate(100 * kMega);
  Send(choice, world);
  ASSERT_EQ(choice.current(), Compression::kLz4);
  choice.SetLinkRate(180 * kMega);
  Send(choice, world);
  EXPECT_EQ(choice.current(), Compression::kLz4);
  choice.SetLinkRate(260 * kMega);
  EXPECT_EQ(choice.current(), Compression::kNone);
  choice.SetLinkRate(180 * kMega);
  Send(choice, world);
  EXPECT_EQ(choice.current(), Compression::kNone);
}

TEST(CompressionChoiceTest, ALinkThatIsNotKnownAnyMoreIsNotCompressedFor) {
  CompressionChoice choice;
  choice.SetLinkRate(10 * kMega);
  Send(choice, World());
  ASSERT_NE(choice.current(), Compression::kNone);
  choice.SetLinkRate(0);
  EXPECT_EQ(choice.current(), Compression::kNone);
  EXPECT_EQ(Send(choice, World()).none, 200);
}

TEST(CompressionChoiceTest, TheOtherMethodIsMeasuredNowAndThen) {
  CompressionChoice choice;
  choice.SetLinkRate(10 * kMega);
  Send(choice, {.zstd_ratio = 0.45}, 100);
  ASSERT_EQ(choice.current(), Compression::kLz4);
  const Bodies sent = Send(choice, {.zstd_ratio = 0.45}, 1000);
  EXPECT_GT(sent.zstd, 10);
  EXPECT_LT(sent.zstd, 60);
  Send(choice, {.zstd_ratio = 0.1}, 20'000);
  EXPECT_EQ(choice.current(), Compression::kZstd);
}

TEST(CompressionChoiceTest, ATimeOfNothingIsNoDivisionByIt) {
  CompressionChoice choice;
  choice.SetLinkRate(1);
  for (int i = 0; i < 100; ++i) {
    const Compression method = choice.Next();
    if (method != Compression::kNone) choice.Took(method, 64 << 10, 0, 0);
  }
  EXPECT_NE(choice.current(), Compression::kNone);
}

}  // namespace
}  // namespace romulus::codec
