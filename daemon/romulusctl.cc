// romulusctl: speaks to one romulusd.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/config_check.h"
#include "daemon/ctl_format.h"
#include "daemon/ctl_progress.h"
#include "daemon/exit_codes.h"
#include "daemon/field_text.h"
#include "daemon/json.h"
#include "daemon/version.h"
#include "romulus/v1/control.grpc.pb.h"
#include "wire/grpc_tls.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

struct Arguments {
  std::string address;
  wire::TlsFiles tls;
  std::string tls_name;
  bool json = false;
  bool force = false;
  bool watch = false;
  bool wait = false;
  uint32_t timeout_s = 35;
  uint32_t last = 20;
  std::vector<std::string> get;
  v1::Tunables tunables;
};

// A daemon that begins anew ends one guest and makes room for another.
constexpr std::chrono::seconds kRestartPatience{30};
constexpr std::chrono::milliseconds kLookAgain{200};

// As the daemon: plain text does not leave this host. Errors: the arguments', and the files'.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const Arguments& arguments) {
  const wire::TlsFiles& files = arguments.tls;
  const bool is_unix = absl::StartsWith(arguments.address, "unix:");
  const std::string host = SplitHostPort(arguments.address).host;
  if (files.ca_file.empty() && files.cert_file.empty() && files.key_file.empty()) {
    if (!is_unix && !host.empty() && !IsLoopback(host)) {
      return absl::InvalidArgumentError(
          absl::StrCat(arguments.address,
                       " is neither a Unix socket nor a loopback address: it takes --tls-ca, "
                       "--tls-cert and --tls-key"));
    }
    return grpc::CreateChannel(arguments.address, grpc::InsecureChannelCredentials());
  }
  if (files.ca_file.empty() || files.cert_file.empty() || files.key_file.empty()) {
    return absl::InvalidArgumentError("--tls-ca, --tls-cert and --tls-key belong together");
  }
  if (is_unix) {
    return absl::InvalidArgumentError(
        "a Unix socket takes none of --tls-ca, --tls-cert, --tls-key");
  }
  ROMULUS_ASSIGN_OR_RETURN(const wire::TlsMaterial material, wire::ReadTlsFiles(files, ""));
  grpc::ChannelArguments channel;
  const auto credentials = wire::TlsChannelCredentials(
      material, arguments.tls_name.empty() ? host : arguments.tls_name, channel);
  return grpc::CreateCustomChannel(arguments.address, credentials, channel);
}

class Client {
 public:
  Client(const Arguments& arguments, const std::shared_ptr<grpc::Channel>& channel)
      : arguments_(arguments), stub_(v1::Control::NewStub(channel)) {}

  // Calls and prints; returns the exit code. `format` makes the text for people.
  template <typename Request, typename Response, typename Format>
  int Call(grpc::Status (v1::Control::Stub::*method)(grpc::ClientContext*, const Request&,
                                                     Response*),
           const Request& request, const Format& format) {
    grpc::ClientContext context;
    SetDeadline(context);
    Response response;
    const grpc::Status status = ((*stub_).*method)(&context, request, &response);
    if (!status.ok()) return Fail(status);
    std::fputs((arguments_.json ? ToJson(response) : format(response)).c_str(), stdout);
    return kExitOk;
  }

  // After a call that went well, if --wait: until this node is protected, wherever the guest runs.
  // A switchover makes its daemon begin anew, so that for a moment nobody answers.
  int Wait(int code) {
    if (code != kExitOk || !arguments_.wait) return code;
    ProgressPrinter progress(TerminalColumns(),
                             [](const std::string& text) { std::fputs(text.c_str(), stderr); });
    const auto give_up = std::chrono::steady_clock::now() + kRestartPatience;
    bool heard_again = false;
    for (;; std::this_thread::sleep_for(kLookAgain)) {
      grpc::ClientContext context;
      SetDeadline(context);
      context.set_wait_for_ready(true);
      v1::GetStatusResponse status;
      const grpc::Status asked = stub_->GetStatus(&context, v1::GetStatusRequest(), &status);
      if (!asked.ok()) {
        if (!heard_again && std::chrono::steady_clock::now() < give_up) continue;
        progress.End();
        return Fail(asked);
      }
      heard_again = status.mode() != v1::MODE_FENCED;
      progress.Show(status);
      const bool is_over = status.mode() == v1::MODE_PROTECTED ||
                           status.mode() == v1::MODE_FINISHED ||
                           (status.mode() == v1::MODE_FENCED && !status.has_last_switchover());
      if (!is_over) continue;
      progress.End();
      return status.mode() == v1::MODE_PROTECTED ? kExitOk : kExitFailed;
    }
  }

