// Where work runs, behind a seam: the daemon plugs in an Asio loop, simulation a seeded scheduler.
#ifndef ROMULUS_BASE_EXECUTOR_H_
#define ROMULUS_BASE_EXECUTOR_H_

#include <cstdint>
#include <functional>

namespace romulus::base {

class Executor {
 public:
  virtual ~Executor() = default;
  // Runs `work` later, on the executor's one thread. Callable from any thread; never blocks.
  virtual void Post(std::function<void()> work) = 0;
  // The same, not before `delay_ns` from now.
  virtual void PostAfter(uint64_t delay_ns, std::function<void()> work) = 0;
};

}  // namespace romulus::base

#endif  // ROMULUS_BASE_EXECUTOR_H_
