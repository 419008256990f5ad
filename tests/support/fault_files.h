// Files in memory that can stop at any operation and lose power: what was not made durable by
// Sync() or Replace() survives sector by sector, as chance will have it, in any order. In the
// spirit of LevelDB's fault injection environment. Any thread.
#ifndef ROMULUS_TESTS_SUPPORT_FAULT_FILES_H_
#define ROMULUS_TESTS_SUPPORT_FAULT_FILES_H_

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/status.h"
#include "disk/file.h"

namespace romulus::testing {

class FaultFiles final : public disk::Files {
 public:
  static constexpr uint64_t kSector = 512;

  // --- what the test does ---

  void Make(const std::string& path, std::string content) {
    absl::MutexLock lock(&mutex_);
    auto node = std::make_shared<Node>();
    node->inode = ++inodes_;
    node->durable = node->now = std::move(content);
    nodes_[path] = std::move(node);
  }
  std::string Content(const std::string& path) const {
    absl::MutexLock lock(&mutex_);
    const auto found = nodes_.find(path);
    return found == nodes_.end() ? "" : found->second->now;
  }
  void SetContent(const std::string& path, std::string content) {
    absl::MutexLock lock(&mutex_);
    nodes_[path]->now = nodes_[path]->durable = std::move(content);
  }
  bool Exists(const std::string& path) const {
    absl::MutexLock lock(&mutex_);
    return nodes_.contains(path);
  }
  // The process stops at the `at`-th operation from now that changes something, halfway through it.
  void StopAt(uint64_t at, uint64_t seed) {
    absl::MutexLock lock(&mutex_);
    stop_at_ = operations_ + at;
    random_.seed(seed);
  }
  // That operation fails with `status`, halfway, and the others go on. `only`: of these files.
  void FailAt(uint64_t at, absl::Status status, std::string only = "") {
    absl::MutexLock lock(&mutex_);
    fail_in_ = at;
    fail_with_ = std::move(status);
    fail_only_ = std::move(only);
  }
  bool stopped() const {
    absl::MutexLock lock(&mutex_);
    return stopped_;
  }
  uint64_t operations() const {
    absl::MutexLock lock(&mutex_);
    return operations_;
  }
  // Another process, on the same host: everything is as it was.
  void Restart() {
    absl::MutexLock lock(&mutex_);
    stopped_ = false;
    stop_at_ = 0;
    locked_.clear();
  }
  // The host comes back after it lost its power.
  void LosePower(uint64_t seed) {
    absl::MutexLock lock(&mutex_);
    random_.seed(seed);
    for (auto& [path, node] : nodes_) node->LosePower(random_);
    ++boots_;
    stopped_ = false;
    stop_at_ = 0;
    locked_.clear();
  }
  // Syncs of files whose name ends so do nothing: a broken variant of the code under test.
  void LieAbout(std::string suffix) {
    absl::MutexLock lock(&mutex_);
    lies_about_ = std::move(suffix);
  }

  // --- disk::Files ---

  absl::StatusOr<std::shared_ptr<disk::File>> OpenDisk(const std::string& path,
                                                       bool read_only) override {
    absl::MutexLock lock(&mutex_);
    ROMULUS_RETURN_IF_ERROR(RunningLocked());
    const auto found = nodes_.find(path);
    if (found == nodes_.end()) return absl::NotFoundError(path);
    return OpenLocked(path, found->second, read_only);
  }
  absl::StatusOr<disk::DiskLook> LookAtDisk(const std::string& path) override {
    absl::MutexLock lock(&mutex_);
    ROMULUS_RETURN_IF_ERROR(RunningLocked());
    const auto found = nodes_.find(path);
    if (found == nodes_.end()) return absl::NotFoundError(path);
    const Node& node = *found->second;
    return disk::DiskLook{node.now.size(), {node.inode, node.mtime_ns, false}};
  }
  absl::StatusOr<std::shared_ptr<disk::File>> OpenJournal(const std::string& path) override {
    absl::MutexLock lock(&mutex_);
    ROMULUS_RETURN_IF_ERROR(RunningLocked());
    auto& node = nodes_[path];
    if (node == nullptr) {
      node = std::make_shared<Node>();
      node->inode = ++inodes_;
    }
    return OpenLocked(path, node, false);
  }
  absl::StatusOr<std::optional<std::string>> ReadText(const std::string& path,
                                                      uint64_t max_bytes) override {
    absl::MutexLock lock(&mutex_);
    ROMULUS_RETURN_IF_ERROR(RunningLocked());
    const auto found = nodes_.find(path);
    if (found == nodes_.end()) return std::nullopt;
    if (found->second->now.size() > max_bytes) return absl::OutOfRangeError(path);
    return found->second->now;
  }
  absl::Status Replace(const std::string& path, absl::string_view text) override {
    absl::MutexLock lock(&mutex_);
    const absl::Status status = StepLocked(path);
    // Halfway: the rename has happened or has not.
    if (!status.ok() && (!halfway_ || random_() % 2 == 0)) return status;
    auto& node = nodes_[path];
    if (node == nullptr) node = std::make_shared<Node>();
    node->durable = node->now = std::string(text);
    return status;
  }
  absl::Status Remove(const std::string& path) override {
    absl::MutexLock lock(&mutex_);
    const absl::Status status = StepLocked(path);
    if (status.ok()) nodes_.erase(path);
    return status;
  }
  std::string boot_id() override {
    absl::MutexLock lock(&mutex_);
    return absl::StrCat("boot-", boots_);
  }

