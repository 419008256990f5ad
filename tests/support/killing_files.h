// The real files, and a process that dies at the n-th operation that changes one: halfway through
// a write, or before the operation. For a forked child.
#ifndef ROMULUS_TESTS_SUPPORT_KILLING_FILES_H_
#define ROMULUS_TESTS_SUPPORT_KILLING_FILES_H_

#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "base/status.h"
#include "disk/file.h"

namespace romulus::testing {

class KillingFiles final : public disk::Files {
 public:
  static constexpr int kExitCode = 77;

  explicit KillingFiles(uint64_t at) : at_(at) {}
  absl::StatusOr<std::shared_ptr<disk::File>> OpenDisk(const std::string& path,
                                                       bool read_only) override {
    return Wrapped(disk::PosixFiles().OpenDisk(path, read_only));
  }
  absl::StatusOr<disk::DiskLook> LookAtDisk(const std::string& path) override {
    return disk::PosixFiles().LookAtDisk(path);
  }
  absl::StatusOr<std::shared_ptr<disk::File>> OpenJournal(const std::string& path) override {
    return Wrapped(disk::PosixFiles().OpenJournal(path));
  }
  absl::StatusOr<std::optional<std::string>> ReadText(const std::string& path,
                                                      uint64_t max_bytes) override {
    return disk::PosixFiles().ReadText(path, max_bytes);
  }
  absl::Status Replace(const std::string& path, absl::string_view text) override {
    Step();
    return disk::PosixFiles().Replace(path, text);
  }
  absl::Status Remove(const std::string& path) override {
    Step();
    return disk::PosixFiles().Remove(path);
  }
  std::string boot_id() override { return disk::PosixFiles().boot_id(); }

 private:
  class KillingFile final : public disk::File {
   public:
    KillingFile(KillingFiles& files, std::shared_ptr<disk::File> file)
        : files_(files), file_(std::move(file)) {}
    const std::string& path() const override { return file_->path(); }
    uint64_t size_bytes() const override { return file_->size_bytes(); }
    bool read_only() const override { return file_->read_only(); }
    absl::Status Read(uint64_t offset, std::span<std::byte> bytes) override {
      return file_->Read(offset, bytes);
    }
    absl::Status Write(uint64_t offset, std::span<const std::byte> bytes) override {
      files_.Step([&] {
        const auto half = bytes.first(bytes.size() / 2);
        file_->Write(offset, half).IgnoreError();
      });
      return file_->Write(offset, bytes);
    }
    absl::Status Zero(uint64_t offset, uint64_t size, bool unmap) override {
      files_.Step();
      return file_->Zero(offset, size, unmap);
    }
    absl::Status Reserve(uint64_t offset, uint64_t size) override {
      files_.Step();
      return file_->Reserve(offset, size);
    }
    // A process's death needs no sync; without one the test takes seconds, not minutes.
    absl::Status Sync() override {
      files_.Step();
      return absl::OkStatus();
    }
    absl::StatusOr<disk::Extent> NextData(uint64_t offset) override {
      return file_->NextData(offset);
    }
    absl::StatusOr<disk::FileIdentity> Identify() override {
      files_.Step();
      return file_->Identify();
    }

   private:
    KillingFiles& files_;
    const std::shared_ptr<disk::File> file_;
  };

  absl::StatusOr<std::shared_ptr<disk::File>> Wrapped(
      absl::StatusOr<std::shared_ptr<disk::File>> file) {
    if (!file.ok()) return file.status();
    return std::make_shared<KillingFile>(*this, *std::move(file));
  }
  template <typename Halfway>
  void Step(const Halfway& halfway) {
    if (++done_ != at_) return;
    halfway();
    ::_exit(kExitCode);
  }
  void Step() {
    Step([] {});
  }

  const uint64_t at_;
  std::atomic<uint64_t> done_{0};
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_KILLING_FILES_H_
