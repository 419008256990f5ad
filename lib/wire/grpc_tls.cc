#include "wire/grpc_tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>

#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace romulus::wire {
namespace {

// gRPC's C++ credentials of a server have fixed certificates, or a watcher that would take a key
// and a certificate that do not match. Its C ones ask before each handshake.
class ReloadedServerCredentials final : public grpc::ServerCredentials {
 public:
  explicit ReloadedServerCredentials(std::shared_ptr<TlsIdentity> identity)
      : identity_(std::move(identity)) {}

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    grpc_server_credentials* const credentials = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, &Fetch, this));
    const int port = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return port;
  }

  // Before each handshake, which begin one after the other: on the acceptor's thread.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<ReloadedServerCredentials*>(self)->FetchNow(config);
  }
  grpc_ssl_certificate_config_reload_status FetchNow(grpc_ssl_server_certificate_config** config) {
    std::shared_ptr<const TlsMaterial> now = identity_->current();
    if (now == given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{now->key.c_str(), now->cert.c_str()};
    *config = grpc_ssl_server_certificate_config_create(now->ca.c_str(), &pair, 1);
    given_ = std::move(now);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const std::shared_ptr<TlsIdentity> identity_;
  std::shared_ptr<const TlsMaterial> given_;
};

// A certificate may have many.
constexpr size_t kMaxNamesText = 200;

std::vector<std::string> Values(const grpc::AuthContext& context, const char* property) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : context.FindPropertyValues(property)) {
    values.emplace_back(value.data(), value.size());
  }
  return values;
}

// What OpenSSL calls it.
TlsRefusal Classify(absl::string_view why) {
  const auto says = [why](absl::string_view what) { return absl::StrContains(why, what); };
  if (says("certificate verify failed")) return TlsRefusal::kUntrusted;
  if (says("did not return a certificate")) return TlsRefusal::kNoCertificate;
  if (says(" alert ")) {
    return says("certificate") || says("unknown ca") ? TlsRefusal::kRefusedByIt
                                                     : TlsRefusal::kProtocol;
  }
  if (says("unsupported protocol") || says("wrong version number") || says("no shared cipher") ||
      says("http request") || says("version too low")) {
    return TlsRefusal::kProtocol;
  }
  return TlsRefusal::kOther;
}

absl::Mutex& ListenerMutex() {
  static absl::Mutex mutex(absl::kConstInit);
  return mutex;
}
std::weak_ptr<TlsIdentity>& Listening() {
  static auto* const identity = new std::weak_ptr<TlsIdentity>;
  return *identity;
}

void OnGrpcLog(gpr_log_func_args* line) {
  absl::string_view message = line->message;
  if (absl::ConsumePrefix(&message, "Handshake failed with fatal error ")) {
    absl::MutexLock lock(&ListenerMutex());  // its own listener may be about to go
    if (const std::shared_ptr<TlsIdentity> identity = Listening().lock()) {
      identity->Refused(Classify(message), "", std::string(message));
    }
    return;
  }
  // What gRPC would have said itself.
  if (line->severity == GPR_LOG_SEVERITY_ERROR) {
    std::fprintf(stderr, "gRPC %s:%d: %s\n", line->file, line->line, line->message);
  }
}

}  // namespace

std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(
    std::shared_ptr<TlsIdentity> identity) {
  if (identity == nullptr) return grpc::InsecureServerCredentials();
  return std::make_shared<ReloadedServerCredentials>(std::move(identity));
}

std::shared_ptr<grpc::ChannelCredentials> TlsChannelCredentials(const TlsMaterial& material,
                                                                const std::string& name,
                                                                grpc::ChannelArguments& arguments) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = material.ca;
  options.pem_private_key = material.key;
  options.pem_cert_chain = material.cert;
  arguments.SetSslTargetNameOverride(name);
  return grpc::SslCredentials(options);
}

bool TlsPeer::Is(absl::string_view name) const {
  for (const std::string& one : names) {
    if (SameTlsName(one, name)) return true;
  }
  return false;
}

std::string TlsPeer::NamesText() const {
  if (names.empty()) return "nobody";
  std::string text;
  for (const std::string& one : names) {
    absl::StrAppend(&text, text.empty() ? "'" : ", '", one, "'");
    if (text.size() > kMaxNamesText) return absl::StrCat(text.substr(0, kMaxNamesText), "...");
  }
  return text;
}

TlsPeer TlsPeerOf(const grpc::AuthContext& context) {
  TlsPeer peer;
  peer.names = Values(context, GRPC_PEER_DNS_PROPERTY_NAME);
  // gRPC gives the leaf alone and, depending on the end, a chain with or without it.
  peer.chain =
      absl::StrCat(absl::StrJoin(Values(context, GRPC_X509_PEM_CERT_PROPERTY_NAME), ""),
                   absl::StrJoin(Values(context, GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME), ""));
  return peer;
}

bool IsWrongName(absl::string_view connect_error) {
  return absl::StrContains(connect_error, "is not in peer certificate");
}

void ListenToHandshakes(const std::shared_ptr<TlsIdentity>& identity) {
  {
    absl::MutexLock lock(&ListenerMutex());
    Listening() = identity;
  }
  gpr_set_log_function(&OnGrpcLog);
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_INFO);  // a failed handshake is no error to gRPC
}

}  // namespace romulus::wire
