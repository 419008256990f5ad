// Lines on disk, bounded: PATH, and PATH.1 with what PATH had before it was full. What a crash
// tore, or somebody else wrote there, costs at most the lines that it is in. One thread. Owns PATH,
// which it locks.
#ifndef ROMULUS_DAEMON_EVENT_FILE_H_
#define ROMULUS_DAEMON_EVENT_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace romulus::daemon {

class EventFile {
 public:
  // `lines`: what is there already, oldest first, without line ends; of each file not more than its
  // last `max_bytes`. Errors, with the file's name: the system's; FailedPrecondition if it is no
  // regular file or another process has it.
  static absl::StatusOr<std::unique_ptr<EventFile>> Open(const std::string& path,
                                                         uint64_t max_bytes,
                                                         std::vector<std::string>* lines);

  // `lines`: whole ones, with their ends. Durable when it returns. After an error the next call
  // tries anew.
  absl::Status Append(const std::string& lines);

 private:
  EventFile(std::string path, uint64_t max_bytes) : path_(std::move(path)), max_bytes_(max_bytes) {}
  absl::Status OpenCurrent();
  absl::Status Rotate();

  const std::string path_;
  const uint64_t max_bytes_;
  base::UniqueFd fd_;
  uint64_t size_bytes_ = 0;
  bool torn_ = false;  // the last line has no end
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_EVENT_FILE_H_
