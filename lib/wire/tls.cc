#include "wire/tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/small_file.h"
#include "base/status.h"

namespace romulus::wire {
namespace {

constexpr absl::Duration kLookEvery = absl::Seconds(1);
constexpr absl::Duration kTellAgain = absl::Seconds(10);

template <auto release>
struct Free {
  template <typename T>
  void operator()(T* what) const {
    release(what);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, Free<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Free<GENERAL_NAMES_free>>;

// What the thread's OpenSSL calls left behind is nobody's news.
struct ForgetErrors {
  ~ForgetErrors() { ERR_clear_error(); }
};

Bio Open(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// Empty if there is none, or one that is broken.
std::vector<Certificate> ParseCertificates(const std::string& pem) {
  const Bio bio = Open(pem);
  std::vector<Certificate> all;
  for (;;) {
    Certificate one(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (one != nullptr) {
      all.push_back(std::move(one));
      continue;
    }
    const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (!at_end) all.clear();
    return all;
  }
}

// A key that is encrypted is not asked about on the terminal.
int NoPassword(char*, int, int, void*) { return -1; }

int64_t UnixSeconds(const ASN1_TIME* time) {
  std::tm fields{};
  return ASN1_TIME_to_tm(time, &fields) == 1 ? ::timegm(&fields) : 0;
}

std::string TimeText(const ASN1_TIME* time) {
  std::tm fields{};
  char text[32] = "?";
  if (ASN1_TIME_to_tm(time, &fields) == 1) {
    std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &fields);
  }
  return text;
}

std::vector<std::string> DnsNames(const X509* certificate) {
  std::vector<std::string> names;
  const Names all(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  if (all == nullptr) return names;
  for (int i = 0; i < sk_GENERAL_NAME_num(all.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(all.get(), i);
    if (name->type != GEN_DNS) continue;
    // SAFETY: an IA5String is bytes, which are given with their number.
    names.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                       static_cast<size_t>(ASN1_STRING_length(name->d.dNSName)));
  }
  return names;
}

absl::StatusOr<std::string> ReadCas(const std::string& path) {
  const ForgetErrors forget;
  ROMULUS_ASSIGN_OR_RETURN(std::string pem, base::ReadSmallFile(path));
  if (ParseCertificates(pem).empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", path, "' has no certificate, or a broken one: it is to have the CA's, in PEM"));
  }
  return pem;
}

absl::Status CheckTime(const X509* certificate, const std::string& path) {
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
    return absl::FailedPreconditionError(absl::StrCat("the certificate in '", path, "' expired at ",
                                                      TimeText(X509_get0_notAfter(certificate)),
                                                      ": have a new one signed"));
  }
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the certificate in '", path, "' is not valid before ",
                     TimeText(X509_get0_notBefore(certificate)), ": is this host's clock right?"));
  }
  return absl::OkStatus();
}

// Certificate and key of `into`.
absl::Status ReadPair(const TlsFiles& files, absl::string_view name, TlsMaterial* into) {
  const ForgetErrors forget;
  ROMULUS_ASSIGN_OR_RETURN(std::string cert, base::ReadSmallFile(files.cert_file));
  ROMULUS_ASSIGN_OR_RETURN(std::string key_pem, base::ReadSmallFile(files.key_file));
  const std::vector<Certificate> chain = ParseCertificates(cert);
  if (chain.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", files.cert_file,
                     "' has no certificate, or a broken one: it is to have this node's, in PEM"));
  }
  const X509* const own = chain.front().get();
  const Key key(PEM_read_bio_PrivateKey(Open(key_pem).get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("'", files.key_file,
                                                   "' has no private key in PEM that can be read ",
                                                   "without a password"));
  }
  if (X509_check_private_key(own, key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the key in '", files.key_file, "' is not that of the certificate in '",
                     files.cert_file, "': one of the two is another's or was not replaced"));
  }
  ROMULUS_RETURN_IF_ERROR(CheckTime(own, files.cert_file));
  const std::vector<std::string> names = DnsNames(own);
  bool has_name = name.empty();
  for (const std::string& one : names) has_name = has_name || SameTlsName(one, name);
  if (!has_name) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the certificate in '", files.cert_file, "' does not have the DNS name '", name,
        "', as this node is called, but ", names.empty() ? "none" : absl::StrJoin(names, ", "),
        ": have one signed with subjectAltName=DNS:", name));
  }
  into->cert = std::move(cert);
  into->key = std::move(key_pem);
  into->expires_unix_s = UnixSeconds(X509_get0_notAfter(own));
  return absl::OkStatus();
}

// Differs if one of the files was written to or replaced, by a link as well.
std::string LooksLike(const TlsFiles& files) {
  std::string text;
  for (const std::string* path : {&files.ca_file, &files.cert_file, &files.key_file}) {
    struct stat info {};
    if (::stat(path->c_str(), &info) != 0) info = {};
    absl::StrAppend(&text, info.st_dev, ":", info.st_ino, ":", info.st_size, ":",
                    info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, ":", info.st_ctim.tv_sec, ".",
                    info.st_ctim.tv_nsec, " ");
  }
  return text;
}

}  // namespace

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files, absl::string_view name) {
  TlsMaterial material;
  ROMULUS_ASSIGN_OR_RETURN(material.ca, ReadCas(files.ca_file));
  ROMULUS_RETURN_IF_ERROR(ReadPair(files, name, &material));
  return material;
}

