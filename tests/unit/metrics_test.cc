#include "metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "metrics/exposer.h"

namespace romulus::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Labels TestLabels() {
  return {.phases = {"stop", "copy"},
          .cut_reasons = {"budget", "ring_full"},
          .encodings = {"zero", "raw"},
          .exit_kinds = {"io", "mmio"},
          .frame_errors = {"checksum"},
          .roles = {"primary", "secondary"},
          .modes = {"solo", "protected"},
          .devices = {"virtio.block.root", "virtio.net.0"},
          .device_faults = {"avail_index", "status"},
          .disks = {"root"},
          .nics = {"0"},
          .compressions = {"none", "lz4"}};
}

// The value of the series whose line starts with `series`, as text; "absent" if there is none.
std::string ValueOf(const Metrics& metrics, const std::string& name, const std::string& label) {
  std::istringstream lines(metrics.Text());
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(name + "{", 0) == 0 && line.find(label) != std::string::npos) {
      return line.substr(line.rfind(' ') + 1);
    }
  }
  return "absent";
}

TEST(Metrics, LinesOfTheEventJournalThatCouldNotBeReadAreShown) {
  Metrics metrics("vm1", "alpha", TestLabels());
  EXPECT_EQ(ValueOf(metrics, "romulus_events_unreadable_lines", ""), "0");
  metrics.SetEventsUnreadable(3);
  EXPECT_EQ(ValueOf(metrics, "romulus_events_unreadable_lines", ""), "3");
}

TEST(Metrics, AnEpochIsCountedByReasonAndPhase) {
  Metrics metrics("vm1", "alpha", TestLabels());
  const std::array<uint64_t, 2> phases = {40'000, 1'500};
  metrics.EpochCut({.cut_reason = 1,
                    .pages = 7,
                    .pause_ns = 120'000,
                    .interval_ns = 1'000'000,
                    .phase_ns = phases});
  EXPECT_EQ(ValueOf(metrics, "romulus_epochs_total", "reason=\"ring_full\""), "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_epochs_total", "reason=\"budget\""), "0");
  EXPECT_EQ(ValueOf(metrics, "romulus_epoch_pages_total", ""), "7");
  EXPECT_EQ(ValueOf(metrics, "romulus_pause_seconds_count", ""), "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_pause_phase_seconds_count", "phase=\"copy\""), "1");
  // 120 us lies between the bounds 100 us and 150 us.
  EXPECT_EQ(ValueOf(metrics, "romulus_pause_seconds_bucket", "le=\"0.0001\""), "0");
  EXPECT_EQ(ValueOf(metrics, "romulus_pause_seconds_bucket", "le=\"0.00015\""), "1");
}

TEST(Metrics, CompressionIsCountedByMethod) {
  Metrics metrics("vm1", "alpha", TestLabels());
  EXPECT_EQ(ValueOf(metrics, "romulus_compression_in_bytes_total", "method=\"lz4\""), "0");
  metrics.Compressed(1, 1000, 300);
  metrics.Compressed(1, 1000, 200);
  metrics.Compressed(0, 70, 70);
  EXPECT_EQ(ValueOf(metrics, "romulus_compression_in_bytes_total", "method=\"lz4\""), "2000");
  EXPECT_EQ(ValueOf(metrics, "romulus_compression_out_bytes_total", "method=\"lz4\""), "500");
  EXPECT_EQ(ValueOf(metrics, "romulus_compression_in_bytes_total", "method=\"none\""), "70");
  EXPECT_EQ(ValueOf(metrics, "romulus_compression_out_bytes_total", "method=\"none\""), "70");
}

TEST(Metrics, TheAuditTellsWhatItComparedAndWhenItWasRound) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.SetAudit(1000, 2);
  metrics.SetAudit(900, 1);  // of an earlier look
  metrics.SetAuditPasses(3, 2'500'000'000, 1'700'000'000'500);
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_pages_total", ""), "1000");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_mismatches_total", ""), "2");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_passes_total", ""), "3");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_pass_seconds", ""), "2.5");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_last_pass_time_seconds", ""), "1700000000.5");
  metrics.SetDiskAudit(500, 1);
  metrics.SetDiskAuditPasses(2, 1'500'000'000, 1'700'000'001'000);
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_disk_blocks_total", ""), "500");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_disk_mismatches_total", ""), "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_disk_passes_total", ""), "2");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_disk_pass_seconds", ""), "1.5");
  EXPECT_EQ(ValueOf(metrics, "romulus_audit_last_disk_pass_time_seconds", ""), "1700000001");
}

