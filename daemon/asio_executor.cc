#include "daemon/asio_executor.h"

#include <pthread.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <memory>
#include <utility>

#include "base/status.h"

namespace romulus::daemon {

AsioExecutor::AsioExecutor(bool own_thread, const char* name) : io_(1), guard_(io_.get_executor()) {
  if (!own_thread) return;
  thread_ = std::thread([this, name] {
    if (name != nullptr) ::pthread_setname_np(::pthread_self(), name);
    io_.run();
  });
}

absl::Status AsioExecutor::PrepareToWait() {
  try {
    const boost::asio::steady_timer first(io_);
  } catch (const boost::system::system_error& error) {
    return base::ErrnoStatus(error.code().value(), error.what());
  }
  return absl::OkStatus();
}

AsioExecutor::~AsioExecutor() { Stop(); }

void AsioExecutor::Post(std::function<void()> work) { boost::asio::post(io_, std::move(work)); }

void AsioExecutor::PostAfter(uint64_t delay_ns, std::function<void()> work) {
  auto timer = std::make_shared<boost::asio::steady_timer>(io_);
  timer->expires_after(std::chrono::nanoseconds(delay_ns));
  timer->async_wait([timer, work = std::move(work)](const boost::system::error_code& error) {
    if (!error) work();
  });
}

void AsioExecutor::Stop() {
  io_.stop();
  if (thread_.joinable()) thread_.join();
}

}  // namespace romulus::daemon
