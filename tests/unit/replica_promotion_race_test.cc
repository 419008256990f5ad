// P2 under a race: a thread pounds commits while another promotes. The promoted image must be one
// epoch, at least the last acked one, and stay as it was taken. Under tsan it also shows that both
// threads take the store's lock.
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
  constexpr uint64_t kEpochs = 14;
  for (uint64_t round = 0; round < 16; ++round) {
    codec::EncoderOptions options;
    options.page_body_bytes = 64 << 10;
    options.message_bytes = 128 << 10;  // epochs of several messages: also caught in the middle
    ModelPrimary primary(4, options, round + 1);
    SessionRig rig;
    rig.Feed(primary.StartStream(kTerm));
    rig.Feed(primary.FullSync(kTerm));
    rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 30));
    std::vector<Messages> epochs;
    std::map<EpochId, std::vector<std::byte>> images;
    images[EpochId(1)] = primary.memory();
    for (uint64_t epoch = 2; epoch <= kEpochs; ++epoch) {
      epochs.push_back(primary.RandomEpoch(kTerm, EpochId(epoch), 400));
      images[EpochId(epoch)] = primary.memory();
    }
    // The promotion asks after `ask_after` epochs; the stream goes on for a few more until it has
    // its answer, and then to the end: frames before, during and after.
    const uint64_t ask_after = round / 2;
    std::atomic<uint64_t> fed{0};
    std::atomic<bool> taken_already{false};
    std::thread reader([&] {
      for (const Messages& messages : epochs) {
        while (fed.load() > ask_after + 4 && !taken_already.load()) std::this_thread::yield();
        rig.Feed(messages);
        fed.fetch_add(1);
      }
    });
    while (fed.load() < ask_after) std::this_thread::yield();
    absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(4));
    const EpochId acked_then = rig.LastAck();
    if (!taken.ok()) {
      taken_already.store(true);
      reader.join();
      FAIL() << taken.status();
    }
    // The guest runs: what it writes from now on must not be disturbed, nor its pages read.
    const std::vector<std::byte>& image = images.at(taken->key.epoch);
    EXPECT_EQ(ModelPrimary::DifferenceFrom(image, *taken->memory), "")
        << "epoch " << taken->key.epoch.value();
    EXPECT_TRUE(taken->memory->Fill(Gpa(0), std::byte{0x77}, 1 << 20).ok());
    taken_already.store(true);
    reader.join();
    EXPECT_EQ(taken->machine, primary.Machine(taken->key.epoch));
    EXPECT_GT(taken->key.epoch, EpochId(ask_after)) << "commits were forgotten";
    EXPECT_LT(taken->key.epoch, EpochId(kEpochs)) << "the promotion waited for the whole stream";
    EXPECT_LE(acked_then, taken->key.epoch) << "an acked epoch is not in the promoted guest";
    EXPECT_LE(rig.LastAck(), taken->key.epoch) << "acked after the promotion";
    std::vector<std::byte> after = image;
    std::fill(after.begin(), after.begin() + (1 << 20), std::byte{0x77});
    EXPECT_EQ(ModelPrimary::DifferenceFrom(after, *taken->memory), "")
        << "a frame changed the running guest";
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

}  // namespace
}  // namespace romulus::replica
