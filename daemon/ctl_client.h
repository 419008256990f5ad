// romulusctl's end of the connection to one daemon: who is spoken to, calls, and what their ends
// mean for the exit code. One thread.
#ifndef ROMULUS_DAEMON_CTL_CLIENT_H_
#define ROMULUS_DAEMON_CTL_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/exit_codes.h"
#include "daemon/json.h"
#include "romulus/v1/control.grpc.pb.h"
#include "wire/tls.h"

namespace romulus::daemon {

// What all subcommands share.
struct CtlArguments {
  std::string address;
  wire::TlsFiles tls;
  std::string tls_name;
  bool json = false;
  bool wait = false;
  uint32_t timeout_s = 35;
};

// As the daemon: plain text does not leave this host. Errors: the arguments', and the files'.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const CtlArguments& arguments);

class CtlClient {
 public:
  using Stub = romulus::v1::Control::Stub;

  // `arguments` outlives the client.
  CtlClient(const CtlArguments& arguments, const std::shared_ptr<grpc::Channel>& channel)
      : arguments_(arguments), stub_(romulus::v1::Control::NewStub(channel)) {}

  // Calls and prints; returns the exit code. `format` makes the text for people.
  template <typename Request, typename Response, typename Format>
  int Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
           const Request& request, const Format& format) {
    Response response;
    const grpc::Status status = Ask(method, request, &response);
    if (!status.ok()) return Fail(status);
    std::fputs((arguments_.json ? ToJson(response) : format(response)).c_str(), stdout);
    return kExitOk;
  }
  // Only calls.
  template <typename Request, typename Response>
  grpc::Status Ask(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   const Request& request, Response* response) {
    grpc::ClientContext context;
    SetDeadline(context);
    return ((*stub_).*method)(&context, request, response);
  }

  // After a call that went well, if --wait: until this node is protected, wherever the guest runs.
  int Wait(int code);
  // `status --watch`.
  int WatchStatus();

  Stub& stub() { return *stub_; }
  const CtlArguments& arguments() const { return arguments_; }
  void SetDeadline(grpc::ClientContext& context) const {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(arguments_.timeout_s));
  }
  // Says what went wrong, and returns the exit code.
  int Fail(const grpc::Status& status) const;

 private:
  const CtlArguments& arguments_;
  std::unique_ptr<Stub> stub_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_CLIENT_H_