 private:
  struct Change {
    uint64_t offset;
    std::string bytes;
  };
  struct Node {
    uint64_t inode = 0;
    int64_t mtime_ns = 0;
    std::string durable;  // as of the last sync
    std::string now;
    std::vector<Change> unsynced;

    void Put(uint64_t offset, std::string bytes) {
      PutInto(now, offset, bytes);
      unsynced.push_back({offset, std::move(bytes)});
      ++mtime_ns;
    }
    void Sync() {
      durable = now;
      unsynced.clear();
    }
    void LosePower(std::mt19937_64& random) {
      // Three kinds of bad luck: most sectors made it, about half, nearly none.
      const uint64_t of_eight = 1 + 3 * (random() % 3);
      for (const Change& change : unsynced) {
        for (uint64_t at = 0; at < change.bytes.size(); at += kSector) {
          if (random() % 8 < of_eight) {
            PutInto(durable, change.offset + at, change.bytes.substr(at, kSector));
          }
        }
      }
      now = durable;
      unsynced.clear();
    }
    static void PutInto(std::string& content, uint64_t offset, const std::string& bytes) {
      if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
      std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(offset));
    }
  };

  class FaultFile final : public disk::File {
   public:
    FaultFile(FaultFiles& files, std::string path, std::shared_ptr<Node> node, bool read_only)
        : files_(files), path_(std::move(path)), node_(std::move(node)), read_only_(read_only) {}
    ~FaultFile() override {
      absl::MutexLock lock(&files_.mutex_);
      files_.locked_.erase(path_);
    }
    const std::string& path() const override { return path_; }
    bool read_only() const override { return read_only_; }
    uint64_t size_bytes() const override {
      absl::MutexLock lock(&files_.mutex_);
      return node_->now.size();
    }
    absl::Status Read(uint64_t offset, std::span<std::byte> bytes) override {
      absl::MutexLock lock(&files_.mutex_);
      ROMULUS_RETURN_IF_ERROR(files_.RunningLocked());
      if (offset + bytes.size() > node_->now.size()) return absl::OutOfRangeError(path_);
      std::memcpy(bytes.data(), node_->now.data() + offset, bytes.size());
      return absl::OkStatus();
    }
    absl::Status Write(uint64_t offset, std::span<const std::byte> bytes) override {
      std::string text(bytes.size(), '\0');
      std::memcpy(text.data(), bytes.data(), bytes.size());
      return Put(offset, std::move(text));
    }
    absl::Status Zero(uint64_t offset, uint64_t size, bool) override {
      return Put(offset, std::string(size, '\0'));
    }
    absl::Status Reserve(uint64_t, uint64_t) override {
      absl::MutexLock lock(&files_.mutex_);
      return files_.StepLocked(path_);
    }
    absl::Status Sync() override {
      absl::MutexLock lock(&files_.mutex_);
      ROMULUS_RETURN_IF_ERROR(files_.StepLocked(path_));
      if (!files_.lies_about_.empty() && absl::EndsWith(path_, files_.lies_about_)) {
        return absl::OkStatus();
      }
      node_->Sync();
      return absl::OkStatus();
    }
    absl::StatusOr<disk::Extent> NextData(uint64_t offset) override {
      absl::MutexLock lock(&files_.mutex_);
      return disk::Extent{offset, node_->now.size() - offset};
    }
    absl::StatusOr<disk::FileIdentity> Identify() override {
      absl::MutexLock lock(&files_.mutex_);
      ROMULUS_RETURN_IF_ERROR(files_.StepLocked(path_));
      node_->Sync();
      return disk::FileIdentity{node_->inode, node_->mtime_ns, false};
    }

   private:
    absl::Status Put(uint64_t offset, std::string bytes) {
      absl::MutexLock lock(&files_.mutex_);
      const absl::Status status = files_.StepLocked(path_);
      if (status.ok()) {
        node_->Put(offset, std::move(bytes));
      } else if (files_.halfway_) {
        bytes.resize(bytes.size() / kSector * (files_.random_() % 4) / 4 * kSector);
        if (!bytes.empty()) node_->Put(offset, std::move(bytes));
      }
      return status;
    }

    FaultFiles& files_;
    const std::string path_;
    const std::shared_ptr<Node> node_;
    const bool read_only_;
  };

  absl::StatusOr<std::shared_ptr<disk::File>> OpenLocked(const std::string& path,
                                                         std::shared_ptr<Node> node, bool read_only)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!read_only && !locked_.insert(path).second) {
      return absl::FailedPreconditionError(absl::StrCat(path, ": is in use"));
    }
    return std::make_shared<FaultFile>(*this, path, std::move(node), read_only);
  }
  absl::Status RunningLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopped_ ? absl::AbortedError("the process was stopped") : absl::OkStatus();
  }
  // Before something changes. On an error, halfway_ says whether a part of it still happens.
  absl::Status StepLocked(const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    halfway_ = false;
    ROMULUS_RETURN_IF_ERROR(RunningLocked());
    ++operations_;
    if (operations_ == stop_at_) {
      stopped_ = halfway_ = true;
      return RunningLocked();
    }
    if (fail_in_ > 0 && absl::EndsWith(path, fail_only_) && --fail_in_ == 0) {
      halfway_ = true;
      return fail_with_;
    }
    return absl::OkStatus();
  }

  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Node>> nodes_;
  std::set<std::string> locked_;
  std::mt19937_64 random_;
  uint64_t inodes_ = 0;
  int boots_ = 0;
  uint64_t operations_ = 0;
  uint64_t stop_at_ = 0;
  bool stopped_ = false;
  bool halfway_ = false;
  uint64_t fail_in_ = 0;
  absl::Status fail_with_;
  std::string fail_only_;
  std::string lies_about_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_FAULT_FILES_H_