TEST(Metrics, EverySeriesCarriesVmAndNode) {
  Metrics metrics("vm1", "alpha", TestLabels());
  std::istringstream lines(metrics.Text());
  int series = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    ++series;
    EXPECT_THAT(line, HasSubstr("vm=\"vm1\""));
    EXPECT_THAT(line, HasSubstr("node=\"alpha\""));
  }
  EXPECT_GT(series, 30);
}

TEST(Metrics, NamesFollowTheConventions) {
  Metrics metrics("vm1", "alpha", TestLabels());
  std::istringstream lines(metrics.Text());
  std::set<std::string> helped;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, what, name, rest;
    words >> hash >> what >> name;
    std::getline(words, rest);
    if (hash != "#") continue;
    EXPECT_THAT(name, testing::StartsWith("romulus_"));
    if (what == "HELP") {
      helped.insert(name);
      EXPECT_GT(rest.size(), 10u) << name;
    }
    if (what == "TYPE") {
      EXPECT_TRUE(helped.contains(name)) << name;
      EXPECT_EQ(rest == " counter", name.ends_with("_total")) << name;
      if (rest == " histogram") {
        EXPECT_TRUE(name.ends_with("_seconds")) << name;
      }
    }
  }
  EXPECT_GT(helped.size(), 25u);
}

TEST(Metrics, ExactlyOneRoleAndOneMode) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.SetRole(0);
  metrics.SetRole(1);
  EXPECT_EQ(ValueOf(metrics, "romulus_role", "role=\"primary\""), "0");
  EXPECT_EQ(ValueOf(metrics, "romulus_role", "role=\"secondary\""), "1");
  metrics.SetMode(1, 1'700'000'000'500);
  EXPECT_EQ(ValueOf(metrics, "romulus_mode", "mode=\"protected\""), "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_mode_timestamp_seconds", ""), "1700000000.5");
}

TEST(Metrics, AnIndexBeyondTheLabelsIsOther) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.SetFrameErrors(99, 1);
  EXPECT_EQ(ValueOf(metrics, "romulus_frame_errors_total", "kind=\"other\""), "1");
}

TEST(Metrics, ExitsAreTotals) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.SetExits(0, 5);
  metrics.SetExits(0, 9);
  metrics.SetExits(0, 3);  // a machine begun anew: a counter never falls
  EXPECT_EQ(ValueOf(metrics, "romulus_exits_total", "kind=\"io\""), "9");
}

TEST(Metrics, DevicesAreTotalsByNameAndNeedAResetOrNot) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.SetDevice(1, true, std::array<uint64_t, 2>{0, 3});
  metrics.SetDevice(1, false, std::array<uint64_t, 2>{0, 2});  // totals never fall
  metrics.SetDevice(0, true, std::array<uint64_t, 2>{1, 0});
  metrics.SetDevice(7, true, std::array<uint64_t, 2>{9, 9});  // there is none
  EXPECT_EQ(
      ValueOf(metrics, "romulus_device_faults_total", "device=\"virtio.net.0\",fault=\"status\""),
      "3");
  EXPECT_EQ(ValueOf(metrics, "romulus_device_faults_total",
                    "device=\"virtio.block.root\",fault=\"avail_index\""),
            "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_device_needs_reset", "device=\"virtio.net.0\""), "0");
  EXPECT_EQ(ValueOf(metrics, "romulus_device_needs_reset", "device=\"virtio.block.root\""), "1");
  metrics.SetDisk(0, {.reads = 1, .write_bytes = 512, .errors = 2});
  EXPECT_EQ(ValueOf(metrics, "romulus_disk_requests_total", "disk=\"root\",kind=\"read\""), "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_disk_bytes_total", "disk=\"root\",kind=\"write\""), "512");
  EXPECT_EQ(ValueOf(metrics, "romulus_disk_errors_total", "disk=\"root\""), "2");
  metrics.SetNic(0, {.frames_out = 5, .mac_clashes = 1, .held_bytes = 100});
  metrics.SetNic(0, {.frames_out = 6, .mac_clashes = 1, .held_bytes = 0, .cap_bytes_used = 64});
  EXPECT_EQ(ValueOf(metrics, "romulus_nic_frames_total", "direction=\"out\",nic=\"0\""), "6");
  EXPECT_EQ(ValueOf(metrics, "romulus_nic_mac_clashes_total", "nic=\"0\""), "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_nic_held_bytes", "nic=\"0\""), "0");
  EXPECT_EQ(ValueOf(metrics, "romulus_nic_buffer_used_bytes", "nic=\"0\""), "64");
}

TEST(Metrics, FailoverSaysWhy) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.Failover(/*by_operator=*/false, 500'000'000, 20'000'000, 1'700'000'000'500);
  EXPECT_EQ(ValueOf(metrics, "romulus_failovers_total", "cause=\"heartbeat\""), "1");
  EXPECT_EQ(ValueOf(metrics, "romulus_failover_detect_seconds", ""), "0.5");
  EXPECT_EQ(ValueOf(metrics, "romulus_failover_timestamp_seconds", ""), "1700000000.5");
}

