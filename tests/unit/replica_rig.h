// A primary without a guest: memory and disks that a seeded random hand changes, encoded into
// messages as the real one would. One thread at a time.
#ifndef ROMULUS_TESTS_UNIT_REPLICA_RIG_H_
#define ROMULUS_TESTS_UNIT_REPLICA_RIG_H_

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "codec/epoch_encoder.h"
#include "codec/frame.h"
#include "memory/guest_memory.h"
#include "romulus/v1/replication.pb.h"
#include "support/fake_disk_replica.h"

namespace romulus::replica {

using Messages = std::vector<std::string>;

inline std::string Join(const Messages& messages) {
  std::string all;
  for (const std::string& message : messages) all += message;
  return all;
}

class ModelPrimary {
 public:
  explicit ModelPrimary(uint64_t memory_mib = 4, const codec::EncoderOptions& options = {},
                        uint64_t seed = 1)
      : random_(seed),
        layout_(*memory::MemoryLayout::ForMib(memory_mib)),
        memory_(layout_.size_bytes()),
        pool_(*epoch::StagingPool::Create(16 << 20)),
        encoder_(*codec::EpochEncoder::Create(layout_.gfn_end(), &writer_, options)) {
    for (uint64_t gfn = 0; gfn < layout_.page_count(); ++gfn) {
      if (random_() % 4 == 0) Mutate(Gfn(gfn));
    }
  }

  std::mt19937_64& random() { return random_; }
  codec::EpochEncoder& encoder() { return *encoder_; }
  codec::FrameWriter& writer() { return writer_; }
  const memory::MemoryLayout& layout() const { return layout_; }
  std::byte* page(Gfn gfn) { return memory_.data() + gfn.value() * kPageSize; }

  // Null if `replica` equals this memory, else the first page that differs, in words.
  std::string Difference(const memory::GuestMemory& replica) {
    return DifferenceFrom(memory_, replica);
  }
  static std::string DifferenceFrom(const std::vector<std::byte>& want,
                                    const memory::GuestMemory& replica) {
    for (uint64_t gfn = 0; gfn * kPageSize < want.size(); ++gfn) {
      if (std::memcmp(replica.Page(Gfn(gfn)).data(), want.data() + gfn * kPageSize, kPageSize)) {
        return "page " + std::to_string(gfn) + " differs";
      }
    }
    return "";
  }
  const std::vector<std::byte>& memory() const { return memory_; }

  // Disks 0 to sizes.size() - 1.
  void AddDisks(const std::vector<uint64_t>& sizes) {
    for (uint64_t size : sizes) disks_.emplace_back(size);
    for (DiskBytes& disk : disks_) disk[disk.size() / 2] = std::byte{'p'};
  }
  const std::vector<DiskBytes>& disks() const { return disks_; }
  // Something that a guest does to a disk; done, and written down for the next epoch.
  void MutateDisk() {
    epoch::DiskWrite write;
    write.disk = static_cast<uint32_t>(random_() % disks_.size());
    DiskBytes& disk = disks_[write.disk];
    const uint64_t sectors = disk.size() / codec::kDiskSectorBytes;
    const uint64_t first = random_() % sectors;
    const uint64_t count =
        1 + random_() % std::min<uint64_t>(sectors - first, random_() % 8 == 0 ? 1000 : 16);
    write.offset_bytes = first * codec::kDiskSectorBytes;
    write.size_bytes = std::min(count, sectors - first) * codec::kDiskSectorBytes;
    write.kind = static_cast<epoch::DiskWrite::Kind>(random_() % 8 < 5 ? 0 : random_() % 4);
    if (write.kind == epoch::DiskWrite::Kind::kFlush) write.offset_bytes = write.size_bytes = 0;
    if (write.kind == epoch::DiskWrite::Kind::kWrite) {
      write.data.assign(write.size_bytes, static_cast<std::byte>(random_()));
      write.data[0] = static_cast<std::byte>(random_());
    }
    DoDiskWrite(write, &disk);
    disk_writes_.push_back(std::move(write));
  }
  void MutateDisks(size_t count) {
    for (size_t i = 0; i < count; ++i) MutateDisk();
  }
  // Empty if the replica's disks are `want`.
  static std::string DiskDifference(const std::vector<DiskBytes>& want,
                                    const FakeDiskReplica& replica) {
    for (size_t i = 0; i < want.size(); ++i) {
      if (want[i] != replica.disks[i].bytes) return "disk " + std::to_string(i) + " differs";
    }
    return "";
  }

