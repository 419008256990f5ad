#include "arbiter/etcd_arbiter.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "arbiter/etcd_grpc.h"
#include "arbiter/record.h"
#include "base/clock.h"
#include "base/small_file.h"
#include "base/status.h"

namespace romulus::arbiter {
namespace {

using failover::ArbiterAnswer;
using failover::ArbiterClaim;
using failover::ArbiterRecord;
using failover::Verdict;

constexpr size_t kMaxEndpoints = 16;
constexpr size_t kMaxQuestions = 8;
constexpr size_t kMaxTokenBytes = 8 << 10;
constexpr size_t kMaxSaidBytes = 200;  // of a member's words in a detail
constexpr absl::Duration kLongest = absl::Minutes(10);
// Between rounds through the endpoints; doubles.
constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Milliseconds(500);
// For one member of several, however much time there is; doubles with each round.
constexpr absl::Duration kFirstPatience = absl::Seconds(1);

std::string Said(const absl::Status& status) {
  return absl::CHexEscape(absl::ClippedSubstr(status.message(), 0, kMaxSaidBytes));
}

// What etcd says in these cases (its rpctypes).
bool IsTokenOver(const absl::Status& status) {
  return absl::IsUnauthenticated(status) ||
         (absl::IsInvalidArgument(status) &&
          absl::StrContains(status.message(), "revision of auth store is old"));
}
bool WantsUser(const absl::Status& status) {
  return absl::IsInvalidArgument(status) &&
         absl::StrContains(status.message(), "user name is empty");
}
bool HasNoAuth(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) &&
         absl::StrContains(status.message(), "authentication is not enabled");
}
bool IsWrongPassword(const absl::Status& status) {
  return absl::IsInvalidArgument(status) &&
         absl::StrContains(status.message(), "authentication failed");
}

struct Question {
  // What the record as it is means for this question; null: a read.
  std::function<failover::ClaimRule(const ArbiterRecord& now)> rule;
  std::optional<ArbiterClaim> claim;  // of a claim
  bool over = false;                  // answered: what still comes for it means nothing
  failover::Arbiter::Done done;
  absl::Duration timeout;
  uint64_t end_ns = 0;

  absl::Duration pause = kFirstPause;
  absl::Duration patience = kFirstPatience;
  size_t first = 0;      // endpoint of this round
  size_t tries = 0;      // in this round, the one under way included
  size_t strangers = 0;  // that answered in this round, but not for our cluster
  size_t endpoint = 0;   // being tried
  uint64_t try_end_ns = 0;
  bool renewed = false;           // the token, in this try
  std::vector<std::string> said;  // by endpoint: why it was of no use last
};
using QuestionPtr = std::shared_ptr<Question>;

class EtcdArbiter final : public failover::Arbiter {
 public:
  EtcdArbiter(const EtcdOptions& options, std::string password, const EtcdTls& tls,
              const failover::ArbiterIdentity& identity, base::Executor* executor)
      : options_(options),
        password_(std::move(password)),
        identity_(identity),
        key_(absl::StrCat(options.prefix, absl::AsciiStrToLower(identity.vm_uuid))),
        executor_(executor),
        alive_(std::make_shared<bool>(true)),
        cluster_id_(options.cluster_id) {
    for (const std::string& endpoint : options.endpoints) {
      members_.push_back(EtcdMember::Make(endpoint, tls, executor));
    }
  }

  void Claim(const ArbiterClaim& claim, absl::Duration timeout, Done done) override {
    if (const absl::Status valid = Validate(claim); !valid.ok()) {
      return AnswerLater({Verdict::kError, {}, std::string(valid.message())}, std::move(done));
    }
    auto question = std::make_shared<Question>();
    question->claim = claim;
    question->rule = [this, claim](const ArbiterRecord& now) {
      return JudgeClaim(identity_, claim, now);
    };
    Add(std::move(question), timeout, std::move(done));
  }
  void Withdraw(const ArbiterClaim& claim, absl::Duration timeout, Done done) override {
    // First, so that none of its swaps is sent any more; those that were are outrun by the record.
    const std::set<QuestionPtr> questions = questions_;
    for (const QuestionPtr& question : questions) {
      if (question->claim != claim) continue;
      question->over = true;
      questions_.erase(question);
      AnswerLater({Verdict::kSilent, {}, "the claim is being withdrawn"},
                  std::move(question->done));
    }
    auto question = std::make_shared<Question>();
    question->rule = [this, claim](const ArbiterRecord& now) {
      return JudgeWithdrawal(identity_, claim, now);
    };
    Add(std::move(question), timeout, std::move(done));
  }
  void GiveBack(Term held, absl::Duration timeout, Done done) override {
    auto question = std::make_shared<Question>();
    question->rule = [this, held](const ArbiterRecord& now) {
      return JudgeGivingBack(identity_, held, now);
    };
    Add(std::move(question), timeout, std::move(done));
  }
  void Read(absl::Duration timeout, Done done) override {
    Add(std::make_shared<Question>(), timeout, std::move(done));
  }

