#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "daemon/control_service.h"
#include "daemon/ctl_format.h"
#include "daemon/ctl_progress.h"
#include "romulus/v1/control.grpc.pb.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using ::testing::HasSubstr;

class FakeBackend : public ControlBackend {
 public:
  void GetStatus(Answer<v1::GetStatusResponse> answer) override {
    v1::GetStatusResponse status;
    status.set_vm_name("vm1");
    status.set_term(++asked_);
    answer(status);
  }
  void Failover(bool force, Answer<v1::FailoverResponse> answer) override {
    if (!force) return answer(absl::FailedPreconditionError("nothing to promote: no epoch"));
    v1::FailoverResponse response;
    response.set_epoch(7);
    answer(response);
  }
  void Switchover(uint32_t timeout_ms, Answer<v1::SwitchoverResponse> answer) override {
    if (timeout_ms != 5000) return answer(absl::FailedPreconditionError("not protected"));
    v1::SwitchoverResponse response;
    response.set_new_primary("beta");
    answer(response);
  }
  void Pause(Answer<v1::PauseResponse>) override {}  // never answers
  void Resume(Answer<v1::ResumeResponse> answer) override {
    answer(absl::UnavailableError("the arbiter does not answer"));
  }
  void SetProtection(bool wanted, bool, Answer<bool> answer) override { answer(wanted); }
  void ListEpochs(uint32_t, Answer<v1::ListEpochsResponse> answer) override {
    answer(v1::ListEpochsResponse());
  }
  void Set(const v1::Tunables& tunables, Answer<v1::SetResponse> answer) override {
    v1::SetResponse response;
    *response.mutable_tunables() = tunables;
    answer(response);
  }
  const EventJournal& events() const override { return journal; }
  const History& history() const override { return samples; }

  EventJournal journal{{.vm = "vm1", .node = "alpha"}};
  History samples{1000};

 private:
  std::atomic<uint64_t> asked_{0};
};

