// The disks' part of a full sync against a real replica store: exact copies of disks that a guest
// writes all the while, and no byte more on the wire than is needed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <tuple>

#include "support/fake_disk_replica.h"
#include "unit/wire_pair.h"
#include "wire/disk_sync.h"

namespace romulus::wire {
namespace {

using codec::kDiskBlockBytes;
using replica::DiskBytes;
using testing::HasSubstr;

// The guest's disks and their log. The guest writes whenever a block is read.
class GuestDisks final : public DiskSyncSource {
 public:
  void Seed(uint64_t seed) { random_.seed(seed); }
  void Add(uint32_t disk, uint64_t size) { disks_[disk].resize(size); }
  DiskBytes& bytes(uint32_t disk) { return disks_.at(disk); }
  std::vector<epoch::DiskWrite> TakeLog() { return std::exchange(log_, {}); }

  codec::DiskLayout disks() const override {
    codec::DiskLayout layout;
    for (const auto& [disk, bytes] : disks_) layout.push_back({disk, bytes.size()});
    return layout;
  }
  absl::Status BeginTracking() override {
    tracking_ = true;
    logging_ = false;
    dirty_.clear();
    log_.clear();
    return absl::OkStatus();
  }
  absl::Status Read(uint32_t disk, uint64_t offset, std::span<std::byte> into) override {
    if (!fail_read.ok()) return fail_read;
    EXPECT_TRUE(tracking_) << "read before tracking began: what the guest writes now is lost";
    EXPECT_LE(into.size(), kDiskBlockBytes);
    const DiskBytes& bytes = disks_.at(disk);
    ++reads;
    // Torn: the guest writes in the middle of the read.
    const size_t half = into.size() / 2;
    std::memcpy(into.data(), bytes.data() + offset, half);
    if (writes_per_read > 0) Write(writes_per_read);
    std::memcpy(into.data() + half, bytes.data() + offset + half, into.size() - half);
    if (on_read) on_read();
    return absl::OkStatus();
  }
  absl::StatusOr<DiskRange> NextData(uint32_t disk, uint64_t offset) override {
    const DiskBytes& bytes = disks_.at(disk);
    const auto data = [&](uint64_t at) {
      return !codec::AllZero(
          std::span(bytes).subspan(at, std::min<size_t>(4096, bytes.size() - at)));
    };
    uint64_t at = offset / 4096 * 4096;
    while (at < bytes.size() && !data(at)) at += 4096;
    uint64_t end = at;
    while (end < bytes.size() && data(end)) end += 4096;
    return DiskRange{std::min<uint64_t>(std::max(at, offset), bytes.size()),
                     std::min<uint64_t>(end, bytes.size())};
  }
  absl::StatusOr<std::vector<DiskRange>> TakeDirty(uint32_t disk) override {
    std::vector<DiskRange> ranges;
    for (uint64_t block : std::exchange(dirty_[disk], {})) {
      const uint64_t at = block * kDiskBlockBytes;
      ranges.push_back({at, std::min<uint64_t>(at + kDiskBlockBytes, disks_.at(disk).size())});
    }
    ++takes;
    return ranges;
  }
  absl::Status SwitchToLogging() override {
    EXPECT_TRUE(tracking_);
    // A write that was under way ends now.
    if (writes_per_read > 0) Write(1);
    logging_ = true;
    return absl::OkStatus();
  }

  void Write(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      auto it = disks_.begin();
      std::advance(it, random_() % disks_.size());
      auto& [disk, bytes] = *it;
      epoch::DiskWrite write;
      write.disk = disk;
      const uint64_t sectors = bytes.size() / 512;
      const uint64_t first = random_() % sectors;
      write.offset_bytes = first * 512;
      write.size_bytes = std::min<uint64_t>(1 + random_() % 32, sectors - first) * 512;
      write.kind = random_() % 4 == 0 ? epoch::DiskWrite::Kind::kWriteZeroes
                                      : epoch::DiskWrite::Kind::kWrite;
      if (write.kind == epoch::DiskWrite::Kind::kWrite) {
        write.data.assign(write.size_bytes, static_cast<std::byte>(random_()));
      }
      Do(std::move(write));
    }
  }
  void Do(epoch::DiskWrite write) {
    replica::DoDiskWrite(write, &disks_.at(write.disk));
    if (logging_) return log_.push_back(std::move(write));
    for (uint64_t at = write.offset_bytes / kDiskBlockBytes;
         at <= (write.offset_bytes + write.size_bytes - 1) / kDiskBlockBytes; ++at) {
      dirty_[write.disk].insert(at);
    }
  }