 private:
  void AnswerLater(ArbiterAnswer answer, Done done) {
    auto shared = std::make_shared<Done>(std::move(done));
    executor_->Post([alive = std::weak_ptr<bool>(alive_), shared, answer = std::move(answer)] {
      if (!alive.expired()) std::move (*shared)(answer);
    });
  }

  void Add(QuestionPtr question, absl::Duration timeout, Done done) {
    if (questions_.size() >= kMaxQuestions) {
      return AnswerLater({Verdict::kSilent, {}, "too many questions are under way"},
                         std::move(done));
    }
    question->done = std::move(done);
    question->timeout = std::clamp(timeout, absl::Milliseconds(1), kLongest);
    question->end_ns = clock_.NowNs() + absl::ToInt64Nanoseconds(question->timeout);
    question->first = preferred_;
    question->said.resize(members_.size());
    questions_.insert(question);
    Try(question);
  }

  void Finish(const QuestionPtr& question, ArbiterAnswer answer) {
    question->over = true;
    questions_.erase(question);
    std::move(question->done)(std::move(answer));
  }
  // Ends with an error that names the key and says what to do.
  void FinishKeyError(const QuestionPtr& question, absl::string_view what) {
    Finish(question,
           {Verdict::kError,
            {},
            absl::StrCat("etcd key '", key_, "' ", what,
                         ". If it is not another cluster's or VM's (endpoints, prefix, uuid): find "
                         "out which node runs the guest, stop the other, then `etcdctl del ",
                         key_,
                         "`. A guest that is solo or protected has its record written again in "
                         "seconds; one whose output is held wants `unprotect --force`; if none "
                         "runs, start one with --role primary")});
  }
  void FinishLost(const QuestionPtr& question, const ArbiterRecord& now, absl::string_view what) {
    Finish(question,
           {Verdict::kError, now,
            absl::StrCat("etcd key '", key_, "' is not to be trusted: ", what,
                         ". If it is not another cluster's or VM's (endpoints, prefix, uuid): a "
                         "node whose guest is solo or protected writes it again in seconds, unless "
                         "it is the other node's. Otherwise make sure that the guest runs nowhere "
                         "else, then `unprotect --force` on the primary whose output is held, or "
                         "`failover --force` on the secondary"),
            /*lost=*/true});
  }
  std::string SaidByAll(const Question& question) const {
    std::string text;
    for (size_t i = 0; i < members_.size(); ++i) {
      if (question.said[i].empty()) continue;
      absl::StrAppend(&text, text.empty() ? "" : "; ", options_.endpoints[i], ": ",
                      question.said[i]);
    }
    return text;
  }
  void GiveUp(const QuestionPtr& question, Verdict verdict) {
    Finish(question, {verdict,
                      {},
                      absl::StrCat(verdict == Verdict::kSilent
                                       ? absl::StrCat("etcd gave no answer in ",
                                                      absl::FormatDuration(question->timeout))
                                       : "etcd's answer is not usable",
                                   ": ", SaidByAll(*question))});
  }

  absl::Duration Left(uint64_t end_ns) const {
    const uint64_t now = clock_.NowNs();
    return now >= end_ns ? absl::ZeroDuration()
                         : absl::Nanoseconds(static_cast<int64_t>(end_ns - now));
  }

  // The next endpoint of the round, or the next round.
  void Try(const QuestionPtr& question) {
    const absl::Duration left = Left(question->end_ns);
    if (left < absl::Milliseconds(1)) return GiveUp(question, Verdict::kSilent);
    if (question->tries == members_.size()) {
      if (question->strangers == members_.size()) return GiveUp(question, Verdict::kError);
      const absl::Duration pause = std::min(question->pause, left);
      question->pause = std::min(2 * question->pause, kLongestPause);
      question->patience = std::min(2 * question->patience, kLongest);
      question->tries = 0;
      question->strangers = 0;
      question->first = preferred_;
      executor_->PostAfter(static_cast<uint64_t>(absl::ToInt64Nanoseconds(pause)),
                           [this, alive = std::weak_ptr<bool>(alive_), question] {
                             if (!alive.expired() && !question->over) Try(question);
                           });
      return;
    }
    question->endpoint = (question->first + question->tries) % members_.size();
    // A member that hangs leaves time for the others.
    absl::Duration share = left / static_cast<double>(members_.size() - question->tries);
    if (members_.size() > 1) share = std::min(share, question->patience);
    question->try_end_ns = clock_.NowNs() + static_cast<uint64_t>(absl::ToInt64Nanoseconds(share));
    ++question->tries;
    question->renewed = false;
    Ask(question);
  }

