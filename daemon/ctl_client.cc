#include "daemon/ctl_client.h"

#include <cstdlib>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/clean_text.h"
#include "daemon/config_check.h"
#include "daemon/ctl_format.h"
#include "daemon/ctl_progress.h"
#include "wire/grpc_tls.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

// A daemon that begins anew ends one guest and makes room for another.
constexpr std::chrono::seconds kRestartPatience{30};
constexpr std::chrono::milliseconds kLookAgain{200};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const CtlArguments& arguments) {
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

// A switchover makes its daemon begin anew, so that for a moment nobody answers.
int CtlClient::Wait(int code) {
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

int CtlClient::WatchStatus() {
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

int CtlClient::Fail(const grpc::Status& status) const {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    std::fprintf(stderr,
                 "romulusctl: no romulusd answers at %s (%s)\n"
                 "Is it running? The address is control_address of this node's configuration%s.\n",
                 arguments_.address.c_str(), CleanText(status.error_message()).c_str(),
                 arguments_.tls.ca_file.empty()
                     ? ""
                     : ", from another host remote_control_address; its log names whom it refuses");
    return kExitUnreachable;
  }
  std::fprintf(stderr, "romulusctl: %s\n", CleanText(status.error_message()).c_str());
  return status.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
                 status.error_code() == grpc::StatusCode::INVALID_ARGUMENT ||
                 status.error_code() == grpc::StatusCode::PERMISSION_DENIED
             ? kExitRefused
             : kExitFailed;
}

}  // namespace romulus::daemon