  // The hashes of pages as they are now.
  epoch::AuditRun Run(Gfn first, uint64_t count) {
    epoch::AuditRun run{first, {}};
    for (uint64_t i = 0; i < count; ++i) {
      run.hashes.push_back(memory::HashPage128(Bytes(Gfn(first.value() + i))));
    }
    return run;
  }
  std::vector<epoch::AuditRun> audit;  // of the next epoch
  // The hashes of blocks of a disk as they are now.
  epoch::DiskAuditRun DiskRun(uint32_t disk, uint64_t first, uint64_t count) {
    epoch::DiskAuditRun run{disk, first, {}};
    const DiskBytes& bytes = disks_[disk];
    for (uint64_t at = first * codec::kDiskBlockBytes; count > 0; --count) {
      const uint64_t size = std::min(codec::kDiskBlockBytes, bytes.size() - at);
      run.hashes.push_back(codec::HashDiskBlock(std::span(bytes).subspan(at, size)));
      at += size;
    }
    return run;
  }
  std::vector<epoch::DiskAuditRun> disk_audit;  // of the next epoch

  // Changes the page in one of the ways that guests do; may also leave it as it is.
  void Mutate(Gfn gfn) {
    std::byte* bytes = page(gfn);
    switch (random_() % 8) {
      case 0:
        std::memset(bytes, 0, kPageSize);
        return;
      case 1:
        for (size_t i = 0; i < kPageSize; i += 8) {
          const uint64_t value = random_();
          std::memcpy(bytes + i, &value, 8);
        }
        return;
      case 2:
        return;
      case 3:
        // Few words with few values: they go back to what they were, as flags and locks do.
        for (size_t n = random_() % 10; n > 0; --n) {
          const uint64_t value = random_() % 3;
          std::memcpy(bytes + random_() % 6 * 8, &value, 8);
        }
        return;
      default:
        for (size_t n = random_() % 40; n > 0; --n) {
          const uint64_t value = random_();
          std::memcpy(bytes + random_() % 512 * 8, &value, 8);
        }
    }
  }
  std::vector<Gfn> MutateSome(size_t count) {
    std::set<Gfn> gfns;
    while (gfns.size() < count) gfns.insert(Gfn(random_() % layout_.page_count()));
    for (Gfn gfn : gfns) Mutate(gfn);
    return {gfns.begin(), gfns.end()};
  }

  // A stream's beginning, Hello included; what follows is of the dialect.
  Messages StartStream(Term term, codec::Dialect dialect = codec::Dialect(codec::kNewestProtocol)) {
    writer_.Reset();
    encoder_->StartStream(codec::kDefaultMaxBodyBytes);
    v1::Hello hello;
    hello.set_term(term.value());
    hello.set_vm_name("model");
    std::string message;
    writer_.Append(codec::FrameKind::kHello, term, EpochId(), hello, &message);
    writer_.SetDialect(dialect);
    return {message};
  }
  Messages FullSync(Term term, bool name_all = true) {
    Messages sent;
    auto send = Collect(&sent);
    ROMULUS_CHECK(encoder_->BeginSync(term, layout_.page_count(), send).ok());
    const uint64_t pages = layout_.page_count() - (name_all ? 0 : 1);
    for (uint64_t gfn = 0; gfn < pages; ++gfn) {
      ROMULUS_CHECK(encoder_->AddSyncPage(Gfn(gfn), Bytes(Gfn(gfn)), send).ok());
    }
    // A second round over some.
    encoder_->BeginSyncRound();
    for (Gfn gfn : MutateSome(20)) {
      if (gfn.value() >= pages) continue;
      ROMULUS_CHECK(encoder_->AddSyncPage(gfn, Bytes(gfn), send).ok());
    }
    if (!disks_.empty()) SyncDisks(send);
    ROMULUS_CHECK(encoder_->EndSync(2, send).ok());
    return sent;
  }

