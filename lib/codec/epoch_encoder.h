// Turns staged epochs and full-sync pages into messages of frames for the link. Knows no transport:
// finished messages go to a function that the caller gives. Order of calls on one stream:
//
//   StartStream          (Hello etc. are written by the caller with the same FrameWriter)
//   BeginSync  (BeginSyncRound | AddSyncPage | AddSyncZeroRun | AddSyncFrame)*  EndSync
//   { AddPages*  (Finish | Abort) }*
//
// When a call fails, or the link is lost, or the peer refused a frame, the stream is over: what the
// secondary holds is unknown, so nothing but StartStream is allowed (P5). An epoch aborted after
// pages of it were sent makes the encoder forget those pages' previous versions, because the
// secondary never applies them.
//
// One thread at a time (the encode/send thread). Borrows the FrameWriter, which whoever sends owns;
// when a call returns, every frame that got a sequence number has been given to `send`, so the
// caller may write others (heartbeats) between calls.
#ifndef ROMULUS_CODEC_EPOCH_ENCODER_H_
#define ROMULUS_CODEC_EPOCH_ENCODER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/types.h"
#include "codec/body_compressor.h"
#include "codec/disk_records.h"
#include "codec/frame.h"
#include "codec/machine_delta.h"
#include "codec/page_digest.h"
#include "codec/page_encoding.h"
#include "codec/previous_cache.h"
#include "epoch/staged_epoch.h"
#include "memory/page_copy.h"

namespace romulus::codec {

struct EncoderOptions {
  uint64_t previous_cache_bytes = 64ull << 20;
  size_t page_body_bytes = kPageBodyBytes;       // a page frame is closed at this size
  size_t message_bytes = 2 * kPageBodyBytes;     // a message is sent at this size
  size_t sync_body_bytes = 4 * kPageBodyBytes;   // likewise, of a full sync's large frames
  size_t max_body_bytes = kDefaultMaxBodyBytes;  // what the peer accepts (HelloReply)
  // Of page and disk frames, where the stream's dialect has it.
  CompressionPolicy compression = CompressionPolicy::kOff;
  const base::Clock* clock = nullptr;  // outlives the encoder; kAuto measures by it
};

// By PageEncoding; bytes are those of the records. zero_run counts each page of the run.
struct EncodeStats {
  std::array<uint64_t, kPageEncodingEnd> pages{};
  std::array<uint64_t, kPageEncodingEnd> bytes{};
  uint64_t frames = 0;
  uint64_t message_bytes = 0;
  uint64_t disk_records = 0;  // of epochs
  uint64_t disk_bytes = 0;    // written by them
  CompressionStats compression;
};

class EpochEncoder {
 public:
  // Takes over one message; its error ends the stream.
  using Send = absl::FunctionRef<absl::Status(std::string message)>;

  // `frames` must outlive the encoder. Errors: errno of mmap (the cache).
  static absl::StatusOr<std::unique_ptr<EpochEncoder>> Create(Gfn gfn_end, FrameWriter* frames,
                                                              const EncoderOptions& options);

  // A new stream begins: the previous versions are forgotten. `max_body_bytes`: the peer's limit.
  // Does not touch the FrameWriter.
  void StartStream(size_t max_body_bytes);

  // Full sync. Pages may come again in later rounds, and in any order; consecutive zero pages are
  // gathered into one record. `page` may be live guest memory: it is copied before it is looked at,
  // so what the cache holds is what was sent, torn or not.
  absl::Status BeginSync(Term term, uint64_t total_pages, Send send);
  // All pages were named; those from here on changed since, and are likely to change again: they
  // are remembered in the place of others. The first pass fills the cache, and evicts nothing.
  void BeginSyncRound() { sync_evicts_ = true; }
  // Each page frame of a full sync is a message, and the peer hears nothing until it has all of it:
  // large ones (fewer wake-ups a page) are for links that take one in no time. A sync begins with
  // small ones.
  void UseLargeSyncFrames(bool large) { large_sync_frames_ = large; }
  absl::Status AddSyncPage(Gfn gfn, PageBytes page, Send send);
  // Pages known to be zero without having been read, count >= 1.
  absl::Status AddSyncZeroRun(Gfn first, uint64_t count, Send send);
  // A frame of the disks' part of the full sync, as it is. Errors: ResourceExhausted if the body is
  // larger than the peer accepts.
  absl::Status AddSyncFrame(FrameKind kind, absl::string_view body, Send send);
  absl::Status EndSync(uint64_t rounds, Send send);

