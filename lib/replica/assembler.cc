#include "replica/assembler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/bytes.h"
#include "base/status.h"
#include "codec/audit_records.h"
#include "codec/page_encoding.h"
#include "replica/fault.h"
#include "replica/replica_status.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::replica {
Assembler::Assembler(const memory::GuestMemory* memory, uint64_t staging_cap_bytes,
                     codec::DiskLayout disks)
    : memory_(memory),
      staging_cap_bytes_(staging_cap_bytes),
      disks_(std::move(disks)),
      seen_(memory->layout().gfn_end()) {}

void Assembler::Start() {
  Stop();
  started_ = true;
  first_ = true;
  machine_.Reset();
}

void Assembler::Stop() {
  CloseEpoch();
  started_ = false;
}

void Assembler::CloseEpoch() {
  open_ = false;
  staged_.Clear();
  seen_.Clear();
  page_count_ = 0;
  digest_.Reset();
  disk_writes_.clear();
  disk_bytes_ = 0;
  disk_staged_bytes_ = 0;
  disk_digest_.Reset();
  audit_.reset();
  audit_staged_bytes_ = 0;
}

void Assembler::Recycle(StagedPages&& spent) {
  if (open_) return;
  staged_ = std::move(spent);
  staged_.Clear();
}

absl::Status Assembler::Enter(const codec::Frame& frame) {
  const EpochKey key = {frame.term, frame.epoch};
  if (!started_) {
    return FaultStatus(Fault::kUnexpected,
                       absl::StrCat(NameOf(key), " came before a completed full sync"));
  }
  const auto out_of_order = [&](absl::string_view want) {
    return FaultStatus(Fault::kEpochOrder, absl::StrCat(NameOf(key), " came, want ", want));
  };
  if (open_) {
    return key == current_ ? absl::OkStatus()
                           : out_of_order(absl::StrCat("more of ", NameOf(current_)));
  }
  if (key.epoch == EpochId()) return out_of_order("a number from 1");
  if (first_ || key.term > newest_.term) {
    if (!first_ && key.epoch != EpochId(1)) return out_of_order("epoch 1 of a new term");
    committed_ = EpochId(key.epoch.value() - 1);
    newest_ = {key.term, committed_};
    first_ = false;
  }
  if (key.term < newest_.term || key.epoch <= committed_ || key.epoch > newest_.epoch.Next()) {
    return out_of_order(NameOf({newest_.term, newest_.epoch.Next()}));
  }
  open_ = true;
  current_ = key;
  return absl::OkStatus();
}

absl::Status Assembler::AddPages(const codec::Frame& frame) {
  absl::Status status = Enter(frame);
  if (status.ok()) status = Stage(frame);
  if (!status.ok()) Stop();
  return status;
}

absl::Status Assembler::Stage(const codec::Frame& frame) {
  if (frame.body.empty()) return FaultStatus(Fault::kPages, "page frame without pages");
  codec::PageRecordReader records(frame.body, memory_->layout(), frame.dialect);
  while (!records.done()) {
    absl::StatusOr<codec::PageRecord> record = records.Next();
    if (!record.ok()) return WithFault(Fault::kPages, record.status());
    for (uint64_t i = 0; i < record->count; ++i) {
      const Gfn gfn(record->gfn.value() + i);
      if (!seen_.Insert(gfn)) {
        return FaultStatus(Fault::kPages, absl::StrFormat("page %#x comes twice in %s", gfn.value(),
                                                          NameOf(current_)));
      }
      ++page_count_;
      switch (record->encoding) {
        case codec::PageEncoding::kZero:
        case codec::PageEncoding::kZeroRun:
          staged_.AddZero(gfn);
          digest_.Add(gfn, codec::ZeroPageHash());
          break;
        case codec::PageEncoding::kSame:
          digest_.Add(gfn, codec::PageHash(memory_->Page(gfn)));
          break;
        case codec::PageEncoding::kRaw:
        case codec::PageEncoding::kDelta:
        case codec::PageEncoding::kSparse: {
          const codec::MutablePageBytes page = staged_.Add(gfn);
          codec::DecodePage(*record, memory_->Page(gfn), page);
          digest_.Add(gfn, codec::PageHash(page));
          break;
        }
      }
      ROMULUS_RETURN_IF_ERROR(CheckCap());
    }
  }
  return absl::OkStatus();
}

absl::Status Assembler::CheckCap() const {
  if (staged_bytes() <= staging_cap_bytes_) return absl::OkStatus();
  return FaultStatus(Fault::kCap, absl::StrCat(NameOf(current_), " needs more than ",
                                               staging_cap_bytes_, " bytes (staging cap)"));
}

absl::Status Assembler::AddDisks(const codec::Frame& frame) {
  absl::Status status = Enter(frame);
  if (status.ok()) status = StageDisks(frame);
  if (!status.ok()) Stop();
  return status;
}