  epoch::PageBatch Stage(std::span<const Gfn> gfns) {
    epoch::PageBatch batch;
    batch.gfns.assign(gfns.begin(), gfns.end());
    batch.chunk = *pool_->TryAcquire();
    for (size_t i = 0; i < gfns.size(); ++i) {
      std::memcpy(batch.chunk.data() + i * kPageSize, page(gfns[i]), kPageSize);
    }
    return batch;
  }
  state::MachineState Machine(EpochId epoch) const {
    state::MachineState machine;
    machine.PutStruct("model", 0, 1, epoch.value());
    machine.Put("bulk", 0, 1, std::string(3000, static_cast<char>('a' + epoch.value() % 26)));
    return machine;
  }
  // Everything of one epoch: the given pages as they are now.
  Messages Epoch(Term term, EpochId epoch, const std::vector<Gfn>& gfns,
                 const std::string& console = "", uint64_t released = 0) {
    epoch::StagedEpoch staged = Cut(term, epoch, gfns, console);
    Messages sent;
    auto send = Collect(&sent);
    size_t at = 0;
    // All but the last few pages are handed over early, as a full staging pool does.
    while (gfns.size() - at > 128) {
      ROMULUS_CHECK(
          encoder_->AddPages(term, epoch, Stage(std::span(gfns).subspan(at, 64)), send).ok());
      at += 64;
    }
    while (at < gfns.size()) {
      const size_t count = std::min<size_t>(64, gfns.size() - at);
      staged.batches.push_back(Stage(std::span(gfns).subspan(at, count)));
      at += count;
    }
    const absl::Status status = encoder_->Finish(staged, 1000 + epoch.value(), released, send);
    ROMULUS_CHECK(status.ok());
    return sent;
  }
  Messages RandomEpoch(Term term, EpochId epoch, size_t pages) {
    return Epoch(term, epoch, MutateSome(pages));
  }
  // Pages of an epoch and its abort.
  Messages AbortedEpoch(Term term, EpochId epoch, const std::vector<Gfn>& gfns) {
    Messages sent;
    auto send = Collect(&sent);
    for (size_t at = 0; at < gfns.size(); at += 64) {
      const size_t count = std::min<size_t>(64, gfns.size() - at);
      ROMULUS_CHECK(
          encoder_->AddPages(term, epoch, Stage(std::span(gfns).subspan(at, count)), send).ok());
    }
    ROMULUS_CHECK(encoder_->Abort(term, epoch, "test", send).ok());
    return sent;
  }
  std::string Control(codec::FrameKind kind, Term term, EpochId epoch,
                      const google::protobuf::MessageLite& body) {
    std::string message;
    writer_.Append(kind, term, epoch, body, &message);
    return message;
  }

 private:
  struct Collector {
    Messages* sent;
    absl::Status operator()(std::string message) const {
      sent->push_back(std::move(message));
      return absl::OkStatus();
    }
  };
  static Collector Collect(Messages* sent) { return Collector{sent}; }
  codec::PageBytes Bytes(Gfn gfn) { return codec::PageBytes(page(gfn), kPageSize); }

  epoch::StagedEpoch Cut(Term term, EpochId epoch, const std::vector<Gfn>& gfns,
                         const std::string& console) {
    epoch::StagedEpoch staged;
    staged.term = term;
    staged.epoch = epoch;
    staged.page_count = gfns.size();
    staged.machine = Machine(epoch);
    staged.console.offset = console_end_;
    staged.console.bytes = console;
    console_end_ += console.size();
    staged.disk_writes = std::exchange(disk_writes_, {});
    staged.audit = std::exchange(audit, {});
    staged.disk_audit = std::exchange(disk_audit, {});
    return staged;
  }

  // All of every disk, as it is now, in frames of some blocks.
  void SyncDisks(codec::EpochEncoder::Send send) {
    v1::DiskSyncBegin begin;
    begin.set_disk_count(static_cast<uint32_t>(disks_.size()));
    ROMULUS_CHECK(
        encoder_->AddSyncFrame(codec::FrameKind::kDiskSyncBegin, begin.SerializeAsString(), send)
            .ok());
    for (uint32_t i = 0; i < disks_.size(); ++i) {
      for (uint64_t at = 0; at < disks_[i].size(); at += codec::kDiskBlockBytes) {
        const auto block = std::span(disks_[i]).subspan(
            at, std::min<uint64_t>(codec::kDiskBlockBytes, disks_[i].size() - at));
        const bool zero = codec::AllZero(block);
        std::string body;
        codec::AppendDiskRecord(
            zero ? codec::DiskRecordKind::kZeros : codec::DiskRecordKind::kWrite, i, at,
            block.size(), zero ? std::span<std::byte>() : block, &body);
        ROMULUS_CHECK(encoder_->AddSyncFrame(codec::FrameKind::kDiskBlocks, body, send).ok());
      }
    }
    ROMULUS_CHECK(encoder_
                      ->AddSyncFrame(codec::FrameKind::kDiskSyncEnd,
                                     v1::DiskSyncEnd().SerializeAsString(), send)
                      .ok());
    disk_writes_.clear();  // they are over there
  }

  std::mt19937_64 random_;
  memory::MemoryLayout layout_;
  std::vector<std::byte> memory_;
  std::unique_ptr<epoch::StagingPool> pool_;
  codec::FrameWriter writer_;
  std::unique_ptr<codec::EpochEncoder> encoder_;
  uint64_t console_end_ = 0;
  std::vector<DiskBytes> disks_;
  std::vector<epoch::DiskWrite> disk_writes_;  // of the next epoch
};

}  // namespace romulus::replica

#endif  // ROMULUS_TESTS_UNIT_REPLICA_RIG_H_
