#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/log.h"

namespace romulus::daemon {
namespace {

using ::testing::HasSubstr;

TEST(LogField, PlainValuesStayPlain) {
  EXPECT_EQ(LogField("term", uint64_t{17}).text(), "term=17");
  EXPECT_EQ(LogField("mode", "protected").text(), "mode=protected");
  EXPECT_EQ(LogField("ok", true).text(), "ok=true");
  EXPECT_EQ(LogField("empty", "").text(), "empty=\"\"");
}

TEST(LogField, TextOfOthersCannotForgeALine) {
  EXPECT_EQ(LogField("peer", "x\ntime=1 level=info").text(), "peer=\"x\\ntime=1 level=info\"");
  EXPECT_EQ(LogField("peer", "a\"b").text(), "peer=\"a\\\"b\"");
  EXPECT_EQ(LogField("peer", "\x1b[2J").text(), "peer=\"\\033[2J\"");
}

TEST(Log, OneLinePerEvent) {
  testing::internal::CaptureStderr();
  Log log(romulus::v1::LOG_LEVEL_INFO, "vm1", "alpha");
  log.Debug("hidden");
  log.Info("mode", {{"was", "solo"}, {"why", absl::UnavailableError("no answer")}});
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("level=info event=mode vm=vm1 node=alpha was=solo "
                              "why=\"UNAVAILABLE: no answer\"\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(text.rfind("time=20", 0), 0u);
}

}  // namespace
}  // namespace romulus::daemon