  // This endpoint is of no use now.
  void Fail(const QuestionPtr& question, std::string why) {
    question->said[question->endpoint] = std::move(why);
    Try(question);
  }
  void FailStranger(const QuestionPtr& question, std::string why) {
    ++question->strangers;
    Fail(question, std::move(why));
  }
  void FailCall(const QuestionPtr& question, const absl::Status& status) {
    const bool has_user = !options_.user.empty();
    if ((IsTokenOver(status) || (has_user && WantsUser(status))) && has_user &&
        !question->renewed) {
      question->renewed = true;
      token_.clear();
      return Authenticate(question);
    }
    if (absl::IsPermissionDenied(status)) {
      return Finish(question,
                    {Verdict::kError,
                     {},
                     absl::StrCat("etcd denies access to key '", key_, "' (", Said(status),
                                  "): grant the user read and write access to it")});
    }
    if (IsWrongPassword(status)) {
      return Finish(question, {Verdict::kError,
                               {},
                               absl::StrCat("etcd does not accept user '", options_.user, "' (",
                                            Said(status), "): mend user and password_file")});
    }
    if (WantsUser(status)) {
      return Finish(question, {Verdict::kError,
                               {},
                               absl::StrCat("etcd wants to know a user (", Said(status),
                                            "): set user and password_file, or a certificate")});
    }
    Fail(question, Said(status));
  }

  void Ask(const QuestionPtr& question) {
    if (!options_.user.empty() && token_.empty()) return Authenticate(question);
    Range(question);
  }

  void Authenticate(const QuestionPtr& question) {
    etcdserverpb::AuthenticateRequest request;
    request.set_name(options_.user);
    request.set_password(password_);
    Member(question).Authenticate(
        request, Left(question->try_end_ns),
        [this, question](absl::StatusOr<etcdserverpb::AuthenticateResponse> response) {
          if (question->over) return;
          // Whoever needs no token need not have given one.
          if (!response.ok() && HasNoAuth(response.status())) return Range(question);
          if (!response.ok()) return FailCall(question, response.status());
          const std::string& token = response->token();
          if (token.empty() || token.size() > kMaxTokenBytes ||
              !std::all_of(token.begin(), token.end(), absl::ascii_isgraph)) {
            return Fail(question, "its token is none");
          }
          token_ = token;
          Range(question);
        });
  }

  etcdserverpb::RangeRequest TheKey() const {
    etcdserverpb::RangeRequest request;
    request.set_key(key_);
    request.set_limit(1);
    return request;
  }

  void Range(const QuestionPtr& question) {
    Member(question).Range(TheKey(), token_, Left(question->try_end_ns),
                           [this, question](absl::StatusOr<etcdserverpb::RangeResponse> response) {
                             if (question->over) return;
                             if (!response.ok()) return FailCall(question, response.status());
                             if (!IsOurs(question, response->header())) return;
                             OnRecord(question, *response, /*may_swap=*/true);
                           });
  }

  // Otherwise the try has failed.
  bool IsOurs(const QuestionPtr& question, const etcdserverpb::ResponseHeader& header) {
    if (header.cluster_id() == 0) {
      Fail(question, "its answer names no cluster");
      return false;
    }
    if (cluster_id_ == 0) cluster_id_ = header.cluster_id();
    if (cluster_id_ == header.cluster_id()) return true;
    FailStranger(
        question,
        absl::StrFormat("a member of cluster %d, not of %d%s: endpoints must be members of "
                        "one cluster",
                        header.cluster_id(), cluster_id_,
                        options_.cluster_id != 0 ? " (cluster_id)" : ", which answered first"));
    return false;
  }