absl::Status StillTrusted(const TlsMaterial& material, const std::string& chain) {
  const ForgetErrors forget;
  const std::vector<Certificate> presented = ParseCertificates(chain);
  if (presented.empty()) return absl::PermissionDeniedError("no certificate");
  const Store store(X509_STORE_new());
  for (const Certificate& ca : ParseCertificates(material.ca)) {
    X509_STORE_add_cert(store.get(), ca.get());
  }
  // As gRPC sets it for the handshake.
  X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST |
                                        X509_V_FLAG_NO_CHECK_TIME);
  const std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> between(
      sk_X509_new_null(), [](STACK_OF(X509) * stack) { sk_X509_free(stack); });
  for (size_t i = 1; i < presented.size(); ++i) sk_X509_push(between.get(), presented[i].get());
  const StoreContext context(X509_STORE_CTX_new());
  if (X509_STORE_CTX_init(context.get(), store.get(), presented.front().get(), between.get()) !=
      1) {
    return absl::InternalError("the certificate cannot be verified");
  }
  if (X509_verify_cert(context.get()) == 1) return absl::OkStatus();
  return absl::PermissionDeniedError(
      X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())));
}

bool SameTlsName(absl::string_view a, absl::string_view b) { return absl::EqualsIgnoreCase(a, b); }

TlsIdentity::Subscription::~Subscription() {
  absl::MutexLock lock(&owner_->subscribers_mutex_);
  owner_->subscribers_.erase(key_);
}

absl::StatusOr<std::shared_ptr<TlsIdentity>> TlsIdentity::Open(TlsFiles files, std::string name,
                                                               TlsListener* listener) {
  // What changes while it is read will look different.
  std::string seen = LooksLike(files);
  ROMULUS_ASSIGN_OR_RETURN(TlsMaterial first, ReadTlsFiles(files, name));
  std::shared_ptr<TlsIdentity> identity(
      new TlsIdentity(std::move(files), std::move(name), listener, std::move(first)));
  identity->seen_ = std::move(seen);
  identity->thread_ = std::thread([raw = identity.get()] { raw->Run(); });
  return identity;
}

TlsIdentity::TlsIdentity(TlsFiles files, std::string name, TlsListener* listener, TlsMaterial first)
    : files_(std::move(files)),
      name_(std::move(name)),
      listener_(listener),
      current_(std::make_shared<const TlsMaterial>(std::move(first))) {}

TlsIdentity::~TlsIdentity() {
  {
    absl::MutexLock lock(&mutex_);
    end_ = true;
  }
  ends_.SignalAll();
  thread_.join();
}

std::shared_ptr<const TlsMaterial> TlsIdentity::current() const {
  absl::MutexLock lock(&mutex_);
  return current_;
}

std::unique_ptr<TlsIdentity::Subscription> TlsIdentity::Subscribe(Changed changed) {
  absl::MutexLock lock(&subscribers_mutex_);
  subscribers_.emplace(++next_key_, std::move(changed));
  return std::make_unique<Subscription>(this, next_key_);
}

void TlsIdentity::Refused(TlsRefusal why, const std::string& from, const std::string& detail) {
  const auto index = static_cast<size_t>(why);
  refused_[index].fetch_add(1, std::memory_order_relaxed);
  {
    absl::MutexLock lock(&mutex_);
    if (base::CondVar::After(absl::ZeroDuration()) < quiet_until_[index]) return;
    quiet_until_[index] = base::CondVar::After(kTellAgain);
  }
  if (listener_ != nullptr) listener_->OnTlsRefused(why, from, detail);
}

void TlsIdentity::Run() {
  // No inotify: a file may be replaced by a link to a folder elsewhere that is replaced.
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      const auto next = base::CondVar::After(kLookEvery);
      if (ends_.AwaitUntil(&mutex_, next,
                           [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return end_; })) {
        return;
      }
    }
    Look();
  }
}

void TlsIdentity::Look() {
  std::string looks = LooksLike(files_);
  // What was no good may have been half written, or its time has come.
  if (looks == seen_ && last_.ok()) return;
  seen_ = std::move(looks);
  const std::shared_ptr<const TlsMaterial> before = current();
  auto now = std::make_shared<TlsMaterial>(*before);
  absl::StatusOr<std::string> cas = ReadCas(files_.ca_file);
  absl::Status status = cas.status();
  if (cas.ok()) now->ca = *std::move(cas);
  status.Update(ReadPair(files_, name_, now.get()));
  const bool twice = status == last_;  // the files are replaced one after the other
  last_ = status;
  if (!status.ok() && twice && status != told_) {
    told_ = status;
    if (listener_ != nullptr) listener_->OnTlsReloadFailed(status);
  }
  if (status.ok()) told_ = status;
  if (now->ca == before->ca && now->cert == before->cert && now->key == before->key) return;
  {
    absl::MutexLock lock(&mutex_);
    current_ = now;
  }
  if (listener_ != nullptr) listener_->OnTlsReloaded(*now);
  absl::MutexLock lock(&subscribers_mutex_);
  for (const auto& [key, changed] : subscribers_) changed(*now);
}

}  // namespace romulus::wire