  size_t writes_per_read = 0;
  uint64_t reads = 0;
  int takes = 0;
  std::function<void()> on_read;
  absl::Status fail_read;

 private:
  std::mt19937_64 random_{5};
  std::map<uint32_t, DiskBytes> disks_;
  std::map<uint32_t, std::set<uint64_t>> dirty_;
  std::vector<epoch::DiskWrite> log_;
  bool tracking_ = false;
  bool logging_ = false;
};

// Before PairTest, whose store borrows them.
struct ReplicaDisks {
  replica::FakeDiskReplica disks;
};

class DiskSyncTest : public ReplicaDisks, public PairTest {
 protected:
  static constexpr uint64_t kRoot = 3 * (1u << 20) + 512;  // the last block is one sector
  static constexpr uint64_t kData = 1u << 20;

  DiskSyncTest() : PairTest(OptionsFor(disks)) {
    guest_.Add(0, kRoot);
    guest_.Add(2, kData);
    for (const auto& [disk, name, size] :
         {std::tuple(0u, "root", kRoot), std::tuple(2u, "data", kData)}) {
      DiskCopy& copy = secondary_.judge.disks.emplace_back();
      copy.disk = disk;
      copy.name = name;
      copy.size_bytes = size;
    }
    primary_.options.hello.disks = secondary_.judge.disks;
  }
  static replica::StoreOptions OptionsFor(replica::FakeDiskReplica& disks) {
    disks.Add(0, "root", kRoot);
    disks.Add(2, "data", kData);
    replica::StoreOptions options;
    options.disks = &disks;
    options.disk_staging_bytes = 64 << 20;
    return options;
  }
  void Fill(DiskBytes& bytes, uint64_t at, uint64_t size, int value) {
    std::memset(bytes.data() + at, value, size);
  }
  absl::Status Sync() {
    if (absl::Status connected = Connect(); !connected.ok()) return connected;
    StartPump();
    return primary_.HandshakeAndSync(&guest_);
  }
  void CutAndAwait() {
    primary_.CutEpoch(guest_.TakeLog());
    ASSERT_TRUE(primary_.session->epochs().AwaitAllAcked(kPatience).ok());
    secondary_.AwaitApplied(EpochId(primary_.last_epoch));
  }
  std::string Difference() {
    if (guest_.bytes(0) != disks.Find(0).bytes) return "root differs";
    return guest_.bytes(2) != disks.Find(2).bytes ? "data differs" : "";
  }
  void SayAllZero(bool all_zero) {
    for (DiskCopy& disk : secondary_.judge.disks) disk.all_zero = all_zero;
    for (auto& disk : disks.disks) {
      disk.facts.all_zero = all_zero;
      if (all_zero) disk.facts.role = replica::CopyRole::kNever;
    }
  }
  const DiskProgress& Progress(size_t i) { return primary_.synced.disks.at(i); }

