// The bytes of every frame kind and of a machine state, as they were when they were fixed: two
// builds of one protocol version must understand each other, and nothing else says so.
//
// One file per frame in tests/unit/golden, as hexadecimal text: the frames of a small stream, in
// both directions. What this build writes must be these bytes, and a replica that reads them must
// hold the memory and the machine that they describe.
//
// A difference means that the format has changed: then kFrameVersion (codec/frame.h) or
// kNewestProtocol (codec/dialect.h) rises, and `golden_test --write_golden` writes the files
// anew. It refuses to change a file while both versions are what the file says; a new file it
// writes at any time.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "codec/audit_records.h"
#include "codec/disk_records.h"
#include "codec/frame.h"
#include "codec/page_digest.h"
#include "codec/page_encoding.h"
#include "memory/page_hash.h"
#include "romulus/v1/replication.pb.h"
#include "state/machine_state.h"
#include "unit/replica_session_rig.h"
#include "wire/handshake.h"

namespace romulus::codec {
namespace {

constexpr Term kTerm(0x1122334455667788);
constexpr Dialect kNewest(kNewestProtocol);
constexpr uint64_t kMemoryPages = 1024;  // 4 MiB

struct Golden {
  std::string name;  // of the file
  std::string bytes;
};

constexpr uint64_t kDiskBytes = 3 * kDiskBlockBytes + 512;

// What the stream makes of the replica's memory, and of its disk.
class Model {
 public:
  Model() : disk(kDiskBytes), memory_(kMemoryPages * kPageSize) {}
  std::byte* page(uint64_t gfn) { return memory_.data() + gfn * kPageSize; }
  PageBytes bytes(uint64_t gfn) { return PageBytes(page(gfn), kPageSize); }
  const std::vector<std::byte>& memory() const { return memory_; }
  std::vector<std::byte> disk;

