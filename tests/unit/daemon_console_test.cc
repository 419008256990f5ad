#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

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

  std::unique_ptr<Console> OpenFile() {
    romulus::v1::Console config;
    config.set_file(path_);
    auto console = Console::Open(config, {});
    EXPECT_TRUE(console.ok()) << console.status();
    return *std::move(console);
  }
  std::string Contents() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }

  std::string folder_;
  std::string path_;
};

TEST_F(ConsoleTest, AFileIsWrittenByPosition) {
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
  auto console = Console::Open(romulus::v1::Console(), {});
  ASSERT_TRUE(console.ok()) << console.status();
  EXPECT_FALSE((*console)->written_offset().has_value());
  const std::string more_than_a_pipe(1 << 20, 'x');
  (*console)->Emit(100, more_than_a_pipe);
  (*console)->Emit(100 + more_than_a_pipe.size(), "y");
  EXPECT_EQ((*console)->written_offset(), 100u);
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
  const auto console = Console::Open(config, {});
  EXPECT_THAT(std::string(console.status().message()), HasSubstr("none/console"));
}

TEST_F(ConsoleTest, ClientsGetTheStreamFromNowOn) {
  auto console = OpenSocketConsole(path_);
  ASSERT_TRUE(console.ok()) << console.status();
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  (*console)->Emit(0, "nobody hears this");
  boost::asio::io_context io;
  Socket client(io);
  client.connect(Endpoint(path_));
  // Nothing says when the console has taken the client in, so it speaks until it is heard.
  std::string heard(5, '\0');
  client.non_blocking(true);
  boost::system::error_code error = boost::asio::error::would_block;
  while (error == boost::asio::error::would_block) {
    (*console)->Emit(17, "hello");
    client.read_some(boost::asio::buffer(heard), error);
  }
  EXPECT_FALSE(error) << error.message();
  EXPECT_EQ(heard, "hello");
}

TEST_F(ConsoleTest, AClientThatDoesNotReadIsCutOff) {
  auto console = OpenSocketConsole(path_);
  ASSERT_TRUE(console.ok()) << console.status();
  boost::asio::io_context io;
  Socket client(io);
  client.connect(Endpoint(path_));
  const std::string piece(64 << 10, 'x');
  uint64_t said = 0;
  // A probe that reads knows when the console has caught up; the silent one is gone by then.
  for (; said < 8 * kClientQueueBytes; said += piece.size()) (*console)->Emit(said, piece);
  console->reset();  // writes or closes everything
  std::string heard;
  boost::system::error_code error;
  boost::asio::read(client, boost::asio::dynamic_buffer(heard), error);
  EXPECT_LT(heard.size(), said);
}

TEST_F(ConsoleTest, ASocketInUseIsNotTaken) {
  auto first = OpenSocketConsole(path_);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = OpenSocketConsole(path_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
}

TEST_F(ConsoleTest, ASocketThatWasLeftBehindIs) {
  {
    boost::asio::io_context io;
    boost::asio::local::stream_protocol::acceptor left(io, Endpoint(path_));
  }
  ASSERT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(OpenSocketConsole(path_).ok());
}

TEST_F(ConsoleTest, AFileIsNoSocket) {
  std::ofstream(path_) << "precious";
  EXPECT_EQ(OpenSocketConsole(path_).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Contents(), "precious");
}

}  // namespace
}  // namespace romulus::daemon
