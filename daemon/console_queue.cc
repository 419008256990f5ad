#include "daemon/console_queue.h"

#include <algorithm>
#include <utility>

namespace romulus::daemon {
namespace {

// The guest says few bytes at a time; they are gathered up to this size.
constexpr size_t kPieceBytes = 64u << 10;

}  // namespace

void ConsoleQueue::Push(uint64_t offset, absl::string_view bytes) {
  if (bytes.empty()) return;
  absl::MutexLock lock(&mutex_);
  if (!start_offset_) start_offset_ = offset;
  const bool goes_on = !pieces_.empty() && end_offset_ == offset;
  if (goes_on && pieces_.back().bytes.size() + bytes.size() <= kPieceBytes) {
    pieces_.back().bytes.append(bytes.data(), bytes.size());
  } else {
    pieces_.push_back({end_, offset, std::string(bytes)});
  }
  end_ += bytes.size();
  end_offset_ = offset + bytes.size();
  queued_bytes_ = end_ - begin_;
  if (end_ - begin_ > cap_bytes_) over_cap_ = true;
}

ConsoleBytes ConsoleQueue::Read(uint64_t position, size_t max_bytes) const {
  absl::MutexLock lock(&mutex_);
  position = std::max(position, begin_);
  const auto piece =
      std::partition_point(pieces_.begin(), pieces_.end(),
                           [position](const Piece& one) { return one.end() <= position; });
  if (piece == pieces_.end()) return {};
  const uint64_t skip = position - piece->position;
  return {piece->offset + skip, piece->bytes.substr(skip, max_bytes)};
}

void ConsoleQueue::Written(uint64_t position) {
  bool room = false;
  {
    absl::MutexLock lock(&mutex_);
    begin_ = std::max(begin_, std::min(position, end_));
    while (!pieces_.empty() && pieces_.front().end() <= begin_) pieces_.pop_front();
    queued_bytes_ = end_ - begin_;
    room = over_cap_ && end_ - begin_ <= cap_bytes_ / 2;
    if (room) over_cap_ = false;
    if (begin_ == end_) all_written_.SignalAll();
  }
  if (room && on_room_) on_room_();
}

bool ConsoleQueue::AwaitWritten(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return all_written_.AwaitUntil(&mutex_, base::CondVar::After(timeout),
                                 [this]()
                                     ABSL_NO_THREAD_SAFETY_ANALYSIS { return begin_ == end_; });
}

uint64_t ConsoleQueue::begin() const {
  absl::MutexLock lock(&mutex_);
  return begin_;
}

uint64_t ConsoleQueue::end() const {
  absl::MutexLock lock(&mutex_);
  return end_;
}

std::optional<uint64_t> ConsoleQueue::start_offset() const {
  absl::MutexLock lock(&mutex_);
  return start_offset_;
}

std::optional<uint64_t> ConsoleQueue::written_offset() const {
  absl::MutexLock lock(&mutex_);
  if (pieces_.empty()) return end_offset_;
  const Piece& front = pieces_.front();
  return front.offset + (begin_ - front.position);
}

ConsoleBytes ConsoleQueue::Unwritten() const {
  absl::MutexLock lock(&mutex_);
  ConsoleBytes all{end_offset_.value_or(0), ""};
  for (const Piece& piece : pieces_) {
    const uint64_t skip = begin_ - std::min(begin_, piece.position);
    const uint64_t offset = piece.offset + skip;
    if (all.offset + all.bytes.size() != offset || all.bytes.empty()) all = {offset, ""};
    all.bytes.append(piece.bytes, skip);
  }
  return all;
}

}  // namespace romulus::daemon
