// An etcd in the test's own process that does what the test says, and otherwise what etcd would.
// Several servers may share one store, as the members of a cluster do. Any thread.
#ifndef ROMULUS_TESTS_SUPPORT_FAKE_ETCD_H_
#define ROMULUS_TESTS_SUPPORT_FAKE_ETCD_H_

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "etcd/etcd.grpc.pb.h"

namespace romulus::testing {

// What a cluster knows.
struct FakeEtcdStore {
  struct Entry {
    std::string value;
    int64_t mod_revision = 0;
  };
  absl::Mutex mutex;
  uint64_t cluster_id = 0xc1;
  int64_t revision = 1;
  std::map<std::string, Entry> entries;
  bool auth = false;
  std::set<std::string> tokens;
  int tokens_made = 0;

  void Put(const std::string& key, const std::string& value) {
    absl::MutexLock lock(&mutex);
    entries[key] = {value, ++revision};
  }
  std::string Get(const std::string& key) {
    absl::MutexLock lock(&mutex);
    return entries.contains(key) ? entries[key].value : "";
  }
};

class FakeEtcd {
 public:
  enum class Fault {
    kNone,
    kHang,         // no answer, nothing done
    kHangDone,     // no answer, but done
    kUnavailable,  // "no leader"
    kLoseAnswer,   // done, and then Unavailable
    kLate,         // begun when LetLateGo() says so
    kOtherKey,     // the answer is about something else
    kNoHeader,
  };

  // `address`: of gRPC; with a port of 0, see address().
  FakeEtcd(FakeEtcdStore* store, const std::string& address)
      : store_(store), address_(address), kv_(this), auth_(this) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterService(&kv_);
    builder.RegisterService(&auth_);
    server_ = builder.BuildAndStart();
    ROMULUS_CHECK(server_ != nullptr);
  }
  ~FakeEtcd() {
    {
      absl::MutexLock lock(&mutex_);
      ended_ = true;
    }
    server_->Shutdown(std::chrono::system_clock::now());
  }

