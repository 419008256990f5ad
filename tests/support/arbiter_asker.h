// Asks an arbiter from a test's thread, on a control loop as the daemon has one.
#ifndef ROMULUS_TESTS_SUPPORT_ARBITER_ASKER_H_
#define ROMULUS_TESTS_SUPPORT_ARBITER_ASKER_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "daemon/asio_executor.h"
#include "failover/arbiter.h"

namespace romulus::testing {

inline constexpr char kVmUuid[] = "8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11";

inline failover::ArbiterIdentity ArbiterNode(const std::string& node) {
  return {"vm1", kVmUuid, node, node == "alpha" ? "beta" : "alpha", "test-build"};
}

class ArbiterAsker {
 public:
  using Make = std::function<absl::StatusOr<std::unique_ptr<failover::Arbiter>>(base::Executor*)>;

  explicit ArbiterAsker(const Make& make) {
    absl::StatusOr<std::unique_ptr<failover::Arbiter>> made = make(&loop_);
    ROMULUS_CHECK(made.ok());
    arbiter_ = *std::move(made);
  }
  ~ArbiterAsker() { Destroy(); }

  // The arbiter, on its loop.
  void Destroy() {
    OnLoop([this] { arbiter_.reset(); });
  }
  void OnLoop(const std::function<void()>& work) {
    absl::Notification done;
    loop_.Post([&] {
      work();
      done.Notify();
    });
    done.WaitForNotification();
  }
  failover::Arbiter& arbiter() { return *arbiter_; }

  // A question whose answer is awaited later.
  class Pending {
   public:
    failover::ArbiterAnswer Await() const {
      state_->done.WaitForNotification();
      return state_->answer;
    }
    bool answered() const { return state_->done.HasBeenNotified(); }

   private:
    friend class ArbiterAsker;
    struct State {
      absl::Notification done;
      failover::ArbiterAnswer answer;
    };
    failover::Arbiter::Done Callback() const {
      return [state = state_](failover::ArbiterAnswer answer) {
        state->answer = std::move(answer);
        state->done.Notify();
      };
    }
    std::shared_ptr<State> state_ = std::make_shared<State>();
  };

  Pending Begin(const failover::ArbiterClaim& claim, absl::Duration timeout = kLong) {
    Pending pending;
    OnLoop([&] {
      arbiter_->Claim(claim, timeout, pending.Callback());
      ROMULUS_CHECK(!pending.answered());
    });
    return pending;
  }
  failover::ArbiterAnswer Claim(const failover::ArbiterClaim& claim,
                                absl::Duration timeout = kLong) {
    return Begin(claim, timeout).Await();
  }
  failover::ArbiterAnswer Claim(uint64_t expected, uint64_t wanted,
                                absl::Duration timeout = kLong) {
    return Claim({failover::ClaimAction::kPromote, Term(expected), Term(wanted), Term(wanted)},
                 timeout);
  }
  Pending BeginWithdraw(const failover::ArbiterClaim& claim, absl::Duration timeout = kLong) {
    Pending pending;
    OnLoop([&] { arbiter_->Withdraw(claim, timeout, pending.Callback()); });
    return pending;
  }
  failover::ArbiterAnswer Withdraw(const failover::ArbiterClaim& claim,
                                   absl::Duration timeout = kLong) {
    return BeginWithdraw(claim, timeout).Await();
  }
  failover::ArbiterAnswer GiveBack(uint64_t held, absl::Duration timeout = kLong) {
    Pending pending;
    OnLoop([&] { arbiter_->GiveBack(Term(held), timeout, pending.Callback()); });
    return pending.Await();
  }
  failover::ArbiterAnswer Read(absl::Duration timeout = kLong) {
    Pending pending;
    OnLoop([&] { arbiter_->Read(timeout, pending.Callback()); });
    return pending.Await();
  }

  // Where an answer is sure to come.
  static constexpr absl::Duration kLong = absl::Seconds(60);
  // Where none is.
  static constexpr absl::Duration kShort = absl::Milliseconds(300);

 private:
  daemon::AsioExecutor loop_{/*own_thread=*/true};
  std::unique_ptr<failover::Arbiter> arbiter_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_ARBITER_ASKER_H_