absl::Status Assembler::StageDisks(const codec::Frame& frame) {
  if (frame.body.empty()) return FaultStatus(Fault::kDisks, "disk frame without records");
  codec::DiskRecordReader records(frame.body, disks_);
  while (!records.done()) {
    absl::StatusOr<codec::DiskRecord> record = records.Next();
    if (!record.ok()) return WithFault(Fault::kDisks, record.status());
    disk_staged_bytes_ += sizeof(epoch::DiskWrite) + record->payload.size();
    ROMULUS_RETURN_IF_ERROR(CheckCap());
    disk_digest_.Add(record->raw);
    disk_bytes_ += record->size_bytes;
    disk_writes_.push_back(codec::ToDiskWrite(*record));
  }
  return absl::OkStatus();
}

absl::Status Assembler::AddAudit(const codec::Frame& frame) {
  absl::Status status = Enter(frame);
  if (status.ok()) status = StageAudit(frame);
  if (!status.ok()) Stop();
  return status;
}

absl::Status Assembler::StageAudit(const codec::Frame& frame) {
  if (audit_.has_value()) {
    return FaultStatus(Fault::kAudit, absl::StrCat(NameOf(current_), " has a second audit"));
  }
  absl::StatusOr<codec::AuditHashes> hashes =
      codec::ParseAudit(frame.body, frame.dialect, memory_->layout(), disks_);
  if (!hashes.ok()) return WithFault(Fault::kAudit, hashes.status());
  audit_ = *std::move(hashes);
  audit_staged_bytes_ = frame.body.size();
  return CheckCap();
}

absl::StatusOr<AssembledEpoch> Assembler::Commit(const codec::Frame& frame) {
  absl::Status status = Enter(frame);
  if (!status.ok()) {
    Stop();
    return status;
  }
  absl::StatusOr<AssembledEpoch> epoch = Complete(frame);
  if (!epoch.ok()) {
    Stop();
    return epoch;
  }
  newest_ = current_;
  committed_ = current_.epoch;
  CloseEpoch();
  return epoch;
}

absl::Status Assembler::CheckDigests(const v1::EpochCommit& commit) const {
  if (commit.page_count() != page_count_) {
    return FaultStatus(Fault::kCount,
                       absl::StrCat(NameOf(current_), " announces ", commit.page_count(),
                                    " pages, ", page_count_, " came"));
  }
  if (commit.pages_digest() != digest_.value()) {
    return FaultStatus(Fault::kDigest,
                       absl::StrCat(NameOf(current_), ": pages do not have the announced digest"));
  }
  if (commit.disk_record_count() != disk_writes_.size() || commit.disk_bytes() != disk_bytes_) {
    return FaultStatus(Fault::kCount,
                       absl::StrCat(NameOf(current_), " announces ", commit.disk_record_count(),
                                    " disk records of ", commit.disk_bytes(), " bytes, ",
                                    disk_writes_.size(), " of ", disk_bytes_, " came"));
  }
  if (commit.disk_digest() != disk_digest_.value()) {
    return FaultStatus(Fault::kDigest, absl::StrCat(NameOf(current_),
                                                    ": disk records do not have the announced "
                                                    "digest"));
  }
  return absl::OkStatus();
}

absl::StatusOr<state::MachineState> Assembler::TakeMachine(const v1::EpochCommit& commit,
                                                           const codec::Dialect& dialect) {
  absl::StatusOr<std::string> serialized = machine_.Take(commit, dialect);
  if (!serialized.ok()) {
    return WithFault(Fault::kMachine, base::Annotate(serialized.status(), NameOf(current_)));
  }
  if (commit.machine_digest() != codec::HashBytes(*serialized)) {
    return FaultStatus(Fault::kDigest, absl::StrCat(NameOf(current_),
                                                    ": machine state does not have "
                                                    "the announced digest"));
  }
  absl::StatusOr<state::MachineState> machine = state::MachineState::Parse(*serialized);
  if (!machine.ok()) {
    return WithFault(Fault::kMachine, base::Annotate(machine.status(), NameOf(current_)));
  }
  machine_.Keep(*std::move(serialized));
  return machine;
}

absl::StatusOr<AssembledEpoch> Assembler::Complete(const codec::Frame& frame) {
  v1::EpochCommit commit;
  if (absl::Status status = codec::ParseBody(frame, &commit); !status.ok()) {
    return WithFault(Fault::kBody, status);
  }
  ROMULUS_RETURN_IF_ERROR(CheckDigests(commit));
  ROMULUS_ASSIGN_OR_RETURN(state::MachineState machine, TakeMachine(commit, frame.dialect));
  AssembledEpoch epoch;
  epoch.key = current_;
  epoch.page_count = page_count_;
  epoch.pages = std::move(staged_);
  staged_ = StagedPages();
  epoch.disk_writes = std::exchange(disk_writes_, {});
  epoch.disk_bytes = disk_bytes_;
  if (audit_.has_value()) epoch.audit = *std::exchange(audit_, std::nullopt);
  epoch.machine = std::move(machine);
  epoch.console_offset = commit.console_offset();
  epoch.console_bytes = std::move(*commit.mutable_console_bytes());
  epoch.console_released = commit.console_released();
  epoch.sent_monotonic_ns = commit.sent_monotonic_ns();
  return epoch;
}

absl::Status Assembler::Abort(const codec::Frame& frame) {
  absl::Status status = Enter(frame);
  if (!status.ok()) {
    Stop();
    return status;
  }
  newest_ = current_;
  CloseEpoch();
  return absl::OkStatus();
}

}  // namespace romulus::replica
