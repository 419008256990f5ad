// Copies of whole pages past the caches, for pages that will not be read soon: of many, plain
// stores first read each line that they overwrite and push out what others need. (Non-temporal
// stores: Intel SDM volume 1, section 10.4.6.2.)
#ifndef ROMULUS_MEMORY_PAGE_COPY_H_
#define ROMULUS_MEMORY_PAGE_COPY_H_

#include <cstddef>

namespace romulus::memory {

// What was copied is in order with this thread's later stores once the object is gone. One thread.
class PastCaches {
 public:
  PastCaches() = default;
  ~PastCaches();
  PastCaches(const PastCaches&) = delete;
  PastCaches& operator=(const PastCaches&) = delete;

  // A page; `to` begins on a page boundary, `from` anywhere.
  void CopyPage(std::byte* to, const std::byte* from);
};

}  // namespace romulus::memory

#endif  // ROMULUS_MEMORY_PAGE_COPY_H_