class ControlTest : public testing::Test {
 protected:
  ControlTest() {
    std::string pattern = testing::TempDir() + "/romulus-control-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    address_ = "unix://" + folder_ + "/sock";
    auto server = ControlServer::Listen(address_, &backend_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Control::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  }
  ~ControlTest() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  FakeBackend backend_;
  std::string folder_;
  std::string address_;
  std::unique_ptr<ControlServer> server_;
  std::unique_ptr<v1::Control::Stub> stub_;
};

TEST_F(ControlTest, AnswersAndRefusalsComeThrough) {
  grpc::ClientContext first;
  v1::FailoverResponse response;
  v1::FailoverRequest request;
  const grpc::Status refused = stub_->Failover(&first, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("nothing to promote"));
  request.set_force(true);
  grpc::ClientContext second;
  EXPECT_TRUE(stub_->Failover(&second, request, &response).ok());
  EXPECT_EQ(response.epoch(), 7u);
}

TEST_F(ControlTest, P8_ADaemonThatAnswersIsNotCalledUnavailable) {
  grpc::ClientContext context;
  v1::ResumeResponse response;
  const grpc::Status refused = stub_->Resume(&context, v1::ResumeRequest(), &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(refused.error_message(), "the arbiter does not answer");
}

TEST_F(ControlTest, AnAnswerThatNeverComesEndsWithTheDeadline) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  v1::PauseResponse response;
  EXPECT_EQ(stub_->Pause(&context, v1::PauseRequest(), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(ControlTest, WatchTellsChanges) {
  grpc::ClientContext context;
  v1::WatchStatusRequest request;
  request.set_min_period_ms(1);
  auto reader = stub_->WatchStatus(&context, request);
  v1::GetStatusResponse status;
  ASSERT_TRUE(reader->Read(&status));
  EXPECT_EQ(status.term(), 1u);
  server_->NotifyChanged();
  ASSERT_TRUE(reader->Read(&status));
  EXPECT_EQ(status.term(), 2u);
  server_->Shutdown();
  EXPECT_FALSE(reader->Read(&status));
}

TEST_F(ControlTest, P6_OneCallerHasSoManyThreadsAndNoMore) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GetStatusResponse>>> watchers;
  v1::WatchStatusRequest request;
  request.set_min_period_ms(60'000);
  v1::GetStatusResponse status;
  const auto watch = [&] {
    watchers.push_back(stub_->WatchStatus(contexts.back().get(), request));
    return watchers.back()->Read(&status);
  };
  for (int i = 0; i < 8; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    ASSERT_TRUE(watch()) << i;
  }
  contexts.push_back(std::make_unique<grpc::ClientContext>());
  contexts.back()->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  EXPECT_FALSE(watch());
  // It waited for a place, which there is again.
  contexts[0]->TryCancel();
  contexts.push_back(std::make_unique<grpc::ClientContext>());
  EXPECT_TRUE(watch());
  server_->Shutdown();
}

TEST_F(ControlTest, EventsAreToldAndFollowed) {
  backend_.journal.OnLogged(v1::SEVERITY_INFO, "started", {{"build", "one"}});
  backend_.journal.OnLogged(v1::SEVERITY_INFO, "started", {{"build", "two"}});
  const auto texts = [this](const v1::ListEventsRequest& request) {
    grpc::ClientContext context;
    auto reader = stub_->ListEvents(&context, request);
    std::vector<std::string> said;
    v1::Event event;
    while (reader->Read(&event)) said.push_back(event.text());
    EXPECT_TRUE(reader->Finish().ok());
    return said;
  };
  v1::ListEventsRequest request;
  EXPECT_THAT(texts(request),
              testing::ElementsAre("the daemon started, one", "the daemon started, two"));
  request.set_last(1);
  EXPECT_THAT(texts(request), testing::ElementsAre("the daemon started, two"));

  request.set_follow(true);
  grpc::ClientContext context;
  auto reader = stub_->ListEvents(&context, request);
  v1::Event event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.number(), 2u);
  backend_.journal.OnLogged(v1::SEVERITY_ERROR, "fenced", {{"why", "over"}});
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.kind(), "fenced");
  server_->Shutdown();
  EXPECT_FALSE(reader->Read(&event));
}

TEST_F(ControlTest, WhoKnowsMoreThanThereIsHearsAll) {
  // The journal in memory of a daemon that was restarted begins anew.
  backend_.journal.OnLogged(v1::SEVERITY_INFO, "started", {{"build", "one"}});
  v1::ListEventsRequest request;
  request.set_after_number(1000);
  grpc::ClientContext context;
  auto reader = stub_->ListEvents(&context, request);
  v1::Event event;
  EXPECT_TRUE(reader->Read(&event));
}

TEST_F(ControlTest, AnAddressInUseIsNotTaken) {
  const auto second = ControlServer::Listen(address_, &backend_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  v1::GetStatusResponse status;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->GetStatus(&context, v1::GetStatusRequest(), &status).ok());
}

TEST(Format, StatusSaysRoleModeAndWhy) {
  v1::GetStatusResponse status;
  status.set_vm_name("vm1");
  status.set_role(v1::ROLE_PRIMARY);
  status.set_mode(v1::MODE_PROTECTED);
  status.set_reason("the secondary acks epochs");
  status.mutable_pause()->set_p50_ns(123'400);
  status.mutable_last_failover()->set_detect_ns(400'000'000);
  const std::string text = FormatStatus(status);
  EXPECT_THAT(text, HasSubstr("protected since"));
  EXPECT_THAT(text, HasSubstr("the secondary acks epochs"));
  EXPECT_THAT(text, HasSubstr("123.4 us"));
  EXPECT_THAT(text, HasSubstr("detected in 400.0 ms"));
}

TEST(Format, DevicesSayWhatTheyDidAndWhatWasDoneToThem) {
  v1::GetStatusResponse status;
  status.set_role(v1::ROLE_PRIMARY);
  v1::DeviceStatus& disk = *status.add_devices();
  disk.set_name("virtio.block.root");
  (*disk.mutable_counters())["reads"] = 7;
  (*disk.mutable_faults())["avail_index"] = 2;
  disk.set_needs_reset(true);
  status.add_devices()->set_name("virtio.rng");
  const std::string text = FormatStatus(status);
  EXPECT_THAT(text, HasSubstr("reads 7; faults: avail_index 2; needs a reset\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("virtio.rng +none"));
}

TEST(Format, ASwitchoverSaysWhereToAndHowLong) {
  v1::SwitchoverResponse response;
  response.set_new_primary("beta");
  response.set_epoch(7);
  response.set_from_term(16);
  response.set_term(65);
  response.set_pause_ns(12'340'000);
  EXPECT_EQ(
      FormatSwitchover(response),
      "beta runs the guest in term 65, from epoch 7 of term 16; it stood still for 12.3 ms\n");
  v1::GetStatusResponse status;
  status.mutable_last_switchover()->set_result("refused");
  status.mutable_last_switchover()->set_detail("the arbiter is away");
  EXPECT_THAT(FormatStatus(status), HasSubstr("refused: the arbiter is away"));
}

TEST(Progress, IsABarOnATerminalAndSeldomLinesElsewhere) {
  v1::GetStatusResponse status;
  status.set_mode(v1::MODE_SYNCING);
  v1::SyncProgress& sync = *status.mutable_sync();
  sync.set_active(true);
  sync.set_pages_total(200);
  sync.set_pages_done(50);
  EXPECT_EQ(ProgressText(status, 80),
            "syncing [#########...........................]  25 %, 50 of 200 pages");
  EXPECT_LE(ProgressText(status, 30).size(), 29u);  // never wraps
  std::string said;
  const auto say = [&said](const std::string& text) { said += text; };
  ProgressPrinter bar(/*terminal_columns=*/80, say);
  bar.Show(status);
  bar.Show(status);
  EXPECT_EQ(said, "\r\x1b[K" + ProgressText(status, 80));
  bar.End();
  EXPECT_TRUE(said.ends_with("pages\n"));
  said.clear();
  ProgressPrinter lines(/*terminal_columns=*/0, say);
  for (uint64_t done = 50; done <= 200; ++done) {
    sync.set_pages_done(done);
    lines.Show(status);
  }
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 9);
  EXPECT_EQ(said.find('\r'), std::string::npos);
  // Disks come first, and a sync says nothing of the time when it had no total.
  sync.set_pages_total(0);
  sync.set_disk_bytes_total(1 << 20);
  sync.set_disk_bytes_done(1 << 19);
  EXPECT_THAT(ProgressText(status, 80), HasSubstr(" 50 %, 512 of 1024 KiB of disks"));
  status.Clear();
  status.set_mode(v1::MODE_SOLO);
  status.set_reason("full sync is not begun");
  EXPECT_EQ(ProgressText(status, 80), "solo: full sync is not begun");
}

TEST(Format, EpochsAreAColumnPerPhase) {
  v1::ListEpochsResponse response;
  EXPECT_EQ(FormatEpochs(response), "no epochs yet\n");
  v1::EpochRecord& record = *response.add_epochs();
  record.set_reason("budget");
  record.set_pause_ns(250'000);
  v1::PhaseTime& phase = *record.add_phases();
  phase.set_phase("harvest");
  phase.set_ns(15'000);
  const std::string text = FormatEpochs(response);
  EXPECT_THAT(text, HasSubstr("harvest"));
  EXPECT_THAT(text, HasSubstr("budget"));
  EXPECT_THAT(text, HasSubstr(" 250 "));
}

}  // namespace
}  // namespace romulus::daemon
