// How this process's allocator deals with the kernel.
#ifndef ROMULUS_BASE_HEAP_H_
#define ROMULUS_BASE_HEAP_H_

#include <malloc.h>

namespace romulus::base {

// Keeps up to 8 MiB of freed memory in each arena, and takes blocks below 4 MiB from there.
// Messages of hundreds of KiB come and go thousands of times a second; by default glibc gives their
// memory back and takes it again, and each time the kernel clears pages (mallopt(3)). Before other
// threads are started.
inline void KeepFreedMemory() {
  ::mallopt(M_MMAP_THRESHOLD, 4 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

}  // namespace romulus::base

#endif  // ROMULUS_BASE_HEAP_H_