  const std::string& address() const { return address_; }
  // The next calls of KV fail so, one after the other.
  void FailNext(std::deque<Fault> faults) {
    absl::MutexLock lock(&mutex_);
    faults_ = std::move(faults);
  }
  // All calls from now on.
  void FailAlways(Fault fault) {
    absl::MutexLock lock(&mutex_);
    always_ = fault;
  }
  // Until a call is late.
  void AwaitLate() {
    absl::MutexLock lock(&mutex_);
    const auto is_late = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return late_ > 0; };
    mutex_.Await(absl::Condition(&is_late));
  }
  // Those that are late, and returns when they are done.
  void LetLateGo() {
    absl::MutexLock lock(&mutex_);
    late_goes_ = true;
    const auto none = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return late_ == 0; };
    mutex_.Await(absl::Condition(&none));
    late_goes_ = false;
  }
  int calls() {
    absl::MutexLock lock(&mutex_);
    return calls_;
  }

 private:
  static grpc::Status Error(grpc::StatusCode code, const std::string& what) {
    return {code, absl::StrCat("etcdserver: ", what)};
  }
  Fault NextFault() {
    absl::MutexLock lock(&mutex_);
    ++calls_;
    if (faults_.empty()) return always_;
    const Fault fault = faults_.front();
    faults_.pop_front();
    return fault;
  }
  grpc::Status Hang() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&ended_));
    return Error(grpc::StatusCode::UNAVAILABLE, "server stopped");
  }
  void BeLate() {
    absl::MutexLock lock(&mutex_);
    ++late_;
    const auto goes = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return late_goes_ || ended_; };
    mutex_.Await(absl::Condition(&goes));
  }
  // Before anything is done.
  grpc::Status Begin(Fault fault, grpc::ServerContext* context) {
    if (fault == Fault::kHang) return Hang();
    if (fault == Fault::kLate) BeLate();
    if (fault == Fault::kUnavailable) return Error(grpc::StatusCode::UNAVAILABLE, "no leader");
    absl::MutexLock lock(&store_->mutex);
    if (!store_->auth) return grpc::Status::OK;
    const auto token = context->client_metadata().find("token");
    if (token == context->client_metadata().end()) {
      return Error(grpc::StatusCode::INVALID_ARGUMENT, "user name is empty");
    }
    if (!store_->tokens.contains(std::string(token->second.begin(), token->second.end()))) {
      return Error(grpc::StatusCode::UNAUTHENTICATED, "invalid auth token");
    }
    return grpc::Status::OK;
  }
  // When it is done.
  grpc::Status End(Fault fault, etcdserverpb::ResponseHeader* header) {
    if (fault == Fault::kLate) {
      absl::MutexLock lock(&mutex_);
      --late_;
    }
    if (fault == Fault::kHangDone) return Hang();
    if (fault == Fault::kLoseAnswer) return Error(grpc::StatusCode::UNAVAILABLE, "leader changed");
    absl::MutexLock lock(&store_->mutex);
    if (fault != Fault::kNoHeader) header->set_cluster_id(store_->cluster_id);
    header->set_revision(store_->revision);
    return grpc::Status::OK;
  }
  void Range(const etcdserverpb::RangeRequest& request, Fault fault,
             etcdserverpb::RangeResponse* response) {
    absl::MutexLock lock(&store_->mutex);
    const auto found = store_->entries.find(request.key());
    if (found == store_->entries.end() && fault != Fault::kOtherKey) return;
    etcdserverpb::KeyValue& entry = *response->add_kvs();
    entry.set_key(fault == Fault::kOtherKey ? "/other" : request.key());
    if (found == store_->entries.end()) return;
    entry.set_value(found->second.value);
    entry.set_mod_revision(found->second.mod_revision);
  }

  class Kv final : public etcdserverpb::KV::Service {
   public:
    explicit Kv(FakeEtcd* fake) : fake_(fake) {}
    grpc::Status Range(grpc::ServerContext* context, const etcdserverpb::RangeRequest* request,
                       etcdserverpb::RangeResponse* response) override {
      const Fault fault = fake_->NextFault();
      if (grpc::Status status = fake_->Begin(fault, context); !status.ok()) return status;
      fake_->Range(*request, fault, response);
      return fake_->End(fault, response->mutable_header());
    }
    grpc::Status Txn(grpc::ServerContext* context, const etcdserverpb::TxnRequest* request,
                     etcdserverpb::TxnResponse* response) override {
      const Fault fault = fake_->NextFault();
      if (grpc::Status status = fake_->Begin(fault, context); !status.ok()) return status;
      ROMULUS_CHECK(request->compare_size() == 1);
      const etcdserverpb::Compare& compare = request->compare(0);
      ROMULUS_CHECK(compare.result() == etcdserverpb::Compare::EQUAL &&
                    compare.target() == etcdserverpb::Compare::MOD);
      {
        absl::MutexLock lock(&fake_->store_->mutex);
        const auto found = fake_->store_->entries.find(compare.key());
        const int64_t revision =
            found == fake_->store_->entries.end() ? 0 : found->second.mod_revision;
        response->set_succeeded(revision == compare.mod_revision());
        if (response->succeeded()) {
          const etcdserverpb::PutRequest& put = request->success(0).request_put();
          fake_->store_->entries[put.key()] = {put.value(), ++fake_->store_->revision};
          if (fault != Fault::kOtherKey) response->add_responses()->mutable_response_put();
        }
      }
      if (!response->succeeded()) {
        fake_->Range(request->failure(0).request_range(), fault,
                     response->add_responses()->mutable_response_range());
      }
      return fake_->End(fault, response->mutable_header());
    }

   private:
    FakeEtcd* const fake_;
  };

  class Auth final : public etcdserverpb::Auth::Service {
   public:
    explicit Auth(FakeEtcd* fake) : fake_(fake) {}
    grpc::Status Authenticate(grpc::ServerContext*,
                              const etcdserverpb::AuthenticateRequest* request,
                              etcdserverpb::AuthenticateResponse* response) override {
      absl::MutexLock lock(&fake_->store_->mutex);
      if (!fake_->store_->auth) {
        return Error(grpc::StatusCode::FAILED_PRECONDITION, "authentication is not enabled");
      }
      if (request->name() != "romulus" || request->password() != "secret") {
        return Error(grpc::StatusCode::INVALID_ARGUMENT,
                     "authentication failed, invalid user ID or password");
      }
      const std::string token = absl::StrCat("token.", ++fake_->store_->tokens_made);
      fake_->store_->tokens.insert(token);
      response->set_token(token);
      return grpc::Status::OK;
    }

   private:
    FakeEtcd* const fake_;
  };

  FakeEtcdStore* const store_;
  const std::string address_;
  Kv kv_;
  Auth auth_;
  absl::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  int late_ ABSL_GUARDED_BY(mutex_) = 0;
  bool late_goes_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Fault> faults_ ABSL_GUARDED_BY(mutex_);
  Fault always_ ABSL_GUARDED_BY(mutex_) = Fault::kNone;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_FAKE_ETCD_H_
