#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/clean_text.h"
#include "daemon/ctl_events.h"
#include "daemon/event_journal.h"
#include "daemon/history.h"
#include "daemon/refused_config.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TestClock final : public base::Clock {
 public:
  uint64_t NowNs() const override { return now_ns; }
  uint64_t now_ns = 1'000'000'000'000;
};

class JournalTest : public testing::Test {
 protected:
  JournalTest() {
    std::string pattern = testing::TempDir() + "/romulus-events-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    path_ = folder_ + "/vm1.alpha.events.jsonl";
  }
  ~JournalTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<EventJournal> Open(uint64_t max_bytes = 1u << 20) {
    return std::make_unique<EventJournal>(EventJournal::Options{
        .vm = "vm1", .node = "alpha", .folder = folder_, .max_bytes = max_bytes, .clock = &clock_});
  }
  static void Add(EventJournal& journal, const std::string& what) {
    journal.OnLogged(v1::SEVERITY_INFO, "left", {{"what", what}});
  }
  static std::vector<std::string> Texts(const EventJournal& journal) {
    std::vector<std::string> texts;
    for (const v1::Event& event : journal.After(0, 1'000'000)) texts.push_back(event.text());
    return texts;
  }
  void Put(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
  std::string File(const std::string& end = "") const {
    std::ifstream file(path_ + end);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  TestClock clock_;
  std::string folder_;
  std::string path_;
};

TEST_F(JournalTest, SurvivesARestartAndCountsOn) {
  {
    const auto journal = Open();
    journal->SetTerm(3);
    Add(*journal, "one");
    journal->OnLogged(v1::SEVERITY_ERROR, "fenced", {{"why", "a {what} = \"b\"\n"}});
    journal->OnLogged(v1::SEVERITY_INFO, "no such event", {});
  }
  const auto journal = Open();
  EXPECT_TRUE(journal->file_status().ok()) << journal->file_status();
  Add(*journal, "three");
  const std::vector<v1::Event> events = journal->After(0, 100);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1].text(), "this node lost the term, its guest was stopped: a {what} = \"b\"");
  EXPECT_EQ(events[1].fields().at("why"), "a {what} = \"b\" ");
  EXPECT_EQ(events[1].severity(), v1::SEVERITY_ERROR);
  EXPECT_EQ(events[1].term(), 3u);
  EXPECT_EQ(events[2].number(), 3u);
  EXPECT_EQ(journal->unreadable_lines(), 0u);
}

