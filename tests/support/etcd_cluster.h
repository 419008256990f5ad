// A real etcd of one or more members on loopback, for one test. One thread.
//
// Each process has a loopback address of its own, so that a member which is started again finds its
// ports free: whoever asks the kernel for a port gets one on another address.
#ifndef ROMULUS_TESTS_SUPPORT_ETCD_CLUSTER_H_
#define ROMULUS_TESTS_SUPPORT_ETCD_CLUSTER_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/unique_fd.h"
#include "support/child_process.h"
#include "support/temp_folder.h"

namespace romulus::testing {

class EtcdCluster {
 public:
  // With `tls` members have certificates of a CA that is made here, and want one of their clients.
  EtcdCluster(int members, bool tls) : tls_(tls), host_(OwnAddress()) {
    if (tls) MakeCertificates();
    std::vector<base::UniqueFd> held;  // no port twice
    for (int i = 0; i < members; ++i) {
      Member& member = members_.emplace_back();
      member.client_port = FreePort(&held);
      member.peer_port = FreePort(&held);
      absl::StrAppend(&initial_, i == 0 ? "" : ",", "m", i, "=", PeerUrl(member));
    }
    held.clear();
    for (int i = 0; i < members; ++i) Start(i);
  }

  // "host:port"
  std::string Endpoint(int i) const { return absl::StrCat(host_, ":", members_[i].client_port); }
  std::vector<std::string> Endpoints() const {
    std::vector<std::string> all;
    for (size_t i = 0; i < members_.size(); ++i) all.push_back(Endpoint(static_cast<int>(i)));
    return all;
  }
  void Start(int i) {
    Member& member = members_[i];
    const std::string client =
        absl::StrCat(tls_ ? "https" : "http", "://", host_, ":", member.client_port);
    std::vector<std::string> argv = {"etcd",
                                     "--name",
                                     absl::StrCat("m", i),
                                     "--data-dir",
                                     Path(absl::StrCat("m", i)),
                                     "--listen-client-urls",
                                     client,
                                     "--advertise-client-urls",
                                     client,
                                     "--listen-peer-urls",
                                     PeerUrl(member),
                                     "--initial-advertise-peer-urls",
                                     PeerUrl(member),
                                     "--initial-cluster",
                                     initial_,
                                     "--heartbeat-interval",
                                     "50",
                                     "--election-timeout",
                                     "500",
                                     "--logger",
                                     "zap",
                                     "--log-level",
                                     "warn",
                                     "--bcrypt-cost",
                                     "4"};
    if (tls_) {
      argv.insert(argv.end(),
                  {"--client-cert-auth", "--trusted-ca-file", Path("ca.pem"), "--cert-file",
                   Path("server.pem"), "--key-file", Path("server.key")});
    }
    member.process = ChildProcess(argv, Path(absl::StrCat("m", i, ".log")));
  }
  void Kill(int i) { members_[i].process.Kill(); }
  void Signal(int i, int signal) { members_[i].process.Signal(signal); }

  // `etcdctl` at the first member; its exit code.
  int Ctl(std::vector<std::string> words) {
    std::vector<std::string> argv = {"etcdctl", "--endpoints", Endpoint(0)};
    if (tls_) {
      argv.insert(argv.end(), {"--cacert", Path("ca.pem"), "--cert", Path("client.pem"), "--key",
                               Path("client.key")});
    }
    argv.insert(argv.end(), words.begin(), words.end());
    return ChildProcess(argv, Path("ctl.log")).Wait();
  }
  // ca.pem, client.pem, client.key, and what a test puts there.
  std::string Path(const std::string& name) const { return folder_.Path(name); }
  // For a test that failed.
  std::string Logs() const {
    std::string text = ReadAll(Path("ctl.log")) + ReadAll(Path("openssl.log"));
    for (size_t i = 0; i < members_.size(); ++i) {
      absl::StrAppend(&text, "m", i, ":\n", ReadAll(Path(absl::StrCat("m", i, ".log"))));
    }
    return text;
  }
  // A certificate for `subject`, of this cluster's CA or of one that it does not know.
  void MakeCertificate(const std::string& name, const std::string& subject,
                       const std::string& ca = "ca") {
    OpenSsl({"req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout",
             Path(name + ".key"), "-out", Path(name + ".csr")});
    WriteAll(Path("san"), absl::StrCat("subjectAltName=IP:", host_));
    OpenSsl({"x509", "-req", "-in", Path(name + ".csr"), "-CA", Path(ca + ".pem"), "-CAkey",
             Path(ca + ".key"), "-CAcreateserial", "-days", "2", "-extfile", Path("san"), "-out",
             Path(name + ".pem")});
  }
  void MakeCa(const std::string& name) {
    OpenSsl({"req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + name, "-days", "2",
             "-keyout", Path(name + ".key"), "-out", Path(name + ".pem")});
  }

 private:
  struct Member {
    int client_port = 0;
    int peer_port = 0;
    ChildProcess process;
  };

  static std::string OwnAddress() {
    const int pid = ::getpid();
    return absl::StrCat("127.", 64 + (pid >> 16) % 128, ".", (pid >> 8) & 255, ".", pid & 255);
  }
  int FreePort(std::vector<base::UniqueFd>* held) {
    base::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    ROMULUS_CHECK(::inet_pton(AF_INET, host_.c_str(), &name.sin_addr) == 1);
    socklen_t size = sizeof(name);
    ROMULUS_CHECK(::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), size) == 0);
    ROMULUS_CHECK(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &size) == 0);
    held->push_back(std::move(fd));
    return ntohs(name.sin_port);
  }
  std::string PeerUrl(const Member& member) const {
    return absl::StrCat("http://", host_, ":", member.peer_port);
  }
  void OpenSsl(std::vector<std::string> words) {
    words.insert(words.begin(), "openssl");
    ROMULUS_CHECK(ChildProcess(words, Path("openssl.log")).Wait() == 0);
  }
  void MakeCertificates() {
    MakeCa("ca");
    MakeCertificate("server", "/CN=etcd");
    MakeCertificate("client", "/CN=romulus");
  }

  const TempFolder folder_;
  const bool tls_;
  const std::string host_;
  std::string initial_;
  std::vector<Member> members_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_ETCD_CLUSTER_H_