  void OnRecord(const QuestionPtr& question, const etcdserverpb::RangeResponse& response,
                bool may_swap) {
    ArbiterRecord now;
    int64_t revision = 0;
    if (response.kvs_size() > 0) {
      const etcdserverpb::KeyValue& entry = response.kvs(0);
      if (response.kvs_size() > 1 || entry.key() != key_ || entry.mod_revision() <= 0) {
        return Fail(question, "it answers what was not asked");
      }
      preferred_ = question->endpoint;
      absl::StatusOr<ArbiterRecord> record = DecodeRecord(identity_.vm_uuid, entry.value());
      if (!record.ok()) return FinishKeyError(question, record.status().message());
      now = *std::move(record);
      revision = entry.mod_revision();
    }
    preferred_ = question->endpoint;
    if (!question->rule) return Finish(question, {Verdict::kYes, now, "read from etcd"});
    failover::ClaimRule rule = question->rule(now);
    if (rule.swap) {
      if (may_swap) return Swap(question, revision, rule);
      return Fail(question, "the record changes, and is as it was");
    }
    if (rule.answer.lost) return FinishLost(question, now, rule.answer.detail);
    Finish(question, std::move(rule.answer));
  }

  // Puts the rule's record in the place of the one of this revision (0: of none).
  void Swap(const QuestionPtr& question, int64_t revision, const failover::ClaimRule& rule) {
    etcdserverpb::TxnRequest request;
    etcdserverpb::Compare& compare = *request.add_compare();
    compare.set_result(etcdserverpb::Compare::EQUAL);
    compare.set_target(etcdserverpb::Compare::MOD);
    compare.set_key(key_);
    compare.set_mod_revision(revision);
    etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
    put.set_key(key_);
    put.set_value(EncodeRecord(identity_.vm_uuid, rule.put));
    *request.add_failure()->mutable_request_range() = TheKey();
    Member(question).Txn(
        request, token_, Left(question->try_end_ns),
        [this, question, answer = rule.answer](absl::StatusOr<etcdserverpb::TxnResponse> response) {
          if (question->over) return;
          if (!response.ok()) return FailCall(question, response.status());
          if (!IsOurs(question, response->header())) return;
          const bool one = response->responses_size() == 1;
          if (response->succeeded()) {
            if (!one || !response->responses(0).has_response_put()) {
              return Fail(question, "it answers what was not asked");
            }
            return Finish(question, answer);
          }
          if (!one || !response->responses(0).has_response_range()) {
            return Fail(question, "it answers what was not asked");
          }
          OnRecord(question, response->responses(0).response_range(), /*may_swap=*/false);
        });
  }

  EtcdMember& Member(const QuestionPtr& question) { return *members_[question->endpoint]; }

  const EtcdOptions options_;
  const std::string password_;
  const failover::ArbiterIdentity identity_;
  const std::string key_;
  base::Executor* const executor_;
  const base::MonotonicClock clock_;
  const std::shared_ptr<bool> alive_;
  std::string token_;
  uint64_t cluster_id_;
  size_t preferred_ = 0;  // the endpoint that answered last
  std::set<QuestionPtr> questions_;
  // Last, so that it is destroyed first: their calls hold questions.
  std::vector<std::unique_ptr<EtcdMember>> members_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<failover::Arbiter>> MakeEtcdArbiter(
    const EtcdOptions& options, const failover::ArbiterIdentity& identity,
    base::Executor* executor) {
  if (options.endpoints.empty() || options.endpoints.size() > kMaxEndpoints) {
    return absl::InvalidArgumentError(
        absl::StrCat("etcd needs 1 to ", kMaxEndpoints, " endpoints"));
  }
  if (options.cert_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("etcd: cert_file and key_file go together");
  }
  if (!options.tls && !(options.ca_file.empty() && options.cert_file.empty())) {
    return absl::InvalidArgumentError("etcd: certificates without TLS");
  }
  if (options.user.empty() != options.password_file.empty()) {
    return absl::InvalidArgumentError("etcd: user and password_file go together");
  }
  EtcdTls tls;
  tls.enabled = options.tls;
  for (const auto& [file, text] :
       {std::pair(&options.ca_file, &tls.ca), std::pair(&options.cert_file, &tls.cert),
        std::pair(&options.key_file, &tls.key)}) {
    if (file->empty()) continue;
    ROMULUS_ASSIGN_OR_RETURN(*text, base::ReadSmallFile(*file));
    if (!absl::StrContains(*text, "-----BEGIN ")) {
      return absl::InvalidArgumentError(absl::StrCat("'", *file, "' is not a PEM file"));
    }
  }
  std::string password;
  if (!options.password_file.empty()) {
    ROMULUS_ASSIGN_OR_RETURN(password, base::ReadSmallFile(options.password_file));
    // The one that an editor adds.
    if (absl::EndsWith(password, "\n")) password.pop_back();
    if (password.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("'", options.password_file, "' is empty"));
    }
  }
  return std::make_unique<EtcdArbiter>(options, std::move(password), tls, identity, executor);
}

}  // namespace romulus::arbiter
