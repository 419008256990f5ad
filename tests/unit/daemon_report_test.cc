#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/ctl_format.h"
#include "daemon/ctl_report.h"
#include "daemon/ctl_screen.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHostile[] = "</td><script>alert(1)</script>\"'&<img src=http://192.0.2.1/x>\x1b[2J";

ReportData Sample() {
  ReportData data;
  data.status.set_vm_name("web1");
  data.status.set_node_name("alpha");
  data.status.set_mode(v1::MODE_PROTECTED);
  data.history.set_period_ms(1000);
  for (uint64_t i = 0; i < 10; ++i) {
    v1::HistorySample& sample = *data.history.add_samples();
    sample.set_unix_ms(1'000'000 + 1000 * i);
    sample.set_mode(v1::MODE_PROTECTED);
    sample.set_epochs_per_second(static_cast<double>(i));
  }
  return data;
}

TEST(Report, HasGraphsEventsAndState) {
  ReportData data = Sample();
  v1::Event& event = data.events.emplace_back();
  event.set_kind("promoted");
  event.set_text("the guest runs here");
  const std::string page = ReportPage(data);
  EXPECT_THAT(page, HasSubstr("<h1>web1 on alpha</h1>"));
  EXPECT_THAT(page, HasSubstr("<polyline class=\"a\" points=\"0.0,120.0 100.0,106.7 "));
  EXPECT_THAT(page, HasSubstr("900.0,0.0 \"/>"));
  EXPECT_THAT(page, HasSubstr("<td>promoted</td><td>the guest runs here</td>"));
  EXPECT_THAT(page, HasSubstr("class=\"mode-protected\""));
}

TEST(Report, TextOfOthersStaysText) {
  ReportData data = Sample();
  data.status.set_reason(kHostile);
  data.status.mutable_peer()->set_node_name(kHostile);
  data.status.set_vm_name(kHostile);
  data.status.set_build(kHostile);
  v1::DeviceStatus& device = *data.status.add_devices();
  device.set_name(kHostile);
  (*device.mutable_faults())[kHostile] = 1;
  v1::Event& event = data.events.emplace_back();
  event.set_kind(kHostile);
  event.set_text(kHostile);
  const std::string page = ReportPage(data);
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  EXPECT_THAT(page, Not(HasSubstr("\x1b")));
  EXPECT_THAT(page, HasSubstr("&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
}

TEST(Report, NumbersThatAreNoneDrawNothingOutside) {
  ReportData data = Sample();
  data.history.mutable_samples(3)->set_epochs_per_second(std::nan(""));
  data.history.mutable_samples(4)->set_epochs_per_second(HUGE_VAL);
  data.history.mutable_samples(5)->set_epochs_per_second(-5);
  data.history.mutable_samples(6)->set_unix_ms(0);  // the clock was set back
  const std::string page = ReportPage(data);
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_THAT(page, Not(HasSubstr("inf,")));
  EXPECT_THAT(page, Not(HasSubstr("points=\"-")));
  EXPECT_THAT(ReportPage({}), HasSubstr("no samples yet"));
}

TEST(Screen, SparklinesAreScaledToTheirGreatest) {
  EXPECT_EQ(Sparkline({0, 50, 100}, 5, /*utf8=*/true), "  ▁▅█");
  EXPECT_EQ(Sparkline({0, 50, 100}, 2, /*utf8=*/false), "=#");
  EXPECT_EQ(Sparkline({0, 0}, 2, true), "▁▁");
  EXPECT_EQ(Sparkline({}, 3, true), "   ");
}

TEST(Screen, RatesStartOverWithTheirCounters) {
  RecentRates recent;
  v1::GetStatusResponse status;
  status.mutable_counters()->set_epochs_acked(100);
  status.mutable_pause()->set_p99_ns(5000);
  recent.Add(status, 1'000'000'000);
  status.mutable_counters()->set_epochs_acked(150);
  recent.Add(status, 1'500'000'000);
  status.mutable_counters()->set_epochs_acked(10);
  recent.Add(status, 2'000'000'000);
  EXPECT_THAT(recent.epochs_per_second(), testing::ElementsAre(0, 100, 0));
  EXPECT_THAT(recent.pause_p99_us(), testing::ElementsAre(0, 5, 0));
}

TEST(Screen, SaysWhatIsAndWhatWas) {
  v1::GetStatusResponse status;
  status.set_vm_name("web1");
  status.set_role(v1::ROLE_PRIMARY);
  status.set_mode(v1::MODE_DEGRADED);
  status.set_reason("alone\x1b[31m");
  v1::Event older, newer;
  older.set_kind("started");
  newer.set_kind("peer_silent");
  const auto lines = ScreenLines(status, RecentRates(), {older, newer}, 80, false);
  EXPECT_THAT(lines[1], HasSubstr("primary, degraded"));
  EXPECT_EQ(lines[2], "alone\uFFFD[31m");
  EXPECT_THAT(lines[lines.size() - 2], HasSubstr("peer_silent"));
  EXPECT_THAT(lines.back(), HasSubstr("started"));
  EXPECT_EQ(MoodOf(status.mode()), Mood::kBad);
}

TEST(Format, ThePeerHasHowItIsSentTo) {
  v1::GetStatusResponse status;
  status.mutable_peer()->set_node_name("beta");
  EXPECT_THAT(FormatStatus(status), Not(HasSubstr("compression")));
  status.mutable_peer()->set_compression("none");
  EXPECT_THAT(FormatStatus(status), HasSubstr("compression"));
  EXPECT_THAT(FormatStatus(status), Not(HasSubstr("MB/s")));
  status.mutable_peer()->set_compression("lz4");
  status.mutable_peer()->set_link_bytes_per_second(12'340'000);
  EXPECT_THAT(FormatStatus(status), HasSubstr("lz4, the link achieves 12.3 MB/s"));
}

TEST(Format, TheCertificateHasDaysLeft) {
  v1::GetStatusResponse status;
  EXPECT_THAT(FormatStatus(status), Not(HasSubstr("certificate")));
  status.mutable_tls()->set_name("alpha");
  status.mutable_tls()->set_expires_unix_s(absl::ToUnixSeconds(absl::Now()) + 10 * 86'400 + 60);
  (*status.mutable_tls()->mutable_refused())["wrong_name"] = 2;
  EXPECT_THAT(FormatStatus(status), HasSubstr("alpha, expires in 10 days, on "));
  EXPECT_THAT(FormatStatus(status), HasSubstr("wrong_name 2"));
  status.mutable_tls()->set_expires_unix_s(1000);
  EXPECT_THAT(FormatStatus(status), HasSubstr("alpha, EXPIRED on 1970-01-01"));
  status.mutable_tls()->set_insecure(true);
  EXPECT_THAT(FormatStatus(status), HasSubstr("INSECURE"));
}

}  // namespace
}  // namespace romulus::daemon