  GuestDisks guest_;
};

TEST_F(DiskSyncTest, ADiskThatNobodyWritesIsCopied) {
  Fill(guest_.bytes(0), 100 * 1024, 300 * 1024, 'a');
  Fill(guest_.bytes(0), kRoot - 512, 512, 'z');
  // What the secondary had there before goes, and what is equal is not sent.
  Fill(disks.Find(0).bytes, 1 << 20, 100, 'o');
  Fill(disks.Find(2).bytes, 0, kData, 'o');
  Fill(guest_.bytes(2), 0, kDiskBlockBytes, 'o');
  ASSERT_TRUE(Sync().ok());
  CutAndAwait();
  EXPECT_EQ(Difference(), "");
  EXPECT_EQ(disks.hashed_blocks, codec::DiskBlockCount(kRoot) + codec::DiskBlockCount(kData));
  EXPECT_EQ(disks.written_bytes, Progress(0).bytes_sent + Progress(1).bytes_sent);
  EXPECT_EQ(Progress(1).bytes_equal, kDiskBlockBytes);
  EXPECT_EQ(Progress(1).bytes_sent, 0u);
  EXPECT_EQ(Progress(1).bytes_zero, kData - kDiskBlockBytes);
  EXPECT_EQ(Progress(0).bytes_done, kRoot);
  EXPECT_EQ(Progress(1).bytes_done, kData);
}

TEST_F(DiskSyncTest, HolesOfAFreshCopyCostNothing) {
  SayAllZero(true);
  Fill(guest_.bytes(0), 2 << 20, 10, 'a');
  ASSERT_TRUE(Sync().ok());
  CutAndAwait();
  EXPECT_EQ(Difference(), "");
  EXPECT_EQ(disks.hashed_blocks, 0u);
  EXPECT_EQ(disks.written_bytes, kDiskBlockBytes);
  EXPECT_EQ(disks.zeroed_bytes, 0u);
  EXPECT_LE(guest_.reads, 2u) << "holes are not read";
  EXPECT_EQ(Progress(0).bytes_done, kRoot);
}

// Parameter: seed; the secondary's copy is fresh if it is odd.
class BusyGuestTest : public DiskSyncTest, public testing::WithParamInterface<int> {};

TEST_P(BusyGuestTest, P4_IsCopiedExactly) {
  const auto seed = static_cast<uint64_t>(GetParam());
  guest_.Seed(seed);
  guest_.bytes(0).assign(kRoot, static_cast<std::byte>(seed));
  guest_.writes_per_read = 1 + seed % 4;
  SayAllZero(seed % 2 == 1);
  if (seed % 2 == 0) disks.Find(0).bytes = guest_.bytes(0);
  ASSERT_TRUE(Sync().ok());
  CutAndAwait();
  EXPECT_EQ(Difference(), "");
  for (int epoch = 0; epoch < 5; ++epoch) {
    guest_.Write(20);
    CutAndAwait();
    ASSERT_EQ(Difference(), "");
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, BusyGuestTest, testing::Range(0, 24));

TEST_F(DiskSyncTest, AnInterruptedSyncGoesOnWhereItWas) {
  std::mt19937_64 random(3);
  for (uint64_t at = 0; at + 8 <= kRoot; at += 8) {
    const uint64_t value = random();
    std::memcpy(guest_.bytes(0).data() + at, &value, 8);
  }
  SayAllZero(true);
  guest_.on_read = [this] {
    if (guest_.reads != 30) return;
    while (network_->InFlight(kSecondary) > 0) std::this_thread::yield();
    network_->Cut(absl::UnavailableError("the cable is out"));
  };
  EXPECT_FALSE(Sync().ok());
  primary_.listener.AwaitClosed().IgnoreError();
  secondary_.AwaitClosed();
  StopPump();
  primary_.session.reset();
  const uint64_t first = disks.written_bytes;
  EXPECT_GT(first, 0u);
  EXPECT_LT(first, kRoot);
  // The next stream finds a copy that is not empty any more.
  SayAllZero(false);
  guest_.on_read = nullptr;
  TestPrimary again(8);
  again.options.hello.disks = primary_.options.hello.disks;
  network_ = std::make_unique<LoopbackNetwork>();
  network_->SetListener(kSecondary, secondary_.Connect(network_->TakeLink(kSecondary)));
  ASSERT_TRUE(again
                  .Open([this](LinkListener* listener) {
                    network_->SetListener(kPrimary, listener);
                    return network_->TakeLink(kPrimary);
                  })
                  .ok());
  StartPump();
  ASSERT_TRUE(again.HandshakeAndSync(&guest_).ok());
  again.CutEpoch(guest_.TakeLog());
  ASSERT_TRUE(again.session->epochs().AwaitAllAcked(kPatience).ok());
  secondary_.AwaitApplied(EpochId(1));
  EXPECT_EQ(Difference(), "");
  primary_.synced = again.synced;
  EXPECT_EQ(Progress(0).bytes_equal, first);
  EXPECT_EQ(disks.written_bytes, kRoot) << "nothing was sent twice";
  again.session->Close(absl::CancelledError("done"));
  again.listener.AwaitClosed().IgnoreError();
  StopPump();
}

TEST_F(DiskSyncTest, AGuestFasterThanTheRoundsDoesNotHoldTheSyncForEver) {
  primary_.options.sync.disks.target_dirty_bytes = 0;
  primary_.options.sync.disks.max_rounds = 5;
  guest_.writes_per_read = 3;
  Fill(guest_.bytes(0), 0, kRoot, 'x');
  ASSERT_TRUE(Sync().ok());
  EXPECT_LE(guest_.takes, 2 * 6);
  CutAndAwait();
  EXPECT_EQ(Difference(), "");
}

TEST_F(DiskSyncTest, AnErrorOfTheDiskEndsTheSync) {
  guest_.fail_read = absl::DataLossError("/images/root: input/output error");
  Fill(guest_.bytes(0), 0, 10, 'x');
  const absl::Status failed = Sync();
  EXPECT_THAT(std::string(failed.message()), HasSubstr("/images/root"));
}

TEST_F(DiskSyncTest, ACancelledSyncEnds) {
  Fill(guest_.bytes(0), 0, kRoot, 'x');
  guest_.on_read = [this] {
    if (guest_.reads == 3) primary_.session->CancelFullSync();
  };
  EXPECT_TRUE(absl::IsCancelled(Sync()));
}

// A secondary that accepts and then says what a test wants.
class BarePeer final : public LinkListener {
 public:
  explicit BarePeer(LoopbackNetwork* network) : link_(network->TakeLink(kSecondary)) {
    network->SetListener(kSecondary, this);
  }
  void Accept() {
    v1::HelloReply accept;
    accept.set_accepted(true);
    accept.set_protocol_version(codec::kNewestProtocol);
    Say(codec::FrameKind::kHelloReply, accept.SerializeAsString());
  }
  void Say(codec::FrameKind kind, absl::string_view body) {
    std::string message;
    writer_.Append(kind, Term(32), EpochId(), body, &message);
    link_->Send(message).IgnoreError();
  }
  void OnMessage(absl::string_view frames) override {
    while (!frames.empty()) {
      const absl::StatusOr<codec::Frame> frame = reader_.Next(&frames);
      ASSERT_TRUE(frame.ok()) << frame.status();
      if (frame->kind == codec::FrameKind::kDiskHashRequest && on_request) on_request(*frame);
    }
  }
  void OnClosed(const absl::Status&) override {}

  std::function<void(const codec::Frame&)> on_request;

 private:
  std::unique_ptr<Link> link_;
  codec::FrameReader reader_;
  codec::FrameWriter writer_;
};

class BareDiskSyncTest : public DiskSyncTest {
 protected:
  void SetUp() override {
    network_ = std::make_unique<LoopbackNetwork>();
    network_->DeliverAtOnce();
    peer_ = std::make_unique<BarePeer>(network_.get());
    ASSERT_TRUE(OpenOn(*network_).ok());
    peer_->Accept();
    ASSERT_TRUE(primary_.session->Handshake(kPatience).ok());
  }
  void TearDown() override {
    primary_.session.reset();
    peer_.reset();
  }
  absl::Status RunSync() {
    return primary_.session->RunFullSync(primary_.memory.get(), &primary_, &guest_).status();
  }
  std::unique_ptr<BarePeer> peer_;
};

// Waiting for an answer that never comes: the wait ends all the same.
TEST_F(BareDiskSyncTest, AWaitForHashesEndsWhenCancelled) {
  peer_->on_request = [this](const codec::Frame&) { primary_.session->CancelFullSync(); };
  EXPECT_TRUE(absl::IsCancelled(RunSync()));
}

TEST_F(BareDiskSyncTest, AWaitForHashesEndsWhenTheStreamDoes) {
  peer_->on_request = [this](const codec::Frame&) {
    primary_.session->Close(absl::UnavailableError("gone"));
  };
  EXPECT_FALSE(RunSync().ok());
}

TEST_F(BareDiskSyncTest, P7_HashesOutsideASyncEndTheStream) {
  codec::DiskHashes hashes{0, 0, {{1, 2}}};
  std::string body;
  codec::AppendDiskHashes(hashes, &body);
  peer_->Say(codec::FrameKind::kDiskHashes, body);
  EXPECT_THAT(std::string(primary_.listener.AwaitBroken().message()),
              HasSubstr("unexpected frame: disk_hashes"));
  EXPECT_THAT(primary_.listener.refused, testing::ElementsAre(codec::FrameFault::kNone));
}

TEST_F(BareDiskSyncTest, P7_OtherHashesThanAskedForEndTheStream) {
  peer_->on_request = [this](const codec::Frame& frame) {
    v1::DiskHashRequest request;
    ASSERT_TRUE(codec::ParseBody(frame, &request).ok());
    codec::DiskHashes hashes;
    hashes.disk = request.disk();
    hashes.first_block = request.first_block();
    hashes.hashes.resize(request.count() - 1);  // one is missing
    std::string body;
    codec::AppendDiskHashes(hashes, &body);
    peer_->Say(codec::FrameKind::kDiskHashes, body);
  };
  EXPECT_FALSE(RunSync().ok());
  EXPECT_THAT(std::string(primary_.listener.AwaitBroken().message()),
              HasSubstr("for which nobody asked"));
  EXPECT_THAT(primary_.listener.refused, testing::ElementsAre(codec::FrameFault::kNone));
}

TEST_F(DiskSyncTest, SmallFramesOfThePeerAreEnough) {
  secondary_.judge.max_frame_bytes = 20000;
  Fill(guest_.bytes(0), 0, kRoot, 'x');
  ASSERT_TRUE(Sync().ok());
  CutAndAwait();
  EXPECT_EQ(Difference(), "");
}

}  // namespace
}  // namespace romulus::wire
