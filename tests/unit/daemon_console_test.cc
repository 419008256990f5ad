#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "daemon/console.h"
#include "daemon/console_socket.h"

namespace romulus::daemon {
namespace {

using ::testing::HasSubstr;
using Socket = boost::asio::local::stream_protocol::socket;
using Endpoint = boost::asio::local::stream_protocol::endpoint;

class ConsoleTest : public testing::Test {
 protected:
  ConsoleTest() {
    std::string pattern = testing::TempDir() + "/romulus-console-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    path_ = folder_ + "/console";
  }
  ~ConsoleTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Console> OpenFile(const std::string& path) {
    romulus::v1::Console config;
    config.set_file(path);
    auto console = Console::Open(config, options_, events_);
    EXPECT_TRUE(console.ok()) << console.status();
    return *std::move(console);
  }
  std::string Contents() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }

  std::unique_ptr<Console> OpenFile() { return OpenFile(path_); }
  std::unique_ptr<Console> OpenSocket() {
    auto console = OpenSocketConsole(path_, options_, events_);
    EXPECT_TRUE(console.ok()) << console.status();
    return *std::move(console);
  }
  static void AwaitWritten(const Console& console, uint64_t offset) {
    while (console.written_offset() != offset) std::this_thread::yield();
  }

  std::string folder_;
  std::string path_;
  ConsoleOptions options_{.cap_bytes = 1000,
                          .retry_min = std::chrono::milliseconds(1),
                          .retry_max = std::chrono::milliseconds(2),
                          .drain_time = std::chrono::milliseconds(50),
                          .client_patience = std::chrono::minutes(10)};
  // What the console told.
  std::mutex told_mutex_;
  std::vector<absl::Status> failures_;
  std::atomic<int> rooms_{0};
  std::atomic<uint64_t> missed_{0};
  uint64_t left_ = 0;
  ConsoleEvents events_{.on_failure =
                            [this](const absl::Status& why) {
                              std::lock_guard lock(told_mutex_);
                              failures_.push_back(why);
                            },
                        .on_room = [this] { ++rooms_; },
                        .on_cut_off = [this](uint64_t missed) { missed_ = missed; },
                        .on_left = [this](uint64_t left) { left_ = left; }};
};

TEST_F(ConsoleTest, AFileIsWrittenByPosition) {
  options_.drain_time = std::chrono::milliseconds(0);  // a file that takes bytes is waited for
  {
    auto console = OpenFile();
    EXPECT_FALSE(console->start_offset().has_value());
    console->Emit(4, "efgh");
    console->Emit(8, "ij");
    EXPECT_EQ(console->start_offset(), 4u);
  }
  EXPECT_EQ(Contents(), std::string("\0\0\0\0efghij", 10));
  // What this node said before a failover and back is still there.
  { OpenFile()->Emit(0, "abcd"); }
  EXPECT_EQ(Contents(), "abcdefghij");
}

// Bytes that wait in the queue would die with the process: they do not count as written.
TEST_F(ConsoleTest, WrittenIsWhatHasLeftTheProcess) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  const int kept = ::dup(STDOUT_FILENO);
  ASSERT_EQ(::dup2(pipe_fds[1], STDOUT_FILENO), STDOUT_FILENO);
  options_.drain_time = std::chrono::minutes(1);
  auto console = Console::Open(romulus::v1::Console(), options_, events_);
  ASSERT_TRUE(console.ok()) << console.status();
  EXPECT_FALSE((*console)->written_offset().has_value());
  const std::string more_than_a_pipe(1 << 20, 'x');
  (*console)->Emit(100, more_than_a_pipe);
  (*console)->Emit(100 + more_than_a_pipe.size(), "y");
  EXPECT_LT((*console)->written_offset(), 100 + more_than_a_pipe.size());
  EXPECT_TRUE((*console)->OverCap());
  const ConsoleBytes unwritten = (*console)->Unwritten();
  EXPECT_EQ(unwritten.offset + unwritten.bytes.size(), 101 + more_than_a_pipe.size());
  std::string read(64 << 10, 0);
  for (size_t got = 0; got < more_than_a_pipe.size() + 1;) {
    const ssize_t part = ::read(pipe_fds[0], read.data(), read.size());
    ASSERT_GT(part, 0);
    got += static_cast<size_t>(part);
  }
  while ((*console)->written_offset() != 101 + more_than_a_pipe.size()) std::this_thread::yield();
  console->reset();
  ::dup2(kept, STDOUT_FILENO);
  for (const int fd : {kept, pipe_fds[0], pipe_fds[1]}) ::close(fd);
}