 private:
  std::vector<std::byte> memory_;
};

state::MachineState Machine() {
  state::MachineState machine;
  machine.Put("vcpu.regs", 0, 1, std::string("\x00\x01\xfe\xff", 4));
  machine.Put("vcpu.regs", 7, 0x01020304, "seven");
  machine.Put("device.none", 0, 2, "");
  return machine;
}

v1::DiskCopy Disk(v1::DiskCopyRole role) {
  v1::DiskCopy disk;
  disk.set_disk(2);
  disk.set_name("root");
  disk.set_size_bytes(kDiskBytes);
  disk.set_role(role);
  disk.set_term(13);
  disk.set_epoch(99);
  disk.set_all_zero(true);
  disk.set_covers_term(12);
  return disk;
}

v1::Hello Hello() {
  v1::Hello hello;
  hello.set_protocol_version(kOldestProtocol);
  hello.set_newest_protocol_version(kNewestProtocol);
  hello.set_vm_name("model");
  hello.set_vm_uuid("6b2f0a4e-6f1d-4f8e-9a53-0c8d8b1f7a10");
  hello.set_node_name("alpha");
  hello.set_term(kTerm.value());
  hello.set_vcpu_count(2);
  v1::MemoryRegion& region = *hello.add_memory();
  region.set_gpa(0);
  region.set_size_bytes(kMemoryPages * kPageSize);
  v1::CpuidLeaf& leaf = *hello.add_cpuid();
  leaf.set_function(0x80000001);
  leaf.set_index(1);
  leaf.set_flags(2);
  leaf.set_eax(3);
  leaf.set_ebx(4);
  leaf.set_ecx(5);
  leaf.set_edx(6);
  hello.set_tsc_khz(2596084);
  hello.add_required_capabilities("xsave2:4096");
  hello.set_build("golden");
  hello.set_machine_digest(0x0123456789abcdef);
  hello.set_max_frame_bytes(4u << 20);
  hello.set_current_term(16);
  hello.mutable_lineage()->set_promoted_term(15);
  hello.mutable_lineage()->set_covers_term(14);
  hello.mutable_lineage()->set_shared_term(13);
  hello.add_devices("disk root");
  *hello.add_disks() = Disk(v1::DISK_COPY_ROLE_PRIMARY);
  hello.set_overwrite_disks(true);
  return hello;
}

// Every record of a full sync: raw, zero, zero_run.
std::string SyncBody(Model* model) {
  for (size_t i = 0; i < kPageSize; ++i)
    model->page(0)[i] = static_cast<std::byte>(i * 7 + i / 256);
  std::memset(model->page(2), 'x', 100);
  std::string body;
  AppendPage(kNewest, Gfn(0), model->bytes(0), nullptr, &body);
  AppendPage(kNewest, Gfn(1), model->bytes(1), nullptr, &body);
  AppendPage(kNewest, Gfn(2), model->bytes(2), nullptr, &body);
  AppendZeroRun(Gfn(3), kMemoryPages - 3, &body);
  return body;
}

// Every record of an epoch that refers to an earlier version, and zero. `digest`: of its pages.
std::string EpochBody(Model* model, PagesDigest* digest) {
  std::string body;
  const auto change = [&](uint64_t gfn, auto how) {
    const std::vector<std::byte> before(model->page(gfn), model->page(gfn) + kPageSize);
    how(model->page(gfn));
    AppendPage(kNewest, Gfn(gfn), model->bytes(gfn), before.data(), &body);
    digest->Add(Gfn(gfn), PageHash(model->bytes(gfn)));
  };
  change(0, [](std::byte* page) {
    std::memcpy(page, "changed!", 8);                // one word of line 0
    std::memcpy(page + 64 * 63, "12345678abc", 11);  // two of line 63
  });
  change(1, [](std::byte*) {});  // same
  change(3, [](std::byte* page) {
    for (int i = 0; i < 64; ++i) page[128 + i] = static_cast<std::byte>(i + 1);  // all of line 2
  });
  change(2, [](std::byte* page) { std::memset(page, 0, kPageSize); });  // zero
  return body;
}

void Do(DiskRecordKind kind, uint64_t at, uint64_t size, absl::string_view bytes,
        std::vector<std::byte>* disk, std::string* body) {
  AppendDiskRecord(kind, 2, at, size, base::AsBytes(bytes), body);
  if (kind == DiskRecordKind::kFlush) return;
  std::memset(disk->data() + at, 0, size);
  std::memcpy(disk->data() + at, bytes.data(), bytes.size());
}

// Both records of a full sync.
std::string DiskSyncBody(std::vector<std::byte>* disk) {
  std::string body;
  Do(DiskRecordKind::kWrite, kDiskBytes - 512, 512, std::string(512, 's'), disk, &body);
  Do(DiskRecordKind::kZeros, kDiskBlockBytes, kDiskBlockBytes, "", disk, &body);
  return body;
}

// Every record of an epoch.
std::string DiskEpochBody(std::vector<std::byte>* disk) {
  std::string body;
  Do(DiskRecordKind::kWrite, 512, 1024, std::string(1024, 'e'), disk, &body);
  Do(DiskRecordKind::kZeros, 1024, 512, "", disk, &body);
  Do(DiskRecordKind::kDiscard, kDiskBytes - 512, 512, "", disk, &body);
  Do(DiskRecordKind::kFlush, 0, 0, "", disk, &body);
  return body;
}

// The stream of a primary and what its secondary answers, frame by frame.
std::vector<Golden> ThisBuild(Model* model) {
  std::vector<Golden> golden;
  FrameWriter down, up;
  const auto add = [&golden](FrameWriter* writer, FrameKind kind, EpochId epoch, const auto& body) {
    std::string frame;
    writer->Append(kind, kTerm, epoch, body, &frame);
    golden.push_back({absl::StrCat("frame_", FrameKindName(kind)), frame});
  };
  add(&down, FrameKind::kHello, EpochId(), Hello());
  v1::HelloReply reply;
  reply.set_protocol_version(kNewestProtocol);
  reply.set_oldest_protocol_version(kOldestProtocol);
  reply.set_newest_protocol_version(kNewestProtocol);
  reply.set_node_name("beta");
  reply.set_accepted(true);
  reply.set_reason(v1::REFUSAL_REASON_DEVICES);
  reply.set_detail("every field has a value");
  reply.set_term(17);
  reply.set_build("golden");
  reply.set_max_frame_bytes(4u << 20);
  *reply.add_disks() = Disk(v1::DISK_COPY_ROLE_SYNCING);
  reply.set_holds(v1::HOLDS_REPLICA);
  reply.set_instance(0x0123456789abcdef);
  reply.mutable_lineage()->set_promoted_term(12);
  reply.mutable_lineage()->set_covers_term(11);
  reply.mutable_lineage()->set_shared_term(10);
  add(&up, FrameKind::kHelloReply, EpochId(), reply);
  v1::Heartbeat heartbeat;
  heartbeat.set_sequence(1);
  heartbeat.set_sent_monotonic_ns(1'000'000'007);
  heartbeat.set_echo_monotonic_ns(999'999'999);
  heartbeat.set_console_released(0);
  add(&down, FrameKind::kHeartbeat, EpochId(), heartbeat);
  v1::SyncBegin begin;
  begin.set_total_pages(kMemoryPages);
  add(&down, FrameKind::kSyncBegin, EpochId(), begin);
  add(&down, FrameKind::kSyncPages, EpochId(), absl::string_view(SyncBody(model)));
  v1::DiskSyncBegin disks;
  disks.set_disk_count(1);
  add(&down, FrameKind::kDiskSyncBegin, EpochId(), disks);
  v1::DiskHashRequest request;
  request.set_disk(2);
  request.set_first_block(1);
  request.set_count(3);
  add(&down, FrameKind::kDiskHashRequest, EpochId(), request);
  DiskHashes hashes;
  hashes.disk = 2;
  hashes.first_block = 1;
  hashes.hashes = {ZeroDiskBlockHash(kDiskBlockBytes), ZeroDiskBlockHash(kDiskBlockBytes),
                   ZeroDiskBlockHash(512)};
  std::string hashes_body;
  AppendDiskHashes(hashes, &hashes_body);
  add(&up, FrameKind::kDiskHashes, EpochId(), absl::string_view(hashes_body));
  add(&down, FrameKind::kDiskBlocks, EpochId(), absl::string_view(DiskSyncBody(&model->disk)));
  v1::DiskSyncEnd disks_end;
  disks_end.set_bytes_sent(512);
  disks_end.set_bytes_equal(kDiskBlockBytes);
  add(&down, FrameKind::kDiskSyncEnd, EpochId(), disks_end);
  v1::SyncEnd end;
  end.set_pages_sent(kMemoryPages);
  end.set_rounds(1);
  add(&down, FrameKind::kSyncEnd, EpochId(), end);
  PagesDigest digest;
  add(&down, FrameKind::kEpochPages, EpochId(1), absl::string_view(EpochBody(model, &digest)));
  const std::string disk_body = DiskEpochBody(&model->disk);
  add(&down, FrameKind::kEpochDisks, EpochId(1), absl::string_view(disk_body));
  epoch::AuditRun run{Gfn(0), {memory::HashPage128(model->bytes(0))}};
  std::string audit_body;
  epoch::AuditRun other{Gfn(5), {}};  // of more than one group
  while (other.hashes.size() < kAuditGroupPages + 3) {
    other.hashes.push_back(memory::HashPage128(model->bytes(other.hashes.size() % 11)));
  }
  AppendAuditRuns(
      {ToAuditedPages(run, EpochId(1), kNewest), ToAuditedPages(other, EpochId(1), kNewest)},
      &audit_body);
  const DiskHash first = HashDiskBlock(std::span(model->disk).first(kDiskBlockBytes));
  AppendAuditRuns({epoch::DiskAuditRun{2, 0, {first}}}, &audit_body);
  add(&down, FrameKind::kEpochAudit, EpochId(1), absl::string_view(audit_body));
  DiskDigest disk_digest;
  const DiskLayout layout = {{2, kDiskBytes}};
  DiskRecordReader records(disk_body, layout);
  while (!records.done()) disk_digest.Add(records.Next()->raw);
  v1::EpochCommit commit;
  commit.set_disk_record_count(4);
  commit.set_disk_bytes(2048);
  commit.set_disk_digest(disk_digest.value());
  commit.set_page_count(4);
  commit.set_pages_digest(digest.value());
  commit.set_machine(Machine().Serialize());
  commit.set_machine_digest(HashBytes(commit.machine()));
  commit.set_console_offset(1000);
  commit.set_console_bytes("hello, world\n");
  commit.set_console_released(1007);
  commit.set_sent_monotonic_ns(1'000'000'123);
  add(&down, FrameKind::kEpochCommit, EpochId(1), commit);
  v1::Ack ack;
  ack.set_echo_monotonic_ns(1'000'000'123);
  ack.set_staged_bytes(12345);
  ack.set_audited_pages(3000);
  ack.set_mismatched_pages(2);
  ack.add_mismatches()->set_gfn(5);
  ack.mutable_mismatches(0)->set_epoch(1);
  ack.set_audited_blocks(70);
  ack.set_mismatched_blocks(1);
  ack.add_disk_mismatches()->set_disk(2);
  ack.mutable_disk_mismatches(0)->set_block(1);
  ack.mutable_disk_mismatches(0)->set_epoch(1);
  add(&up, FrameKind::kAck, EpochId(1), ack);
  v1::EpochAbort abort;
  abort.set_reason("checkpoint failed");
  add(&down, FrameKind::kEpochAbort, EpochId(2), abort);
  v1::HandOver hand_over;
  hand_over.set_console_released(1010);
  hand_over.set_stood_still_ns(1'500'000);
  add(&down, FrameKind::kHandOver, EpochId(1), hand_over);
  v1::HandOverRefusal refusal;
  refusal.set_detail("not now");
  add(&up, FrameKind::kHandOverRefusal, EpochId(), refusal);
  v1::Goodbye goodbye;
  goodbye.set_reason(v1::Goodbye::REASON_SHUTDOWN);
  goodbye.set_detail("enough");
  goodbye.set_term(kTerm.value());
  add(&down, FrameKind::kGoodbye, EpochId(), goodbye);
  golden.push_back({"machine_state", Machine().Serialize()});
  return golden;
}

std::string Path(const std::string& name) {
  return absl::StrCat(ROMULUS_GOLDEN_FOLDER, "/", name, ".hex");
}

std::string Versions() {
  return absl::StrCat("# frame version ", kFrameVersion, ", protocol version ", kNewestProtocol);
}

std::string AsText(const Golden& golden) {
  std::string text = absl::StrCat(
      "# ", golden.name, ": bytes that both ends of a replication stream agree on.\n", Versions(),
      "\n# Changed only together with one of these: see tests/unit/golden_test.cc.\n");
  for (size_t at = 0; at < golden.bytes.size(); at += 32) {
    absl::StrAppend(&text, absl::BytesToHexString(golden.bytes.substr(at, 32)), "\n");
  }
  return text;
}

// Of the file: lines that are comments, and the bytes. No bytes if there is no file.
struct Stored {
  std::string comments;
  std::string bytes;
};
Stored ReadStored(const std::string& name) {
  Stored stored;
  std::ifstream file(Path(name));
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("#")) {
      absl::StrAppend(&stored.comments, line, "\n");
    } else {
      stored.bytes += absl::HexStringToBytes(line);
    }
  }
  return stored;
}

int WriteGolden() {
  Model model;
  int refused = 0;
  for (const Golden& golden : ThisBuild(&model)) {
    const Stored stored = ReadStored(golden.name);
    if (stored.bytes == golden.bytes) continue;
    if (stored.comments.find(Versions()) != std::string::npos) {
      std::fprintf(stderr, "%s: other bytes, but the versions are the same: raise one of them\n",
                   golden.name.c_str());
      ++refused;
      continue;
    }
    std::ofstream(Path(golden.name)) << AsText(golden);
    std::printf("%s written\n", Path(golden.name).c_str());
  }
  return refused == 0 ? 0 : 1;
}

TEST(GoldenTest, ThisBuildWritesTheseBytes) {
  Model model;
  for (const Golden& golden : ThisBuild(&model)) {
    const Stored stored = ReadStored(golden.name);
    ASSERT_FALSE(stored.bytes.empty()) << Path(golden.name);
    EXPECT_EQ(absl::BytesToHexString(golden.bytes), absl::BytesToHexString(stored.bytes))
        << golden.name << ": the format has changed";
  }
}

TEST(GoldenTest, EveryFrameKindHasAFileAndEveryFileAKind) {
  std::map<std::string, int> seen;
  for (size_t kind = 1; kind < kFrameKindEnd; ++kind) {
    const std::string name = absl::StrCat("frame_", FrameKindName(static_cast<FrameKind>(kind)));
    EXPECT_TRUE(std::filesystem::exists(Path(name))) << name;
    ++seen[name];
  }
  for (const auto& entry : std::filesystem::directory_iterator(ROMULUS_GOLDEN_FOLDER)) {
    const std::string name = entry.path().stem().string();
    if (name == "disk_journal") continue;  // a file's format: disk_journal_test
    EXPECT_TRUE(name == "machine_state" || seen.contains(name)) << name;
  }
}

TEST(GoldenTest, AReplicaUnderstandsTheStoredStream) {
  Model model;
  const std::vector<Golden> wanted = ThisBuild(&model);
  replica::FakeDiskReplica disks;
  disks.Add(2, "root", kDiskBytes);
  replica::StoreOptions options;
  options.disks = &disks;
  replica::SessionRig rig(4, options);
  for (const Golden& golden : wanted) {
    const bool from_secondary = golden.name == "frame_hello_reply" || golden.name == "frame_ack" ||
                                golden.name == "frame_disk_hashes" ||
                                golden.name == "frame_hand_over_refusal";
    if (from_secondary || golden.name == "machine_state") continue;
    rig.Feed({ReadStored(golden.name).bytes});
    // The goodbye closes the stream, nothing else does.
    ASSERT_EQ(rig.listener.closed, golden.name == "frame_goodbye" ? 1 : 0)
        << golden.name << ": " << rig.listener.why;
  }
  EXPECT_EQ(rig.listener.goodbye.detail(), "enough");
  EXPECT_EQ(rig.counters.epochs_aborted, 1u);
  EXPECT_TRUE(rig.listener.mismatches.empty());
  EXPECT_EQ(rig.LastAck(), EpochId(1));
  EXPECT_EQ(disks.disks[0].bytes, model.disk);
  EXPECT_EQ(disks.hashed_blocks, 3u);
  EXPECT_EQ(replica::ModelPrimary::DifferenceFrom(model.memory(), *rig.memory), "");
  absl::StatusOr<replica::PromotableEpoch> taken = rig.store.TakeForPromotion(kTerm.Next());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->machine, Machine());
  EXPECT_EQ(taken->console_offset, 1010u);
  EXPECT_EQ(taken->console_tail, "ld\n");
}

TEST(GoldenTest, APrimaryUnderstandsTheStoredAnswers) {
  FrameReader reader;
  const std::string bytes = ReadStored("frame_hello_reply").bytes +
                            ReadStored("frame_disk_hashes").bytes + ReadStored("frame_ack").bytes;
  absl::string_view rest = bytes;
  absl::StatusOr<Frame> frame = reader.Next(&rest);
  ASSERT_TRUE(frame.ok()) << frame.status();
  v1::HelloReply reply;
  ASSERT_TRUE(ParseBody(*frame, &reply).ok());
  EXPECT_EQ(reply.protocol_version(), kNewestProtocol);
  EXPECT_TRUE(reply.accepted());
  EXPECT_EQ(reply.detail(), "every field has a value");
  EXPECT_EQ(reply.term(), 17u);
  EXPECT_EQ(reply.max_frame_bytes(), 4u << 20);
  EXPECT_EQ(reply.holds(), v1::HOLDS_REPLICA);
  EXPECT_EQ(wire::LineageFrom(reply.lineage()), (Lineage{Term(12), Term(11), Term(10)}));
  ASSERT_EQ(reply.disks_size(), 1);
  EXPECT_EQ(reply.disks(0).role(), v1::DISK_COPY_ROLE_SYNCING);
  EXPECT_EQ(reply.disks(0).term(), 13u);
  frame = reader.Next(&rest);
  ASSERT_TRUE(frame.ok()) << frame.status();
  const absl::StatusOr<DiskHashes> hashes = ParseDiskHashes(frame->body);
  ASSERT_TRUE(hashes.ok()) << hashes.status();
  EXPECT_EQ(hashes->first_block, 1u);
  ASSERT_EQ(hashes->hashes.size(), 3u);
  EXPECT_EQ(hashes->hashes[2], ZeroDiskBlockHash(512));
  frame = reader.Next(&rest);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->term, kTerm);
  EXPECT_EQ(frame->epoch, EpochId(1));
  v1::Ack ack;
  ASSERT_TRUE(ParseBody(*frame, &ack).ok());
  EXPECT_EQ(ack.echo_monotonic_ns(), 1'000'000'123u);
  EXPECT_EQ(ack.staged_bytes(), 12345u);
  EXPECT_TRUE(rest.empty());
}

TEST(GoldenTest, TheStoredMachineStateParses) {
  const absl::StatusOr<state::MachineState> machine =
      state::MachineState::Parse(ReadStored("machine_state").bytes);
  ASSERT_TRUE(machine.ok()) << machine.status();
  EXPECT_EQ(*machine, Machine());
}

}  // namespace

int Main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--write_golden") == 0) return WriteGolden();
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace romulus::codec

int main(int argc, char** argv) { return romulus::codec::Main(argc, argv); }