  int Watch() {
    const size_t columns = arguments_.json ? 0 : TerminalColumns();
    ProgressPrinter progress(columns,
                             [](const std::string& text) { std::fputs(text.c_str(), stderr); });
    bool was_active = false;
    grpc::ClientContext context;
    v1::WatchStatusRequest request;
    if (columns != 0) request.set_min_period_ms(200);
    auto reader = stub_->WatchStatus(&context, request);
    v1::GetStatusResponse status;
    while (reader->Read(&status)) {
      // On a terminal a sync under way is one line that moves.
      const bool active = columns != 0 && status.sync().active();
      if (active) progress.Show(status);
      if (active && std::exchange(was_active, true)) continue;
      if (!active && std::exchange(was_active, false)) progress.End();
      std::fputs((arguments_.json ? ToJson(status) : FormatStatus(status) + "\n").c_str(), stdout);
      std::fflush(stdout);
    }
    const grpc::Status ended = reader->Finish();
    return ended.ok() ? kExitOk : Fail(ended);
  }

 private:
  void SetDeadline(grpc::ClientContext& context) const {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(arguments_.timeout_s));
  }
  int Fail(const grpc::Status& status) const {
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      std::fprintf(
          stderr,
          "romulusctl: no romulusd answers at %s (%s)\n"
          "Is it running? The address is control_address of this node's configuration%s.\n",
          arguments_.address.c_str(), status.error_message().c_str(),
          arguments_.tls.ca_file.empty()
              ? ""
              : ", from another host remote_control_address; its log names whom it refuses");
      return kExitUnreachable;
    }
    std::fprintf(stderr, "romulusctl: %s\n", status.error_message().c_str());
    return status.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
                   status.error_code() == grpc::StatusCode::INVALID_ARGUMENT ||
                   status.error_code() == grpc::StatusCode::PERMISSION_DENIED
               ? kExitRefused
               : kExitFailed;
  }

  const Arguments& arguments_;
  std::unique_ptr<v1::Control::Stub> stub_;
};

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("romulusctl speaks to one romulusd.");
  app.require_subcommand(1);
  app.fallthrough();  // --json and --address may stand behind the subcommand too
  app.footer(
      "Exit codes: 0 done; 1 failed; 2 wrong arguments; 3 no daemon answers; 4 the daemon "
      "refused.");
  app.add_option("--address", arguments.address,
                 "The daemon's control_address: unix:///path or 127.0.0.1:port; or from another "
                 "host its remote_control_address")
      ->envname("ROMULUS_ADDRESS")
      ->required();
  app.add_option("--tls-ca", arguments.tls.ca_file,
                 "For remote_control_address: PEM file of who signed the daemon's certificate")
      ->envname("ROMULUS_TLS_CA");
  app.add_option("--tls-cert", arguments.tls.cert_file, "PEM file of your certificate")
      ->envname("ROMULUS_TLS_CERT");
  app.add_option("--tls-key", arguments.tls.key_file, "PEM file of your certificate's key")
      ->envname("ROMULUS_TLS_KEY");
  app.add_option("--tls-name", arguments.tls_name,
                 "Which name the daemon's certificate must have, as the node is called; the "
                 "address' host if not given")
      ->envname("ROMULUS_TLS_NAME");
  app.add_flag("--json", arguments.json, "Print the answer as JSON (romulus.v1.Control)");
  CLI::Option* timeout =
      app.add_option("--timeout", arguments.timeout_s, "Seconds to wait for the answer")
          ->capture_default_str();

  CLI::App* status = app.add_subcommand("status", "Role, mode and why; epochs, peer, counters.");
  status->add_flag("--watch", arguments.watch, "Again after each change, until interrupted");
  status
      ->add_option(
          "--get", arguments.get,
          "Print only this field's value, on a line of its own; may be repeated: --get role "
          "--get peer.connected (names as --json has them; ROLE_SECONDARY, false)")
      ->allow_extra_args(false);
  CLI::App* failover = app.add_subcommand("failover", "To a secondary: become primary.");
  failover->add_flag("--force", arguments.force, "Although the primary is heard");
  CLI::App* switchover = app.add_subcommand(
      "switchover",
      "To a primary: hand the guest over to the secondary, and become its secondary. --timeout is "
      "what the last epoch and the other node's answer may take (at most 25)");
  switchover->add_flag("--wait", arguments.wait, "Until the guest is protected again");
  CLI::App* pause = app.add_subcommand("pause", "To a primary: stop the guest after an epoch.");
  CLI::App* resume = app.add_subcommand("resume", "To a primary: let the guest go on.");
  CLI::App* protect = app.add_subcommand("protect", "To a primary: look for a secondary.");
  protect->add_flag("--wait", arguments.wait, "Until the guest is protected");
  CLI::App* unprotect = app.add_subcommand(
      "unprotect",
      "To a primary: run solo and let held output out, once the secondary has given its replica "
      "up.");
  unprotect->add_flag(
      "--force", arguments.force,
      "Without the secondary's word. It may hold an epoch and promote it: make sure "
      "first that the guest cannot run there, else both are heard");
  CLI::App* epochs = app.add_subcommand("epochs", "The last epochs and what their pauses cost.");
  epochs->add_option("--last", arguments.last, "How many")->capture_default_str();
  CLI::App* set = app.add_subcommand("set", "Change tunables of the running daemon.");
  uint32_t max_dirty_pages = 0, max_interval_us = 0, min_interval_us = 0;
  CLI::Option* max_pages = set->add_option("--max-dirty-pages", max_dirty_pages, "The budget");
  CLI::Option* max_interval = set->add_option("--max-interval-us", max_interval_us, "Microseconds");
  CLI::Option* min_interval = set->add_option("--min-interval-us", min_interval_us, "Microseconds");
  set->require_option(1, 0);
  CLI::App* version = app.add_subcommand("version", "Print the version.");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (version->parsed()) {
    std::printf("romulusctl %s\n", kVersion);
    return kExitOk;
  }
  const absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = MakeChannel(arguments);
  if (!channel.ok()) {
    std::fprintf(stderr, "romulusctl: %s\n", std::string(channel.status().message()).c_str());
    return kExitUsage;
  }
  Client client(arguments, *channel);
  if (status->parsed()) {
    if (arguments.watch) return client.Watch();
    if (!arguments.get.empty()) {
      arguments.json = false;
      if (const auto known = FieldLines(v1::GetStatusResponse(), arguments.get); !known.ok()) {
        std::fprintf(stderr, "romulusctl: %s\n", std::string(known.status().message()).c_str());
        return kExitUsage;
      }
      return client.Call(&v1::Control::Stub::GetStatus, v1::GetStatusRequest(),
                         [&](const auto& said) { return *FieldLines(said, arguments.get); });
    }
    return client.Call(&v1::Control::Stub::GetStatus, v1::GetStatusRequest(), FormatStatus);
  }
  if (failover->parsed()) {
    v1::FailoverRequest request;
    request.set_force(arguments.force);
    return client.Call(&v1::Control::Stub::Failover, request, FormatFailover);
  }
  if (switchover->parsed()) {
    v1::SwitchoverRequest request;
    if (*timeout) request.set_timeout_ms(std::min(arguments.timeout_s, 3600u) * 1000);
    arguments.timeout_s += 5;  // the daemon's own end of it comes first
    return client.Wait(client.Call(&v1::Control::Stub::Switchover, request, FormatSwitchover));
  }
  if (pause->parsed()) {
    return client.Call(&v1::Control::Stub::Pause, v1::PauseRequest(), FormatPause);
  }
  const auto done = [](const auto&) { return std::string("done\n"); };
  if (resume->parsed()) {
    return client.Call(&v1::Control::Stub::Resume, v1::ResumeRequest(), done);
  }
  if (protect->parsed()) {
    return client.Wait(client.Call(&v1::Control::Stub::Protect, v1::ProtectRequest(), done));
  }
  if (unprotect->parsed()) {
    v1::UnprotectRequest request;
    request.set_force(arguments.force);
    return client.Call(&v1::Control::Stub::Unprotect, request, done);
  }
  if (epochs->parsed()) {
    v1::ListEpochsRequest request;
    request.set_last(arguments.last);
    return client.Call(&v1::Control::Stub::ListEpochs, request, FormatEpochs);
  }
  v1::SetRequest request;
  if (*max_pages) request.mutable_tunables()->set_max_dirty_pages(max_dirty_pages);
  if (*max_interval) request.mutable_tunables()->set_max_interval_us(max_interval_us);
  if (*min_interval) request.mutable_tunables()->set_min_interval_us(min_interval_us);
  (void)set;
  return client.Call(&v1::Control::Stub::Set, request, FormatTunables);
}

}  // namespace
}  // namespace romulus::daemon

int main(int argc, char** argv) { return romulus::daemon::Main(argc, argv); }