TEST_F(ConsoleTest, AFileThatCannotBeOpenedIsNamed) {
  romulus::v1::Console config;
  config.set_file(folder_ + "/none/console");
  const auto console = Console::Open(config, options_, events_);
  EXPECT_THAT(std::string(console.status().message()), HasSubstr("none/console"));
}

// P6: a full disk loses nothing. The bytes are kept and tried again, and the guest must wait.
TEST_F(ConsoleTest, AFileIsOneDaemons) {
  auto first = OpenFile();
  romulus::v1::Console config;
  config.set_file(path_);
  const auto second = Console::Open(config, options_, events_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              ::testing::AllOf(HasSubstr(path_), HasSubstr("fuser -v")));
  first.reset();
  OpenFile();
  config.set_file("/dev/null");
  const auto nothing = Console::Open(config, options_, events_);
  EXPECT_TRUE(nothing.ok() && Console::Open(config, options_, events_).ok());
}

TEST_F(ConsoleTest, P6_WhatCannotBeWrittenIsKept) {
  auto console = OpenFile("/dev/full");
  std::string said;
  while (said.size() <= options_.cap_bytes) {
    EXPECT_FALSE(console->OverCap());
    console->Emit(70 + said.size(), "0123456789");
    said += "0123456789";
  }
  EXPECT_TRUE(console->OverCap());
  while (console->failure().ok()) std::this_thread::yield();
  EXPECT_EQ(console->failure().code(), absl::StatusCode::kResourceExhausted);  // ENOSPC
  EXPECT_EQ(console->written_offset(), 70u);
  EXPECT_EQ(console->queued_bytes(), said.size());
  EXPECT_EQ(console->Unwritten().offset, 70u);
  EXPECT_EQ(console->Unwritten().bytes, said);
  console.reset();  // does not wait for ever, and says what is lost
  EXPECT_EQ(left_, said.size());
  EXPECT_EQ(failures_.size(), 1u) << "said once, however often it was tried";
}

// A file at its limit is written up to it, and goes on behind it when there is room again.
TEST_F(ConsoleTest, P6_AFileThatHasRoomAgainGoesOn) {
  ::signal(SIGXFSZ, SIG_IGN);  // as romulusd does
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 8;
  auto console = OpenFile();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string said(2000, 'x');
  console->Emit(0, said);
  while (console->failure().ok()) std::this_thread::yield();
  const std::optional<uint64_t> written = console->written_offset();
  const bool over = console->OverCap();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(written, 8u);
  EXPECT_TRUE(over);
  console->Emit(said.size(), "end");
  AwaitWritten(*console, said.size() + 3);
  EXPECT_FALSE(console->OverCap());
  EXPECT_TRUE(console->failure().ok());
  console.reset();
  EXPECT_EQ(Contents(), said + "end");
  EXPECT_EQ(rooms_, 1);
  EXPECT_EQ(left_, 0u);
  ASSERT_EQ(failures_.size(), 2u);
  EXPECT_FALSE(failures_[0].ok());
  EXPECT_TRUE(failures_[1].ok());
}

