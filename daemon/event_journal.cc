#include "daemon/event_journal.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "daemon/clean_text.h"
#include "daemon/guest_disks.h"

namespace romulus::daemon {
namespace {

using google::protobuf::util::TimeUtil;
using romulus::v1::Event;

constexpr size_t kMaxTextBytes = 1024;
constexpr size_t kMaxValueBytes = 512;
constexpr size_t kMaxFields = 16;
// A line has all of these, and what JSON makes of them.
constexpr size_t kMaxLineBytes = 64u << 10;
constexpr uint64_t kMaxUnwrittenBytes = 256u << 10;
// Beyond it a number is no journal's, and would leave none for what comes.
constexpr uint64_t kMaxNumber = uint64_t{1} << 53;
constexpr uint64_t kBurst = 60;
constexpr uint64_t kRefillNs = 30'000'000'000;

std::string LineOf(const Event& event) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string line;
  if (!google::protobuf::util::MessageToJsonString(event, &line, options).ok()) return "";
  return line + "\n";
}

}  // namespace

std::string EventFolder(const romulus::v1::Config& config, const std::string& state_directory) {
  if (config.events().has_folder()) return config.events().folder();
  // systemd.exec(5): several are separated by colons.
  if (!state_directory.empty()) return state_directory.substr(0, state_directory.find(':'));
  for (int i = 0; i < config.guest().disks_size(); ++i) {
    if (config.guest().disks(i).read_only()) continue;
    return std::filesystem::path(disk::StampPath(CopySpecOf(config, i))).parent_path().string();
  }
  return "";
}

EventJournal::EventJournal(Options options) : options_(std::move(options)) {
  if (options_.folder.empty()) return;
  const std::string path =
      absl::StrCat(options_.folder, "/", options_.vm, ".", options_.node, ".events.jsonl");
  std::vector<std::string> lines;
  absl::StatusOr<std::unique_ptr<EventFile>> file =
      EventFile::Open(path, options_.max_bytes, &lines);
  if (!file.ok()) {
    absl::MutexLock lock(&mutex_);
    file_status_ = file.status();
    return;
  }
  file_ = *std::move(file);
  Load(lines);
  writer_ = std::thread([this] { Write(); });
}

EventJournal::~EventJournal() {
  {
    absl::MutexLock lock(&mutex_);
    end_ = true;
    changed_.SignalAll();
  }
  if (writer_.joinable()) writer_.join();
}

// Whoever could write to the file could write anything.
void EventJournal::Load(const std::vector<std::string>& lines) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // of a later version
  absl::MutexLock lock(&mutex_);
  for (const std::string& line : lines) {
    Event event;
    const bool good = line.size() <= kMaxLineBytes &&
                      google::protobuf::util::JsonStringToMessage(line, &event, options).ok() &&
                      event.number() > number_ && event.number() < kMaxNumber &&
                      event.fields_size() <= static_cast<int>(kMaxFields) && event.has_time();
    if (!good) {
      ++unreadable_lines_;
      continue;
    }
    for (std::string* text :
         {event.mutable_vm(), event.mutable_node(), event.mutable_kind(), event.mutable_text()}) {
      *text = CleanText(*text, kMaxTextBytes);
    }
    google::protobuf::Map<std::string, std::string> fields;
    for (const auto& [key, value] : event.fields()) {
      fields[CleanText(key, kMaxValueBytes)] = CleanText(value, kMaxValueBytes);
    }
    *event.mutable_fields() = std::move(fields);
    number_ = event.number();
    Keep(std::move(event), line.size() + 1);
  }
}

void EventJournal::Keep(Event event, size_t bytes) {
  kept_.push_back({std::move(event), bytes});
  kept_bytes_ += bytes;
  while (kept_.size() > 1 && kept_bytes_ > 2 * options_.max_bytes) {
    kept_bytes_ -= kept_.front().bytes;
    kept_.pop_front();
  }
}

