// romulusctl: speaks to one romulusd.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/completion.h"
#include "daemon/ctl_client.h"
#include "daemon/ctl_events.h"
#include "daemon/ctl_format.h"
#include "daemon/ctl_report.h"
#include "daemon/ctl_watch.h"
#include "daemon/exit_codes.h"
#include "daemon/field_text.h"
#include "daemon/version.h"
#include "romulus/v1/control.grpc.pb.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

// What belongs to one subcommand or another.
struct Arguments : CtlArguments {
  bool force = false;
  bool watch = false;
  uint32_t last = 20;
  double interval_s = 1;
  EventsWanted events;
  std::string report_file;
  std::string report_since = "6h";
  std::vector<std::string> get;
};

std::string Example(const char* text) {
  return std::string("Example:\n  romulusctl --address unix:///run/romulus/web1.sock ") + text;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("romulusctl speaks to one romulusd.");
  app.require_subcommand(1);
  app.fallthrough();  // --json and --address may stand behind the subcommand too
  app.footer(
      "Exit codes: 0 done; 1 it was tried and failed; 2 wrong arguments; 3 no daemon answers; "
      "4 the daemon refused, and says why.\n"
      "`romulusctl COMMAND --help` has an example of each. With --json all answers are JSON "
      "(romulus.v1.Control), those of `events` and `status --watch` one after the other.");
  app.add_option("--address", arguments.address,
                 "The daemon's control_address: unix:///path or 127.0.0.1:port; or from another "
                 "host its remote_control_address")
      ->type_name(kAddressType)
      ->envname("ROMULUS_ADDRESS")
      ->required();
  app.add_option("--tls-ca", arguments.tls.ca_file,
                 "For remote_control_address: PEM file of who signed the daemon's certificate")
      ->type_name(kFileType)
      ->envname("ROMULUS_TLS_CA");
  app.add_option("--tls-cert", arguments.tls.cert_file, "PEM file of your certificate")
      ->type_name(kFileType)
      ->envname("ROMULUS_TLS_CERT");
  app.add_option("--tls-key", arguments.tls.key_file, "PEM file of your certificate's key")
      ->type_name(kFileType)
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
  status->footer(Example("status --json"));
  status->add_flag("--watch", arguments.watch, "Again after each change, until interrupted");
  status
      ->add_option(
          "--get", arguments.get,
          "Print only this field's value, on a line of its own; may be repeated: --get role "
          "--get peer.connected (names as --json has them; ROLE_SECONDARY, false)")
      ->allow_extra_args(false);
  CLI::App* watch = app.add_subcommand(
      "watch", "A screen with state, rates and events, drawn again and again until q or ^C.");
  watch->footer(Example("watch --interval 0.5"));
  watch->add_option("--interval", arguments.interval_s, "Seconds between two looks, 0.1 to 3600")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  CLI::App* events = app.add_subcommand("events", "What happened on this node, and when.");
  events->footer(Example("events --since 2h --follow"));
  events->add_option("--since", arguments.events.since,
                     "So long ago (90s, 10m, 2h, 3d), or a time (2026-01-31T12:00:00Z)");
  CLI::Option* last_events = events->add_option(
      "--last", arguments.events.last, "Only so many, the newest; 0: all. Without --since 50");
  events->add_flag("--follow", arguments.events.follow,
                   "Then those that come, until interrupted, also when the daemon is restarted");
  CLI::App* report = app.add_subcommand(
      "report", "Writes one HTML page with the last hours' graphs, events and state.");
  report->footer(Example("report --out web1.html"));
  report
      ->add_option("--out", arguments.report_file,
                   "The page's file, which is replaced; -: standard output")
      ->required();
  report->add_option("--since", arguments.report_since, "From when on, as for `events`")
      ->capture_default_str();
  CLI::App* failover = app.add_subcommand("failover", "To a secondary: become primary.");
  failover->footer(Example("failover"));
  failover->add_flag("--force", arguments.force, "Although the primary is heard");
  CLI::App* switchover = app.add_subcommand(
      "switchover",
      "To a primary: hand the guest over to the secondary, and become its secondary. --timeout is "
      "what the last epoch and the other node's answer may take (at most 25)");
  switchover->footer(Example("switchover --wait"));
  switchover->add_flag("--wait", arguments.wait, "Until the guest is protected again");
  CLI::App* pause = app.add_subcommand("pause", "To a primary: stop the guest after an epoch.");
  pause->footer(Example("pause"));
  CLI::App* resume = app.add_subcommand("resume", "To a primary: let the guest go on.");
  resume->footer(Example("resume"));
  CLI::App* protect = app.add_subcommand("protect", "To a primary: look for a secondary.");
  protect->footer(Example("protect --wait"));
  protect->add_flag("--wait", arguments.wait, "Until the guest is protected");
  CLI::App* unprotect = app.add_subcommand(
      "unprotect",
      "To a primary: run solo and let held output out, once the secondary has given its replica "
      "up.");
  unprotect->footer(Example("unprotect"));
  unprotect->add_flag(
      "--force", arguments.force,
      "Without the secondary's word. It may hold an epoch and promote it: make sure "
      "first that the guest cannot run there, else both are heard");
  CLI::App* epochs = app.add_subcommand("epochs", "The last epochs and what their pauses cost.");
  epochs->footer(Example("epochs --last 5"));
  epochs->add_option("--last", arguments.last, "How many")->capture_default_str();
  CLI::App* set = app.add_subcommand("set", "Change tunables of the running daemon.");
  set->footer(Example("set --max-dirty-pages 1024"));
  uint32_t max_dirty_pages = 0, max_interval_us = 0, min_interval_us = 0, idle_interval_us = 0;
  CLI::Option* max_pages = set->add_option("--max-dirty-pages", max_dirty_pages, "The budget");
  CLI::Option* max_interval = set->add_option("--max-interval-us", max_interval_us, "Microseconds");
  CLI::Option* min_interval = set->add_option("--min-interval-us", min_interval_us, "Microseconds");
  CLI::Option* idle_interval =
      set->add_option("--idle-interval-us", idle_interval_us, "Microseconds");
  set->require_option(1, 0);
  // Needs no daemon, and so no --address.
  app.add_subcommand("version", "Print the version.")
      ->parse_complete_callback([] {
        std::printf("romulusctl %s\n", kVersion);
        throw CLI::Success();
      })
      ->footer("Example:\n  romulusctl version");
  AddCompletionOption(app);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  const absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = MakeChannel(arguments);
  if (!channel.ok()) {
    std::fprintf(stderr, "romulusctl: %s\n", std::string(channel.status().message()).c_str());
    return kExitUsage;
  }
  CtlClient client(arguments, *channel);
  if (watch->parsed()) {
    if (arguments.json) return client.WatchStatus();
    return WatchOnScreen(client, absl::Seconds(arguments.interval_s));
  }
  if (events->parsed()) {
    if (!*last_events && arguments.events.since.empty()) arguments.events.last = 50;
    return PrintEvents(client, arguments.events);
  }
  if (report->parsed()) {
    return WriteReport(client, arguments.report_since, arguments.report_file);
  }
  if (status->parsed()) {
    if (arguments.watch) return client.WatchStatus();
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
  if (*idle_interval) request.mutable_tunables()->set_idle_interval_us(idle_interval_us);
  (void)set;
  return client.Call(&v1::Control::Stub::Set, request, FormatTunables);
}

}  // namespace
}  // namespace romulus::daemon

int main(int argc, char** argv) { return romulus::daemon::Main(argc, argv); }