TEST_F(ConsoleTest, ClientsGetTheStreamFromNowOn) {
  auto console = OpenSocket();
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  console->Emit(0, "nobody hears this");
  AwaitWritten(*console, 17);
  boost::asio::io_context io;
  Socket client(io);
  client.connect(Endpoint(path_));
  // Nothing says when the console has taken the client in, so it speaks until it is heard.
  std::string heard(5, '\0');
  client.non_blocking(true);
  boost::system::error_code error = boost::asio::error::would_block;
  for (uint64_t said = 17; error == boost::asio::error::would_block; said += 5) {
    console->Emit(said, "hello");
    client.read_some(boost::asio::buffer(heard), error);
  }
  EXPECT_FALSE(error) << error.message();
  EXPECT_EQ(heard, "hello");
}

// Says so much that no buffer on the way holds it; returns the size of the stream.
uint64_t SayMuch(Console* console) {
  const std::string piece(64 << 10, 'x');
  uint64_t said = 0;
  while (said < (8u << 20)) {
    console->Emit(said, piece);
    said += piece.size();
  }
  return said;
}

// Says so much that the client, which never reads, must be waited for; returns the stream's end.
// Until the console has taken the client in, what is said goes nowhere, so it speaks until
// something arrives.
uint64_t FillClient(Console* console, Socket* client) {
  uint64_t said = 0;
  while (client->available() == 0) {
    console->Emit(said, ".");
    ++said;
    while (console->queued_bytes() != 0) std::this_thread::yield();
  }
  for (int i = 0; i < 128; ++i, said += 64 << 10) console->Emit(said, std::string(64 << 10, '.'));
  return said;
}

// P6: the guest waits for a slow reader, who then gets every byte.
TEST_F(ConsoleTest, P6_ASlowClientIsWaitedFor) {
  options_.drain_time = std::chrono::minutes(1);
  auto console = OpenSocket();
  boost::asio::io_context io;
  Socket client(io);
  client.connect(Endpoint(path_));
  const uint64_t start = FillClient(console.get(), &client);
  EXPECT_TRUE(console->OverCap());
  const std::string last = "the last word";
  console->Emit(start, last);
  const ConsoleBytes unwritten = console->Unwritten();
  EXPECT_EQ(unwritten.offset + unwritten.bytes.size(), start + last.size());
  std::thread ends([&] { console.reset(); });  // writes all of it first
  std::string heard;
  boost::system::error_code error;
  boost::asio::read(client, boost::asio::dynamic_buffer(heard), error);
  ends.join();
  EXPECT_EQ(heard.substr(heard.size() - last.size()), last);
  EXPECT_EQ(left_, 0u);
  EXPECT_GE(rooms_, 1);
}

TEST_F(ConsoleTest, AClientThatTakesNothingIsCutOff) {
  options_.client_patience = std::chrono::milliseconds(50);
  auto console = OpenSocket();
  boost::asio::io_context io;
  Socket client(io);
  client.connect(Endpoint(path_));
  const uint64_t end = FillClient(console.get(), &client);
  while (missed_ == 0) std::this_thread::yield();
  // It may have been cut off while the last was being said.
  AwaitWritten(*console, end);
  EXPECT_FALSE(console->OverCap());
  // The guest goes on.
  console->Emit(end, "goes on");
  AwaitWritten(*console, end + 7);
}

// While nobody is connected nothing piles up, however much is said.
TEST_F(ConsoleTest, WithoutClientsTheGuestDoesNotWait) {
  auto console = OpenSocket();
  AwaitWritten(*console, SayMuch(console.get()));
  EXPECT_FALSE(console->OverCap());
}

TEST_F(ConsoleTest, ASocketInUseIsNotTaken) {
  auto first = OpenSocket();
  const auto second = OpenSocketConsole(path_, options_, events_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
}

TEST_F(ConsoleTest, ASocketThatWasLeftBehindIs) {
  {
    boost::asio::io_context io;
    boost::asio::local::stream_protocol::acceptor left(io, Endpoint(path_));
  }
  ASSERT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(OpenSocketConsole(path_, options_, events_).ok());
}

TEST_F(ConsoleTest, AFileIsNoSocket) {
  std::ofstream(path_) << "precious";
  EXPECT_EQ(OpenSocketConsole(path_, options_, events_).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Contents(), "precious");
}

}  // namespace
}  // namespace romulus::daemon