TEST_F(JournalTest, AConfigurationThatIsRefusedLeavesAnEvent) {
  const std::string nodes = R"(nodes { name: "alpha" } nodes { name: "beta" } )";
  const std::string good = R"(name: "vm1" )" + nodes;
  const auto refuse = [this](const std::string& text, const std::string& node = "alpha") {
    ConfigOptions options;
    options.node = node;
    options.check_files = false;
    const LoadedConfig loaded = ParseConfig(text, "vm1.textproto", options);
    ASSERT_FALSE(loaded.ok());
    LeaveRefused(loaded, node, folder_);
  };
  refuse(good + "checkpoint { max_dirty_pages: 0 }");
  refuse(good + "guest {\n  vcpus: many }");  // from here on nothing was read
  // Whose journal it would be is not sure.
  refuse(R"(name: "../vm1" )" + nodes);
  refuse(good, "gamma");
  refuse(good, "../../alpha");
  refuse(nodes);
  refuse("nodes { " + good);
  refuse(good + R"(events { folder: "{node}" } guest { vcpus: many })");
  refuse("");
  const auto journal = Open();
  const std::vector<std::string> texts = Texts(*journal);
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_THAT(texts[0], HasSubstr("the configuration was refused"));
  EXPECT_THAT(texts[0], HasSubstr("errors more"));
  EXPECT_THAT(texts[1], HasSubstr("vm1.textproto:2:"));
  EXPECT_EQ(journal->After(0, 1)[0].severity(), v1::SEVERITY_ERROR);
  // While a daemon has the journal it is left alone.
  refuse(good);
  EXPECT_THAT(Texts(*journal), testing::SizeIs(2));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(JournalTest, ATornTailCostsOneLine) {
  {
    const auto journal = Open();
    Add(*journal, "one");
    Add(*journal, "two");
  }
  const std::string whole = File();
  std::filesystem::resize_file(path_, whole.size() - 9);
  {
    const auto journal = Open();
    EXPECT_EQ(journal->unreadable_lines(), 1u);
    Add(*journal, "three");
    EXPECT_THAT(Texts(*journal), ElementsAre("one", "three"));
  }
  EXPECT_THAT(Texts(*Open()), ElementsAre("one", "three"));
}

TEST_F(JournalTest, HostileLinesAreSkipped) {
  {
    const auto journal = Open();
    Add(*journal, "one");
  }
  const std::string deep(2000, '[');
  const std::string time = R"("time":"2026-01-01T00:00:00Z",)";
  Put("\n\x01\xff\xfe\n{}\n" + deep + "\n" + std::string(100'000, 'x') + "\n");
  Put("{" + time +
      R"("number":"18446744073709551615"})"
      "\n");  // leaves no number
  Put("{" + time +
      R"("number":"1","text":"again"})"
      "\n");  // goes back
  Put(R"({"number":"2","time":"9999999-01-01T00:00:00Z"})"
      "\n");  // no time
  Put("{" + time +
      R"("number":"5","text":"\u001b[2Jx","later":{"a":1}})"
      "\n");  // of a later version
  std::string many = "{" + time + R"("number":"6","fields":{)";
  for (int i = 0; i < 100; ++i) many += "\"f" + std::to_string(i) + "\":\"\",";
  many.back() = '}';
  Put(many + "}\n");
  const auto journal = Open();
  EXPECT_THAT(Texts(*journal), ElementsAre("one", "\uFFFD[2Jx"));
  EXPECT_EQ(journal->unreadable_lines(), 8u);
  Add(*journal, "six");
  EXPECT_EQ(journal->last_number(), 6u);
}

TEST_F(JournalTest, TwoFilesAreTheBound) {
  constexpr uint64_t kMax = 16u << 10;
  {
    const auto journal = Open(kMax);
    for (int i = 0; i < 300; ++i) {
      clock_.now_ns += 60'000'000'000;
      const std::string mark = absl::StrCat("no. ", i, "!");
      Add(*journal, std::string(200, 'x') + mark);
      // What is not written yet is bounded, too.
      while (i % 10 == 9 && File().find(mark) == std::string::npos) std::this_thread::yield();
    }
    EXPECT_TRUE(journal->file_status().ok()) << journal->file_status();
  }
  EXPECT_LE(File().size(), kMax);
  EXPECT_LE(File(".1").size(), kMax);
  EXPECT_GT(File(".1").size(), kMax / 2);
  const auto journal = Open(kMax);
  EXPECT_EQ(journal->last_number(), 300u);
  EXPECT_EQ(journal->unreadable_lines(), 0u);
  EXPECT_GT(Texts(*journal).size(), 15u)
      << "at least the older file: half its size, in lines of half a KiB";
}

TEST_F(JournalTest, AFileOfAnyLengthIsReadFromItsEnd) {
  {
    const auto journal = Open();
    for (int i = 0; i < 50; ++i) Add(*journal, std::to_string(i));
  }
  const std::string before = File();
  std::ofstream(path_) << std::string(3u << 20, 'x') << "\n" << before;
  EXPECT_EQ(Open(1u << 14)->last_number(), 50u);
}

TEST_F(JournalTest, WhatIsNoFileIsNotUsed) {
  for (const char* what : {"pipe", "folder", "link"}) {
    std::filesystem::remove_all(path_);
    const std::string kind = what;
    if (kind == "pipe") ::mkfifo(path_.c_str(), 0600);
    if (kind == "folder") std::filesystem::create_directory(path_);
    if (kind == "link") std::filesystem::create_symlink("/dev/null", path_);
    const auto journal = Open();
    EXPECT_FALSE(journal->file_status().ok()) << what;
    EXPECT_THAT(std::string(journal->file_status().message()), HasSubstr(path_)) << what;
    Add(*journal, "still here");
    EXPECT_THAT(Texts(*journal), ElementsAre("still here"));
  }
}

TEST_F(JournalTest, OneProcessHasIt) {
  const auto first = Open();
  const auto second = Open();
  EXPECT_EQ(second->file_status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JournalTest, AFullDiskIsToldAndTheJournalGoesOn) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  {
    const auto journal = Open();
    Add(*journal, "one");
    while (File().empty()) std::this_thread::yield();
    rlimit full = before;
    full.rlim_cur = File().size() + 10;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
    Add(*journal, "two");
    while (journal->file_status().ok()) std::this_thread::yield();
    EXPECT_THAT(std::string(journal->file_status().message()), HasSubstr(path_));
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    Add(*journal, "three");
    EXPECT_THAT(Texts(*journal), ElementsAre("one", "two", "three"));
  }
  EXPECT_THAT(Texts(*Open()), ElementsAre("one", "three"));
}

TEST_F(JournalTest, NobodyWashesTheOthersOut) {
  const auto journal = Open();
  Add(*journal, "precious");
  for (int i = 0; i < 100'000; ++i) {
    journal->OnLogged(v1::SEVERITY_WARNING, "tls_refused", {{"from", std::to_string(i)}});
  }
  EXPECT_LT(Texts(*journal).size(), 100u);
  EXPECT_EQ(Texts(*journal).front(), "precious");
  clock_.now_ns += 30'000'000'000;
  journal->OnLogged(v1::SEVERITY_WARNING, "tls_refused", {{"from", "the last"}});
  EXPECT_EQ(journal->After(0, 1000).back().left_out(), 100'000u - 60);
}

TEST_F(JournalTest, WhatRepeatsIsOneEvent) {
  const auto journal = Open();
  for (int i = 0; i < 5; ++i) Add(*journal, "again");
  journal->OnLogged(v1::SEVERITY_INFO, "guest_started", {});
  Add(*journal, "again");
  const std::vector<v1::Event> events = journal->After(0, 10);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[2].left_out(), 4u);
}

TEST_F(JournalTest, AsManyAsWanted) {
  const auto journal = Open();
  for (const char* text : {"a", "b", "c", "d"}) Add(*journal, text);
  EXPECT_EQ(journal->Before(0, 0), 0u);
  EXPECT_EQ(journal->Before(0, 3), 1u);
  EXPECT_EQ(journal->Before(absl::ToUnixMillis(absl::Now()) + 60'000, 0), 4u);
  EXPECT_EQ(journal->After(1, 2).size(), 2u);
  EXPECT_TRUE(journal->Await(3, absl::Seconds(60)));
  EXPECT_FALSE(journal->Await(4, absl::ZeroDuration()));
}

TEST(EventFolder, IsWhereTheConfigurationOrTheUnitSays) {
  v1::Config config;
  EXPECT_EQ(EventFolder(config, ""), "");
  v1::Disk& disk = *config.mutable_guest()->add_disks();
  disk.set_path("/srv/vm/root.img");
  disk.set_read_only(true);
  EXPECT_EQ(EventFolder(config, ""), "");
  disk.set_read_only(false);
  EXPECT_EQ(EventFolder(config, ""), "/srv/vm");
  disk.set_state_dir("/var/lib/other");
  EXPECT_EQ(EventFolder(config, ""), "/var/lib/other");
  EXPECT_EQ(EventFolder(config, "/var/lib/romulus:/var/lib/b"), "/var/lib/romulus");
  config.mutable_events()->set_folder("/var/log/romulus");
  EXPECT_EQ(EventFolder(config, "/var/lib/romulus"), "/var/log/romulus");
}

TEST(CleanText, LeavesNothingThatWritesElsewhere) {
  EXPECT_EQ(CleanText("Grüße, 世界"), "Grüße, 世界");
  EXPECT_EQ(CleanText("a\nb\tc"), "a b c");
  EXPECT_EQ(CleanText("\x1b[2J\x7f"), "\uFFFD[2J\uFFFD");
  EXPECT_EQ(CleanText("\xff\xc3"), "\uFFFD\uFFFD");
  EXPECT_EQ(CleanText("\xe2\x80\xae"
                      "evil\xc2\x9b"),
            "\uFFFDevil\uFFFD");
  EXPECT_EQ(CleanText("0123456789", 8), "01234...");
  EXPECT_EQ(CleanText("ääää", 6), "ä...");
}

TEST(Since, AgoOrATime) {
  const absl::Time now = absl::FromUnixSeconds(1'000'000);
  EXPECT_EQ(*ParseSince("90s", now), 999'910'000u);
  EXPECT_EQ(*ParseSince("2h30m", now), 991'000'000u);
  EXPECT_EQ(*ParseSince("1.5d", now), 870'400'000u);
  EXPECT_EQ(*ParseSince("9999d", now), 0u);
  EXPECT_EQ(*ParseSince("1970-01-02T00:00:00Z", now), 86'400'000u);
  for (const char* bad : {"", "x", "10", "-5m", "d", "2099-01-01T00:00:00Z", "nand", "infd"}) {
    EXPECT_FALSE(ParseSince(bad, now).ok()) << bad;
  }
}

TEST(History, RatesAreThoseOfThePeriod) {
  History history(1000);
  v1::GetStatusResponse status;
  status.set_mode(v1::MODE_PROTECTED);
  status.mutable_pause()->set_p99_ns(7000);
  status.mutable_counters()->set_epochs_acked(100);
  status.mutable_counters()->set_pages(1000);
  history.Add(status, 1'000'000'000, 5000);
  status.mutable_counters()->set_epochs_acked(120);
  status.mutable_counters()->set_pages(1200);
  history.Add(status, 3'000'000'000, 7000);
  history.Add(status, 4'000'000'000, 8000);  // nothing more
  status.mutable_counters()->set_epochs_acked(1);
  history.Add(status, 5'000'000'000, 9000);  // another node
  const v1::GetHistoryResponse all = history.Since(0);
  ASSERT_EQ(all.samples_size(), 4);
  EXPECT_EQ(all.samples(0).epochs_per_second(), 0);
  EXPECT_EQ(all.samples(1).epochs_per_second(), 10);
  EXPECT_EQ(all.samples(1).pages_per_epoch(), 10);
  EXPECT_EQ(all.samples(1).pause_p99_ns(), 7000u);
  EXPECT_EQ(all.samples(2).pause_p99_ns(), 0u);
  EXPECT_EQ(all.samples(3).epochs_per_second(), 0);
  EXPECT_EQ(history.Since(8000).samples_size(), 2);
}

TEST(History, IsBounded) {
  History history(1000);
  for (uint64_t i = 0; i < History::kCapacity + 10; ++i) history.Add({}, i, i);
  EXPECT_EQ(history.Since(0).samples_size(), static_cast<int>(History::kCapacity));
  EXPECT_EQ(history.Since(0).samples(0).unix_ms(), 10u);
}

}  // namespace
}  // namespace romulus::daemon
