// Writes seed inputs: codec_fuzz_seeds <fuzzer> <folder>. What the real encoder makes of a small
// model.
#include <cstdio>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "codec/audit_records.h"
#include "codec/machine_delta.h"
#include "codec/page_encoding.h"
#include "fuzz/replica_script.h"
#include "unit/replica_rig.h"

namespace romulus::replica {
namespace {

void Write(const std::string& folder, const std::string& name, const std::string& content) {
  std::ofstream(folder + "/seed_" + name, std::ios::binary) << content;
}

// Messages as a script. Headers are taken apart by hand: a piece of a stream starts at any sequence
// number, which a reader would refuse.
std::string Script(const Messages& messages, bool pack = false) {
  std::string script;
  for (const std::string& message : messages) {
    absl::string_view rest = message;
    while (rest.size() >= codec::kFrameHeaderBytes) {
      codec::Frame frame;
      uint32_t body_bytes;
      uint64_t term, epoch;
      std::memcpy(&frame.kind, rest.data() + 6, 1);
      std::memcpy(&term, rest.data() + 8, 8);
      std::memcpy(&epoch, rest.data() + 16, 8);
      std::memcpy(&body_bytes, rest.data() + 32, 4);
      frame.term = Term(term);
      frame.epoch = EpochId(epoch);
      frame.body = rest.substr(codec::kFrameHeaderBytes, body_bytes);
      if (pack && codec::MayBeCompressed(frame.kind)) {
        frame.kind = static_cast<codec::FrameKind>(static_cast<uint8_t>(frame.kind) | kScriptPack);
      }
      AppendScriptFrame(frame, &script);
      rest.remove_prefix(codec::kFrameHeaderBytes + body_bytes);
    }
  }
  return script;
}

int Main(const std::string& fuzzer, const std::string& folder) {
  constexpr Term kTerm(1);
  const codec::Dialect newest(codec::kNewestProtocol);
  codec::EncoderOptions options;
  options.page_body_bytes = 4096;
  ModelPrimary primary(4, options);
  primary.AddDisks({32 << 10});  // a block is a frame of a script
  std::memset(primary.page(Gfn(0)), 0, primary.layout().size_bytes());
  Messages stream = primary.StartStream(kTerm);
  const Messages sync = primary.FullSync(kTerm);
  stream.insert(stream.end(), sync.begin(), sync.end());
  for (uint64_t epoch = 1; epoch < 6; ++epoch) {
    Messages messages;
    if (epoch == 3) {
      messages = primary.AbortedEpoch(kTerm, EpochId(epoch), primary.MutateSome(2));
    } else {
      primary.MutateDisks(epoch);
      primary.audit = {primary.Run(Gfn(epoch), 3), primary.Run(Gfn(100), 130)};
      primary.audit[1].hashes[epoch].low ^= 1;  // differs
      messages = primary.Epoch(kTerm, EpochId(epoch), primary.MutateSome(3), "console", 0);
    }
    stream.insert(stream.end(), messages.begin(), messages.end());
    if (fuzzer == "replica_session_fuzzer") {
      Write(folder, "epoch" + std::to_string(epoch), "\x01" + Script(messages));
      Write(folder, "packed" + std::to_string(epoch), "\x01" + Script(messages, /*pack=*/true));
    }
  }
  if (fuzzer == "codec_frame_fuzzer") {
    Write(folder, "stream", Join(stream));
    for (const codec::CompressionPolicy policy :
         {codec::CompressionPolicy::kLz4, codec::CompressionPolicy::kZstd}) {
      options.compression = policy;
      ModelPrimary compressing(4, options);
      Messages compressed = compressing.StartStream(kTerm);
      compressing.writer().SetDialect(codec::Dialect(codec::kNewestProtocol));
      for (const std::string& message : compressing.FullSync(kTerm)) compressed.push_back(message);
      Write(folder, "compressed" + std::to_string(static_cast<int>(policy)), Join(compressed));
    }
  }
  if (fuzzer == "replica_session_fuzzer") {
    Write(folder, "stream", std::string(1, '\0') + Script(stream));
    Write(folder, "raw", "\x02" + Join(stream));
  }
  if (fuzzer == "codec_machine_state_fuzzer") {
    Write(folder, "machine", primary.Machine(EpochId(1)).Serialize());
  }
  if (fuzzer == "codec_machine_delta_fuzzer") {
    std::string before = primary.Machine(EpochId(1)).Serialize();
    std::string now = before;
    now[100] ^= 1;
    codec::MachineDeltaWriter writer;
    v1::EpochCommit commit;
    writer.Put(before, newest, &commit);
    writer.Put(now, newest, &commit);
    const std::string& delta = commit.machine_delta();
    Write(folder, "delta", std::string("\0\1\0\0", 4) + delta + std::string(delta.size(), 'x'));
    Write(folder, "round_trip", "\x01\x01" + before + now);
  }
  if (fuzzer == "codec_audit_fuzzer") {
    std::string body;
    const epoch::AuditRun runs[] = {primary.Run(Gfn(0), 3), primary.Run(Gfn(1000), 24),
                                    primary.Run(Gfn(1100), 130)};
    for (const uint32_t version : {codec::kOldestProtocol, codec::kNewestProtocol}) {
      body = std::string(1, static_cast<char>(version));
      std::vector<codec::AuditedPages> pages;
      for (const epoch::AuditRun& run : runs) {
        pages.push_back(codec::ToAuditedPages(run, EpochId(3), codec::Dialect(version)));
      }
      codec::AppendAuditRuns(pages, &body);
      Write(folder, absl::StrCat("audit_", version), body);
    }
    const std::vector<epoch::DiskAuditRun> blocks = {{0, 1, {{1, 2}, {3, 4}}}, {2, 7, {{5, 6}}}};
    codec::AppendAuditRuns(blocks, &body);
    Write(folder, "audit_disks", body);
  }
  if (fuzzer == "codec_page_fuzzer") {
    std::string body(1, '\0');
    codec::AppendZeroRun(Gfn(1), 5, &body);
    for (uint64_t gfn = 0; gfn < 20; ++gfn) {
      const std::vector<std::byte> before(primary.page(Gfn(gfn)),
                                          primary.page(Gfn(gfn)) + kPageSize);
      primary.Mutate(Gfn(gfn));
      codec::AppendPage(newest, Gfn(gfn), codec::PageBytes(primary.page(Gfn(gfn)), kPageSize),
                        before.data(), &body);
    }
    Write(folder, "records", body);
    Write(folder, "pages", "\x01" + body);
  }
  if (fuzzer == "codec_disk_fuzzer") {
    using codec::DiskRecordKind;
    const std::vector<std::byte> data(1024, std::byte{'d'});
    std::string body(1, '\0');
    codec::AppendDiskRecord(DiskRecordKind::kWrite, 0, 512, data.size(), data, &body);
    codec::AppendDiskRecord(DiskRecordKind::kZeros, 3, 0, 4096, {}, &body);
    codec::AppendDiskRecord(DiskRecordKind::kDiscard, 3, 4096, 512, {}, &body);
    codec::AppendDiskRecord(DiskRecordKind::kFlush, 0, 0, 0, {}, &body);
    Write(folder, "records", body);
    codec::DiskHashes hashes{3, 7, {{1, 2}, {3, 4}}};
    body.assign(1, '\x01');
    codec::AppendDiskHashes(hashes, &body);
    Write(folder, "hashes", body);
  }
  return 0;
}

}  // namespace
}  // namespace romulus::replica

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: codec_fuzz_seeds <fuzzer> <folder>\n");
    return 2;
  }
  return romulus::replica::Main(argv[1], argv[2]);
}
