// Who a node is on the network, and whom it believes: certificates and a key in PEM files, which
// are read again when they change. Only what was judged good is used: a key that does not belong to
// its certificate (yet) leaves both what they were. The CAs count by themselves, so that no mistake
// in the other files keeps one trusted that was taken away. Knows OpenSSL, not gRPC
// (wire/grpc_tls.h).
//
// Any thread. TlsIdentity owns one thread, which looks at the files and calls the listener and the
// subscribers.
#ifndef ROMULUS_WIRE_TLS_H_
#define ROMULUS_WIRE_TLS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/cond_var.h"

namespace romulus::wire {

struct TlsFiles {
  std::string ca_file;    // who signs the peers' certificates
  std::string cert_file;  // this node's certificate, then those between it and the CA's
  std::string key_file;   // the certificate's
};

// The files' content, in PEM.
struct TlsMaterial {
  std::string ca;
  std::string cert;
  std::string key;
  int64_t expires_unix_s = 0;  // the certificate
};

// Why somebody was refused. The TLS library tells a server no more than "untrusted" of a
// certificate that is expired, not valid yet, no client's or no server's, or another CA's.
enum class TlsRefusal : uint8_t {
  kUntrusted,
  kNoCertificate,
  kWrongName,    // good, but another's
  kPlainText,    // no TLS at all
  kProtocol,     // older than TLS 1.2, or nothing that both know
  kRevoked,      // the connection stood when its certificate ceased to be trusted
  kRefusedByIt,  // the other end does not want this node's certificate
  kRole,         // of the control service: not for this name
  kOther,
};
inline constexpr size_t kTlsRefusalCount = static_cast<size_t>(TlsRefusal::kOther) + 1;
inline constexpr std::array<absl::string_view, kTlsRefusalCount> kTlsRefusalNames = {
    "untrusted", "no_certificate",  "wrong_name", "plain_text", "protocol",
    "revoked",   "refused_by_peer", "role",       "other"};

// Reads and judges. `name`: which DNS name the certificate must have; empty: any. Errors, each with
// the file's name and what to do: the system's; InvalidArgument for what is not PEM, a key that is
// not the certificate's or is encrypted, a certificate that has another name; FailedPrecondition
// for one whose time is over or has not come. Who signed the certificate is the peer's question:
// while a CA is being replaced it need not be in `ca_file`.
absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files, absl::string_view name);

// Whether `chain`, in PEM and a leaf first, leads to one of `material`'s CAs. Whether it has
// expired is not asked: it had not when the connection was made.
absl::Status StillTrusted(const TlsMaterial& material, const std::string& chain);

// As a DNS name in a certificate is meant, but for wildcards, which are no node's name.
bool SameTlsName(absl::string_view a, absl::string_view b);

class TlsListener {
 public:
  virtual ~TlsListener() = default;
  // Of one kind not more than one in ten seconds. `from` is empty where that is not known.
  virtual void OnTlsRefused(TlsRefusal why, const std::string& from, const std::string& detail) = 0;
  virtual void OnTlsReloaded(const TlsMaterial& now) = 0;
  // The files have changed, and one is no good: what was there before stays. Once for each `why`.
  virtual void OnTlsReloadFailed(const absl::Status& why) = 0;
};

class TlsIdentity {
 public:
  using Changed = std::function<void(const TlsMaterial& now)>;
  // The subscription's end: when the destructor returns `Changed` is not called any more.
  class Subscription {
   public:
    Subscription(TlsIdentity* owner, uint64_t key) : owner_(owner), key_(key) {}
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

   private:
    TlsIdentity* const owner_;
    const uint64_t key_;
  };

  // `listener`, which may be null, outlives this. Errors: ReadTlsFiles'.
  static absl::StatusOr<std::shared_ptr<TlsIdentity>> Open(TlsFiles files, std::string name,
                                                           TlsListener* listener);
  ~TlsIdentity();

  std::shared_ptr<const TlsMaterial> current() const;
  // After each change, on the thread that looks at the files. Must not block, nor subscribe.
  std::unique_ptr<Subscription> Subscribe(Changed changed);
  void Refused(TlsRefusal why, const std::string& from, const std::string& detail);
  uint64_t refused(TlsRefusal why) const { return refused_[static_cast<size_t>(why)]; }

 private:
  TlsIdentity(TlsFiles files, std::string name, TlsListener* listener, TlsMaterial first);
  void Run();
  void Look();

  const TlsFiles files_;
  const std::string name_;
  TlsListener* const listener_;
  std::string seen_;   // what the files looked like; the thread's own, as are these:
  absl::Status last_;  // of the last look
  absl::Status told_;  // the failure that the listener knows

  std::array<std::atomic<uint64_t>, kTlsRefusalCount> refused_{};
  mutable absl::Mutex mutex_;
  base::CondVar ends_;
  bool end_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<const TlsMaterial> current_ ABSL_GUARDED_BY(mutex_);
  std::array<base::CondVar::Deadline, kTlsRefusalCount> quiet_until_ ABSL_GUARDED_BY(mutex_){};

  absl::Mutex subscribers_mutex_;  // held while they are called
  std::map<uint64_t, Changed> subscribers_ ABSL_GUARDED_BY(subscribers_mutex_);
  uint64_t next_key_ ABSL_GUARDED_BY(subscribers_mutex_) = 0;

  std::thread thread_;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_TLS_H_
