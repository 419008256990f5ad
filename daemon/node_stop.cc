// The node is told to stop: what becomes of the guest, and what it leaves.
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

using StopPolicy = romulus::v1::Stop;

constexpr absl::Duration kFlushTimeout = absl::Seconds(5);
constexpr uint64_t kMillisecond = 1'000'000;  // in nanoseconds
constexpr uint64_t kSecond = 1'000 * kMillisecond;
// What the service manager is told beyond what a step may take by itself: for the arbiter to be
// left, and for all to be closed.
constexpr uint64_t kMarginNs = 20 * kSecond;

}  // namespace

void Node::BeginStop() {
  if (stop_ != Stop::kNo) {
    log_.Warning("shutdown_forced");
    exit_ = true;
    return;
  }
  if (options_.manager != nullptr) options_.manager->Stopping();
  // A second signal ends the daemon at once.
  signals_.async_wait([this](const boost::system::error_code& error, int) {
    if (!error) BeginStop();
  });
  const failover::RoleState& state = role_.state();
  const bool has_guest =
      state.role == failover::Role::kPrimary && state.guest_running && host_ != nullptr;
  const StopPolicy::OnStop policy = config_.stop().on_stop();
  if (!has_guest || policy == StopPolicy::ON_STOP_END) return StopInPlace();
  if (policy == StopPolicy::ON_STOP_SHUT_DOWN) return StopByPowerButton();
  StopByHandOver();
}

void Node::StopByHandOver() {
  const failover::RoleState& state = role_.state();
  // The other node may run it by now: it can neither be handed over again nor be told anything.
  if (state.hand_over == failover::HandOver::kUnsure) return StopInPlace();
  if (state.mode != failover::Mode::kProtected) return StopByPowerButton();
  stop_ = Stop::kHandsOver;
  const uint64_t timeout_ns = config_.stop().hand_over_ms() * kMillisecond;
  // Last epoch and answer have that time each; a record's arbiter is asked before.
  const uint64_t longest_ns = 3 * timeout_ns;
  if (options_.manager != nullptr) options_.manager->Extend(longest_ns + kMarginNs);
  const auto answer = [this](const absl::StatusOr<romulus::v1::SwitchoverResponse>& response) {
    control_.Post([this, status = response.status()] { OnStopHandedOver(status); });
  };
  control_.PostAfter(longest_ns, [this] {
    OnStopHandedOver(absl::DeadlineExceededError("the hand-over did not come to an end"));
  });
  if (state.hand_over != failover::HandOver::kNone) {
    switchover_answers_.push_back(answer);  // an operator's is under way
    return;
  }
  StartSwitchover(timeout_ns, answer);
}

void Node::OnStopHandedOver(const absl::Status& status) {
  if (stop_ != Stop::kHandsOver) return;
  if (status.ok()) {
    stop_ = Stop::kEnds;
    log_.Info("left",
              {{"what", absl::StrCat("the guest was handed over: ", role_.state().reason)}});
    exit_ = true;
    return;
  }
  log_.Warning("hand_over_failed", {{"why", status}});
  if (role_.state().hand_over != failover::HandOver::kNone) return StopInPlace();
  StopByPowerButton();
}

void Node::StopByPowerButton() {
  const failover::RoleState& state = role_.state();
  const auto hopeless = [&]() -> absl::string_view {
    if (!state.guest_running || host_ == nullptr) return "no guest runs here";
    if (state.paused) return "it is paused";
    if (!host_->machine().pm().power_button_enabled()) return "it does not listen to ACPI";
    return "";
  };
  if (const absl::string_view why = hopeless(); !why.empty()) {
    log_.Info("guest_not_asked", {{"why", why}});
    return StopInPlace();
  }
  stop_ = Stop::kAsksGuest;
  const uint32_t seconds = config_.stop().shut_down_seconds();
  log_.Info("guest_asked_to_power_off", {{"patience_s", seconds}});
  if (options_.manager != nullptr) options_.manager->Extend(seconds * kSecond + kMarginNs);
  host_->machine().pm().PressPowerButton();
  control_.PostAfter(seconds * kSecond, [this] {
    if (stop_ != Stop::kAsksGuest) return;
    log_.Warning("guest_stays", {{"what", "it did not power off in time, and is ended"}});
    StopInPlace();
  });
}

// As the guest is. If it is protected it stands still before the last epoch is cut, so that the
// secondary holds all that it ever did.
void Node::StopInPlace() {
  stop_ = Stop::kEnds;
  if (options_.manager != nullptr) {
    options_.manager->Extend(static_cast<uint64_t>(absl::ToInt64Nanoseconds(kFlushTimeout)) +
                             kMarginNs);
  }
  const failover::RoleState& state = role_.state();
  if (state.hand_over == failover::HandOver::kDraining) {
    ends_with_last_epoch_ = true;  // OnLastEpoch goes on
    return;
  }
  if (state.role != failover::Role::kPrimary || state.mode != failover::Mode::kProtected ||
      state.hand_over != failover::HandOver::kNone || host_ == nullptr) {
    return FinishShutdown();
  }
  AfterLastEpoch(/*make_stand_still=*/true, [this] { FinishShutdown(); });
}

void Node::AfterLastEpoch(bool make_stand_still, std::function<void()> then) {
  helper_->Post([this, make_stand_still, then = std::move(then), host = host_] {
    absl::Status last;
    if (make_stand_still) last = host->SetPausedByOperator(true);
    if (last.ok()) last = host->loop().FlushLast(kFlushTimeout).status();
    control_.Post([this, last, then] {
      if (!last.ok()) log_.Warning("last_epoch_failed", {{"why", last}});
      then();
    });
  });
}

std::string Node::LeftBehind() const {
  const failover::RoleState& state = role_.state();
  if (state.role == failover::Role::kSecondary) {
    if (!state.committed) return "held no epoch";
    return absl::StrCat("held epoch ", state.committed_epoch.value(), " of term ",
                        state.term.value(),
                        " in memory: it is gone with this process; the primary needs a full sync");
  }
  if (host_ == nullptr || !state.guest_running) return "no guest was running";
  if (state.mode == failover::Mode::kProtected) {
    const uint64_t cut = host_->loop().last_cut().value();
    const uint64_t acked = host_->loop().last_acked().value();
    return absl::StrCat("guest stopped at epoch ", cut, " of term ", state.term.value(),
                        "; the secondary holds epoch ", acked,
                        ": `romulusctl failover` there goes on from it");
  }
  return absl::StrCat("guest stopped in mode ", std::string(failover::ModeName(state.mode)),
                      ": its memory is gone");
}

void Node::FinishShutdown() {
  LeaveArbiter([this] { End(); });
}

void Node::End() {
  const std::string left = LeftBehind();
  log_.Info("left", {{"what", left}});
  Handle(EventOf(failover::EventKind::kShutdown, left)).IgnoreError();
  exit_ = true;
}

}  // namespace romulus::daemon
