#include "daemon/ctl_events.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "daemon/clean_text.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

constexpr std::chrono::seconds kRestartPatience{30};
constexpr std::chrono::milliseconds kLookAgain{200};

std::string Level(v1::Severity severity) {
  return absl::AsciiStrToLower(absl::StripPrefix(v1::Severity_Name(severity), "SEVERITY_"));
}

}  // namespace

absl::StatusOr<uint64_t> ParseSince(absl::string_view text, absl::Time now) {
  absl::Duration ago;
  absl::Time at;
  std::string error;
  absl::string_view days_text = text;
  double days = 0;
  if (absl::ConsumeSuffix(&days_text, "d") && absl::SimpleAtod(days_text, &days) &&
      std::isfinite(days)) {
    ago = days * absl::Hours(24);
    at = now - ago;
  } else if (absl::ParseDuration(text, &ago)) {
    at = now - ago;
  } else if (!absl::ParseTime(absl::RFC3339_full, text, &at, &error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", CleanText(text), "' is neither a time ago (90s, 10m, 2h, 3d) nor one as ",
                     "2026-01-31T12:00:00Z"));
  }
  if (ago < absl::ZeroDuration() || at > now + absl::Hours(24)) {
    return absl::InvalidArgumentError(absl::StrCat("'", CleanText(text), "' is in the future"));
  }
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToUnixMillis(at)));
}

std::string EventsHeading() {
  return absl::StrFormat("%-24s %8s %5s %-7s %-22s %s\n", "time", "number", "term", "level",
                         "event", "what");
}

std::string FormatEvent(const v1::Event& event) {
  std::string text = CleanText(event.text());
  if (event.left_out() != 0) {
    absl::StrAppend(&text, " (", event.left_out(), " more of these before are left out)");
  }
  const absl::Time time =
      absl::FromUnixMillis(google::protobuf::util::TimeUtil::TimestampToMilliseconds(event.time()));
  return absl::StrFormat("%-24s %8d %5d %-7s %-22s %s\n",
                         absl::FormatTime("%E4Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone()),
                         event.number(), event.term(), Level(event.severity()),
                         CleanText(event.kind()), text);
}

grpc::Status ReadEvents(CtlClient& client, uint64_t since_unix_ms, uint32_t last,
                        std::vector<v1::Event>* events) {
  grpc::ClientContext context;
  client.SetDeadline(context);
  v1::ListEventsRequest request;
  request.set_since_unix_ms(since_unix_ms);
  request.set_last(last);
  const auto reader = client.stub().ListEvents(&context, request);
  v1::Event event;
  while (reader->Read(&event)) events->push_back(event);
  return reader->Finish();
}

int PrintEvents(CtlClient& client, const EventsWanted& wanted) {
  v1::ListEventsRequest request;
  request.set_last(wanted.last);
  request.set_follow(wanted.follow);
  if (!wanted.since.empty()) {
    const absl::StatusOr<uint64_t> since = ParseSince(wanted.since, absl::Now());
    if (!since.ok()) {
      std::fprintf(stderr, "romulusctl: --since: %s\n",
                   std::string(since.status().message()).c_str());
      return kExitUsage;
    }
    request.set_since_unix_ms(*since);
  }
  const bool json = client.arguments().json;
  bool heard = false;
  bool gone = false;
  std::chrono::steady_clock::time_point gone_since{};
  for (;;) {
    grpc::ClientContext context;
    if (!wanted.follow) client.SetDeadline(context);
    const auto reader = client.stub().ListEvents(&context, request);
    v1::Event event;
    while (reader->Read(&event)) {
      if (!json && !heard) std::fputs(EventsHeading().c_str(), stdout);
      std::fputs((json ? ToJsonLine(event) : FormatEvent(event)).c_str(), stdout);
      std::fflush(stdout);
      heard = true;
      request.set_after_number(event.number());
      request.set_last(0);
      gone = false;
    }
    const grpc::Status ended = reader->Finish();
    if (!wanted.follow || !heard) return ended.ok() ? kExitOk : client.Fail(ended);
    // Without an error it is about to end; nobody has said anything else yet.
    const auto now = std::chrono::steady_clock::now();
    if (!std::exchange(gone, true)) gone_since = now;
    const bool may_return = ended.ok() || ended.error_code() == grpc::StatusCode::UNAVAILABLE;
    if (!may_return || now - gone_since > kRestartPatience) {
      return client.Fail(
          ended.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "it ended the stream") : ended);
    }
    std::this_thread::sleep_for(kLookAgain);
  }
}

}  // namespace romulus::daemon