  // Pages of an epoch that is not complete yet (EpochSink::StagePages).
  absl::Status AddPages(Term term, EpochId epoch, const epoch::PageBatch& batch, Send send);
  // The rest of the epoch, its disk writes, its audit and its EpochCommit; a small epoch is one
  // message.
  // `console_released`: as of now, at least the epoch's own. Errors: ResourceExhausted if the
  // commit is larger than the peer accepts; whatever `send` returned.
  absl::Status Finish(const epoch::StagedEpoch& epoch, uint64_t sent_monotonic_ns,
                      uint64_t console_released, Send send);
  // Gives the epoch up, whether or not pages of it were added.
  absl::Status Abort(Term term, EpochId epoch, absl::string_view reason, Send send);

  // The secondary's copies of these pages are not what the cache says: they travel whole the next
  // time.
  void ForgetPrevious(const std::vector<Gfn>& gfns);

  // Of the link, 0: not known; what CompressionPolicy::kAuto goes by.
  void SetLinkRate(uint64_t bytes_per_second) { compressor_.SetLinkRate(bytes_per_second); }
  // In use on this stream.
  Compression compression() const;

  // What was encoded since the last call.
  EncodeStats TakeStats();
  const PreviousCache& cache() const { return cache_; }

 private:
  EpochEncoder(PreviousCache cache, FrameWriter* frames, const EncoderOptions& options);

  absl::Status CheckEpoch(Term term, EpochId epoch);
  absl::Status AppendBatch(const epoch::PageBatch& batch, Send send);
  absl::Status AppendDiskWrites(const std::vector<epoch::DiskWrite>& writes, Send send);
  absl::Status AppendAudit(const epoch::StagedEpoch& epoch);
  absl::Status AppendDiskPiece(const epoch::DiskWrite& write, uint64_t at, uint64_t size,
                               Send send);
  // Opens a page (or disk) frame if none is open.
  void OpenPageFrame(FrameKind kind);
  // Closes the page frame if one is open, and sends the message if it is large enough.
  absl::Status ClosePageFrame(Send send);
  absl::Status RoomForRecord(FrameKind kind, Send send);
  // Ends the frame at `begin`, of a kind that may be compressed.
  void EndBulkFrame(size_t begin);
  void FlushZeroRun();
  absl::Status CheckBody(FrameKind kind, size_t bytes);
  absl::Status AppendControl(FrameKind kind, const google::protobuf::MessageLite& body);
  absl::Status Flush(Send send);
  // The stream is over.
  absl::Status Broken(absl::Status why);
  void Count(PageEncoding encoding, uint64_t pages, size_t bytes);

  enum class Mode { kOver, kIdle, kSyncing, kEpochOpen };

  PreviousCache cache_;
  memory::PastCaches many_;  // into the cache, read by whoever has the encoder's turn (a lock)
  MachineDeltaWriter machine_;
  BodyCompressor compressor_;
  FrameWriter* frames_;
  EncoderOptions options_;
  EncodeStats stats_;
  size_t raw_message_bytes_ = 0;  // of its bulk frames, before they were compressed
  std::string message_;
  bool frame_open_ = false;
  size_t frame_begin_ = 0;      // of the open page frame, in message_
  size_t page_body_bytes_ = 0;  // of what the peer accepts
  size_t sync_body_bytes_ = 0;
  Mode mode_ = Mode::kOver;
  Term term_;
  EpochId epoch_;

  // kEpochOpen.
  PagesDigest digest_;
  DiskDigest disk_digest_;
  uint64_t disk_records_ = 0;
  uint64_t disk_bytes_ = 0;
  std::vector<Gfn> epoch_gfns_;  // whose cached version is void if the epoch is aborted

  // kSyncing.
  uint64_t sync_pages_ = 0;
  bool sync_evicts_ = false;  // what is sent takes the cached place of others
  bool large_sync_frames_ = false;
  Gfn zero_run_first_;
  uint32_t zero_run_count_ = 0;  // gathered, not yet written
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_EPOCH_ENCODER_H_
