// A secondary with a disk against a hostile primary. First byte: 0 a script of well-formed frames;
// 1 the same after hello and a full sync of zeros; 2 raw bytes as messages; 3 as 0, and 4 as 1,
// without a disk. Whatever comes: no crash, acked is committed and journaled, and what can be
// promoted has been committed.
#include <cstdint>
#include <cstdlib>

#include "fuzz/replica_script.h"
#include "unit/replica_session_rig.h"

namespace romulus::replica {
namespace {

constexpr uint64_t kDiskBytes = 5 * kDiskBlockBytes / 2;

void Sync(bool with_disk, codec::FrameWriter* writer, std::string* message) {
  v1::Hello hello;
  hello.set_vm_name("model");
  hello.set_term(1);
  writer->Append(codec::FrameKind::kHello, Term(1), EpochId(), hello, message);
  v1::SyncBegin begin;
  begin.set_total_pages(1024);
  writer->Append(codec::FrameKind::kSyncBegin, Term(1), EpochId(), begin, message);
  std::string zeros;
  codec::AppendZeroRun(Gfn(0), 1024, &zeros);
  writer->Append(codec::FrameKind::kSyncPages, Term(1), EpochId(), zeros, message);
  if (with_disk) {
    v1::DiskSyncBegin disks;
    disks.set_disk_count(1);
    writer->Append(codec::FrameKind::kDiskSyncBegin, Term(1), EpochId(), disks, message);
    writer->Append(codec::FrameKind::kDiskSyncEnd, Term(1), EpochId(), v1::DiskSyncEnd(), message);
  }
  writer->Append(codec::FrameKind::kSyncEnd, Term(1), EpochId(), v1::SyncEnd(), message);
}

void Run(uint8_t mode, absl::string_view input) {
  const bool with_disk = mode < 3;
  mode %= 3;
  FakeDiskReplica disks;
  disks.Add(0, "disk", kDiskBytes);
  StoreOptions options;
  if (with_disk) options.disks = &disks;
  SessionRig rig(4, options);
  codec::FrameWriter writer;
  writer.SetDialect(codec::Dialect(codec::kNewestProtocol));
  if (mode == 1) {
    std::string message;
    Sync(with_disk, &writer, &message);
    rig.Feed({message});
    if (!rig.listener.sync_complete) std::abort();
  }
  if (mode == 2) {
    rig.Feed({std::string(input)});
  } else {
    std::string message;
    while (!rig.link->closed() && TakeScriptFrame(&input, &writer, &message)) {
      rig.Feed({std::exchange(message, std::string())});
    }
  }
  const ReplicaStatus status = rig.store.status();
  const bool committed = status.state == ReplicaState::kCommitted;
  if (committed && rig.LastAck() != status.newest.epoch) std::abort();
  if (disks.journaled < (with_disk ? rig.counters.epochs_committed.load() : 0)) std::abort();
  const absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(300));
  if (taken.ok() != committed) std::abort();
  if (disks.promoted != (with_disk && committed)) std::abort();
  if (taken.ok() && taken->key != status.newest) std::abort();
  if (taken.ok() && taken->console_offset + taken->console_tail.size() != taken->console_end) {
    std::abort();
  }
}

}  // namespace
}  // namespace romulus::replica

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  romulus::replica::Run(data[0] % 5,
                        absl::string_view(reinterpret_cast<const char*>(data) + 1, size - 1));
  return 0;
}
