#include "disk/watched_files.h"

#include <utility>

#include "base/status.h"

namespace romulus::disk {

class WatchedFiles::Operation {
 public:
  Operation(WatchedFiles& files, const std::string& path, absl::string_view what)
      : files_(files), path_(path), what_(what) {
    absl::MutexLock lock(&files_.mutex_);
    since_ns_ = files_.clock_.NowNs();
    before_ = files_.last_;
    (before_ != nullptr ? before_->next_ : files_.first_) = this;
    files_.last_ = this;
  }
  ~Operation() {
    absl::MutexLock lock(&files_.mutex_);
    (before_ != nullptr ? before_->next_ : files_.first_) = next_;
    (next_ != nullptr ? next_->before_ : files_.last_) = before_;
  }
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  DiskWait Described() const { return {path_, what_, since_ns_}; }

 private:
  WatchedFiles& files_;
  const std::string& path_;
  const absl::string_view what_;
  uint64_t since_ns_ = 0;
  Operation* before_ = nullptr;
  Operation* next_ = nullptr;
};

class WatchedFiles::WatchedFile final : public File {
 public:
  WatchedFile(WatchedFiles& files, std::shared_ptr<File> file)
      : files_(files), file_(std::move(file)) {}
  const std::string& path() const override { return file_->path(); }
  uint64_t size_bytes() const override { return file_->size_bytes(); }
  bool read_only() const override { return file_->read_only(); }
  absl::Status Read(uint64_t offset_bytes, std::span<std::byte> bytes) override {
    const Operation operation(files_, path(), "read");
    return file_->Read(offset_bytes, bytes);
  }
  absl::Status Write(uint64_t offset_bytes, std::span<const std::byte> bytes) override {
    const Operation operation(files_, path(), "write");
    return file_->Write(offset_bytes, bytes);
  }
  absl::Status Zero(uint64_t offset_bytes, uint64_t size_bytes, bool unmap) override {
    const Operation operation(files_, path(), "zero");
    return file_->Zero(offset_bytes, size_bytes, unmap);
  }
  absl::Status Reserve(uint64_t offset_bytes, uint64_t size_bytes) override {
    const Operation operation(files_, path(), "reserve");
    return file_->Reserve(offset_bytes, size_bytes);
  }
  absl::Status Sync() override {
    const Operation operation(files_, path(), "sync");
    return file_->Sync();
  }
  absl::StatusOr<Extent> NextData(uint64_t offset_bytes) override {
    const Operation operation(files_, path(), "look for data");
    return file_->NextData(offset_bytes);
  }
  absl::StatusOr<FileIdentity> Identify() override {
    const Operation operation(files_, path(), "sync");
    return file_->Identify();
  }

 private:
  WatchedFiles& files_;
  const std::shared_ptr<File> file_;
};

std::optional<DiskWait> WatchedFiles::oldest() const {
  absl::MutexLock lock(&mutex_);
  if (first_ == nullptr) return std::nullopt;
  return first_->Described();
}

absl::StatusOr<std::shared_ptr<File>> WatchedFiles::OpenDisk(const std::string& path,
                                                             bool read_only) {
  const Operation operation(*this, path, "open");
  ROMULUS_ASSIGN_OR_RETURN(std::shared_ptr<File> file, files_.OpenDisk(path, read_only));
  return std::make_shared<WatchedFile>(*this, std::move(file));
}

absl::StatusOr<std::shared_ptr<File>> WatchedFiles::OpenJournal(const std::string& path) {
  const Operation operation(*this, path, "open");
  ROMULUS_ASSIGN_OR_RETURN(std::shared_ptr<File> file, files_.OpenJournal(path));
  return std::make_shared<WatchedFile>(*this, std::move(file));
}

absl::StatusOr<std::optional<std::string>> WatchedFiles::ReadText(const std::string& path,
                                                                  uint64_t max_bytes) {
  const Operation operation(*this, path, "read");
  return files_.ReadText(path, max_bytes);
}

absl::Status WatchedFiles::Replace(const std::string& path, absl::string_view text) {
  const Operation operation(*this, path, "write");
  return files_.Replace(path, text);
}

absl::Status WatchedFiles::Remove(const std::string& path) {
  const Operation operation(*this, path, "remove");
  return files_.Remove(path);
}

}  // namespace romulus::disk
