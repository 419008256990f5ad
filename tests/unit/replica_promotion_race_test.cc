// P2 under a race: a thread pounds commits while another promotes. The promoted image must be one
// epoch, at least the last acked one, and stay as it was taken.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "unit/replica_rig.h"
#include "unit/replica_session_rig.h"

namespace romulus::replica {
namespace {

constexpr Term kTerm(3);

TEST(PromotionRaceTest, ThePromotedImageIsOneEpochNotOlderThanTheLastAck) {
  constexpr uint64_t kEpochs = 30;
  uint64_t promoted_early = 0;
  for (uint64_t round = 0; round < 15; ++round) {
    codec::EncoderOptions options;
    options.page_body_bytes = 8192;
    options.message_bytes = 16384;  // epochs of several messages: also caught in the middle
    ModelPrimary primary(4, options, round + 1);
    SessionRig rig;
    rig.Feed(primary.StartStream(kTerm));
    rig.Feed(primary.FullSync(kTerm));
    rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 30));
    std::vector<Messages> epochs;
    std::map<EpochId, std::vector<std::byte>> images;
    images[EpochId(1)] = primary.memory();
    for (uint64_t epoch = 2; epoch <= kEpochs; ++epoch) {
      epochs.push_back(primary.RandomEpoch(kTerm, EpochId(epoch), 20));
      images[EpochId(epoch)] = primary.memory();
    }
    std::atomic<uint64_t> fed{0};
    std::thread reader([&] {
      for (const Messages& messages : epochs) {
        rig.Feed(messages);
        fed.fetch_add(1);
      }
    });
    const uint64_t wait_for = round * 2 % kEpochs;
    while (fed.load() < wait_for && fed.load() < kEpochs - 1) std::this_thread::yield();
    absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(4));
    ASSERT_TRUE(taken.ok()) << taken.status();
    const EpochId acked_then = rig.LastAck();
    // The guest runs: what it writes from now on must not be disturbed, nor its pages read.
    const std::vector<std::byte>& image = images.at(taken->key.epoch);
    EXPECT_EQ(ModelPrimary::DifferenceFrom(image, *taken->memory), "")
        << "epoch " << taken->key.epoch.value();
    ASSERT_TRUE(taken->memory->Fill(Gpa(0), std::byte{0x77}, 1 << 20).ok());
    reader.join();
    EXPECT_EQ(taken->machine, primary.Machine(taken->key.epoch));
    EXPECT_LE(acked_then, taken->key.epoch) << "an acked epoch is not in the promoted guest";
    EXPECT_LE(rig.LastAck(), taken->key.epoch) << "acked after the promotion";
    std::vector<std::byte> after = image;
    std::fill(after.begin(), after.begin() + (1 << 20), std::byte{0x77});
    EXPECT_EQ(ModelPrimary::DifferenceFrom(after, *taken->memory), "")
        << "a frame changed the running guest";
    promoted_early += taken->key.epoch < EpochId(kEpochs);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  EXPECT_GT(promoted_early, 3u) << "the race was not one";
}

}  // namespace
}  // namespace romulus::replica