TEST(Metrics, WhatIsMeasuredHasItsLimitBesideIt) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.SetLimits({.held_output_bytes = 1 << 20,
                     .held_frames_bytes = 1 << 17,
                     .disk_log_bytes = 3,
                     .staging_bytes = 4,
                     .unacked_epochs = 16,
                     .heartbeat_timeout_ns = 500'000'000});
  EXPECT_EQ(ValueOf(metrics, "romulus_held_output_limit_bytes", ""), "1048576");
  EXPECT_EQ(ValueOf(metrics, "romulus_nic_buffer_limit_bytes", "nic=\"0\""), "131072");
  EXPECT_EQ(ValueOf(metrics, "romulus_disk_log_limit_bytes", ""), "3");
  EXPECT_EQ(ValueOf(metrics, "romulus_staging_limit_bytes", ""), "4");
  EXPECT_EQ(ValueOf(metrics, "romulus_unacked_epochs_limit", ""), "16");
  EXPECT_EQ(ValueOf(metrics, "romulus_heartbeat_timeout_seconds", ""), "0.5");
}

TEST(Metrics, WhatIsNotThereHasNoSeries) {
  Labels labels = TestLabels();
  labels.paths = {"stream"};
  Metrics metrics("vm1", "alpha", labels);
  metrics.SetPath(0, {.heard = true});
  metrics.SetPath(1, {.heard = true});  // there is no second path
  metrics.SetArbiterUp(true);           // nor an arbiter
  EXPECT_EQ(ValueOf(metrics, "romulus_path_heard", "path=\"stream\""), "1");
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("path=\"other\"")));
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("romulus_arbiter_up")));

  labels.arbiters = {"etcd"};
  labels.version = "1.2.3";
  Metrics with("vm1", "alpha", labels);
  with.SetArbiterUp(true);
  EXPECT_EQ(ValueOf(with, "romulus_arbiter_up", "arbiter=\"etcd\""), "1");
  EXPECT_EQ(ValueOf(with, "romulus_build_info", "version=\"1.2.3\""), "1");
}

std::string Get(int port, const std::string& path) {
  namespace asio = boost::asio;
  asio::io_context io;
  asio::ip::tcp::socket socket(io);
  socket.connect({asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(port)});
  asio::write(socket,
              asio::buffer("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  std::string answer;
  boost::system::error_code end;
  asio::read(socket, asio::dynamic_buffer(answer), end);
  return answer;
}

TEST(Exposer, ServesTheText) {
  Metrics metrics("vm1", "alpha", TestLabels());
  metrics.SetTerm(12);
  auto exposer = Exposer::Listen("127.0.0.1:0", metrics);
  ASSERT_TRUE(exposer.ok()) << exposer.status();
  const std::string answer = Get((*exposer)->port(), "/metrics");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("romulus_term{node=\"alpha\",vm=\"vm1\"} 12"));
}

// The HTTP server looks whether it is to stop every two seconds unless it is woken: each of them
// would take that long, and on a busy machine not all need be quick.
TEST(Exposer, EndsWithoutWaitingForTheServersNextLook) {
  Metrics metrics("vm1", "alpha", TestLabels());
  auto quickest = std::chrono::steady_clock::duration::max();
  for (const char* address : {"127.0.0.1:0", "0.0.0.0:0"}) {
    for (int i = 0; i < 5; ++i) {
      auto exposer = Exposer::Listen(address, metrics);
      ASSERT_TRUE(exposer.ok()) << exposer.status();
      (void)Get((*exposer)->port(), "/metrics");  // it listens
      const auto begin = std::chrono::steady_clock::now();
      exposer->reset();
      quickest = std::min(quickest, std::chrono::steady_clock::now() - begin);
    }
  }
  EXPECT_LT(quickest, std::chrono::seconds(1));
}

TEST(Exposer, APortInUseIsNamed) {
  Metrics metrics("vm1", "alpha", TestLabels());
  auto first = Exposer::Listen("127.0.0.1:0", metrics);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = absl::StrCat("127.0.0.1:", (*first)->port());
  auto second = Exposer::Listen(address, metrics);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address + " is in use"));
}

TEST(Exposer, AddressesThatAreNone) {
  Metrics metrics("vm1", "alpha", TestLabels());
  for (const char* address : {"", "9100", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "[::1:5",
                              "nowhere.example:80", "127.0.0.1:-1"}) {
    auto exposer = Exposer::Listen(address, metrics);
    EXPECT_EQ(exposer.status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

}  // namespace
}  // namespace romulus::metrics
