// A base::Executor that is one thread around an Asio loop. Post() from any thread. Stop() from any
// thread but its own; work that was not begun by then is destroyed without having run.
#ifndef ROMULUS_DAEMON_ASIO_EXECUTOR_H_
#define ROMULUS_DAEMON_ASIO_EXECUTOR_H_

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "base/executor.h"

namespace romulus::daemon {

class AsioExecutor final : public base::Executor {
 public:
  // With `own_thread` false somebody calls io().run(). `name` is its thread's, for whoever looks at
  // the process: at most 15 bytes, a literal.
  explicit AsioExecutor(bool own_thread, const char* name = nullptr);
  ~AsioExecutor() override;

  // With its first timer or socket Asio opens its own descriptors, and throws if there are none
  // left: after this it has them. Errors: errno of epoll_create(2), eventfd(2), timerfd_create(2).
  absl::Status PrepareToWait();

  void Post(std::function<void()> work) override;
  void PostAfter(uint64_t delay_ns, std::function<void()> work) override;
  void Stop();
  boost::asio::io_context& io() { return io_; }

 private:
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_;
  std::thread thread_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_ASIO_EXECUTOR_H_