bool EventJournal::Admit(const std::string& kind, const std::string& text) {
  const uint64_t now_ns = options_.clock != nullptr ? options_.clock->NowNs() : monotonic_.NowNs();
  const auto [at, fresh] = limits_.try_emplace(kind, Limit{kBurst, now_ns, 0});
  Limit& limit = at->second;
  const uint64_t more = (now_ns - limit.filled_ns) / kRefillNs;
  limit.tokens = std::min(kBurst, limit.tokens + more);
  limit.filled_ns += more * kRefillNs;
  const bool repeats =
      !kept_.empty() && kept_.back().event.kind() == kind && kept_.back().event.text() == text;
  if (repeats || limit.tokens == 0) {
    ++limit.left_out;
    return false;
  }
  --limit.tokens;
  return true;
}

void EventJournal::OnLogged(romulus::v1::Severity severity, absl::string_view kind,
                            std::initializer_list<LogField> fields) {
  EventFields values;
  for (const LogField& field : fields) {
    if (values.size() == kMaxFields) break;
    values.emplace_back(field.key(), CleanText(field.value(), kMaxValueBytes));
  }
  const std::optional<std::string> told = EventText(kind, values);
  if (!told) return;
  Event event;
  event.set_vm(options_.vm);
  event.set_node(options_.node);
  event.set_severity(severity);
  event.set_kind(std::string(kind));
  event.set_text(CleanText(*told, kMaxTextBytes));
  for (auto& [key, value] : values) (*event.mutable_fields())[key] = std::move(value);

  absl::MutexLock lock(&mutex_);
  if (!Admit(event.kind(), event.text())) return;
  event.set_left_out(std::exchange(limits_[event.kind()].left_out, 0));
  event.set_number(++number_);
  event.set_term(term_);
  *event.mutable_time() = TimeUtil::MillisecondsToTimestamp(absl::ToUnixMillis(absl::Now()));
  const std::string line = LineOf(event);
  Keep(std::move(event), line.size());
  if (file_ != nullptr) {
    if (unwritten_.size() + line.size() > std::min(kMaxUnwrittenBytes, options_.max_bytes)) {
      ++lost_;
    } else {
      unwritten_ += line;
    }
  }
  changed_.SignalAll();
}

void EventJournal::SetTerm(uint64_t term) {
  absl::MutexLock lock(&mutex_);
  term_ = term;
}

void EventJournal::Write() {
  absl::MutexLock lock(&mutex_);
  for (;;) {
    while (unwritten_.empty() && !end_) changed_.Wait(&mutex_);
    if (unwritten_.empty()) return;
    const std::string lines = std::exchange(unwritten_, "");
    mutex_.Unlock();
    const absl::Status written = file_->Append(lines);
    mutex_.Lock();
    file_status_ = written;
    if (!written.ok()) lost_ += static_cast<uint64_t>(std::count(lines.begin(), lines.end(), '\n'));
  }
}

std::vector<Event> EventJournal::After(uint64_t number, size_t count) const {
  absl::MutexLock lock(&mutex_);
  auto at = std::upper_bound(
      kept_.begin(), kept_.end(), number,
      [](uint64_t wanted, const Kept& kept) { return wanted < kept.event.number(); });
  std::vector<Event> events;
  for (; at != kept_.end() && events.size() < count; ++at) events.push_back(at->event);
  return events;
}

uint64_t EventJournal::Before(uint64_t since_unix_ms, uint64_t last) const {
  absl::MutexLock lock(&mutex_);
  size_t first = 0;
  while (first < kept_.size() &&
         static_cast<uint64_t>(std::max<int64_t>(
             0, TimeUtil::TimestampToMilliseconds(kept_[first].event.time()))) < since_unix_ms) {
    ++first;
  }
  if (last != 0 && kept_.size() - first > last) first = kept_.size() - last;
  if (first == kept_.size()) return number_;
  return kept_[first].event.number() - 1;
}

uint64_t EventJournal::last_number() const {
  absl::MutexLock lock(&mutex_);
  return number_;
}

bool EventJournal::Await(uint64_t number, absl::Duration patience) const {
  absl::MutexLock lock(&mutex_);
  return changed_.AwaitUntil(&mutex_, base::CondVar::After(patience),
                             [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return number_ > number; });
}

absl::Status EventJournal::file_status() const {
  absl::MutexLock lock(&mutex_);
  if (file_status_.ok() && lost_ != 0) {
    return absl::DataLossError(absl::StrCat(lost_, " events were not written"));
  }
  return file_status_;
}

}  // namespace romulus::daemon
