// romulusd: runs one protected guest.
#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu_affinity.h"
#include "base/heap.h"
#include "base/mutex_checks.h"
#include "base/status.h"
#include "daemon/completion.h"
#include "daemon/config.h"
#include "daemon/disks_command.h"
#include "daemon/event_journal.h"
#include "daemon/exit_codes.h"
#include "daemon/field_text.h"
#include "daemon/history.h"
#include "daemon/node.h"
#include "daemon/probe_command.h"
#include "daemon/refused_config.h"
#include "daemon/service_manager.h"
#include "daemon/syscall_filter.h"
#include "daemon/version.h"
#include "daemon/watchdog.h"
#include "kvm/system.h"
#include "wire/grpc_polling.h"

namespace romulus::daemon {
namespace {

// A node's making and its end, which an arbiter, a slow disk or a large guest makes long.
constexpr uint64_t kStartNs = 180'000'000'000;
constexpr uint64_t kEndNs = 60'000'000'000;

struct Arguments {
  std::string config;
  std::string node;
  std::string role;
  std::string device = "/dev/kvm";
  std::string compare;
  std::vector<std::string> get;
  bool json = false;
  bool no_files = false;
  bool overwrite_peer = false;
  bool take_over = false;
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "romulusd: %s\n", std::string(status.message()).c_str());
  return kExitFailed;
}

ConfigOptions OptionsFrom(const Arguments& arguments) {
  ConfigOptions options;
  if (!arguments.node.empty()) options.node = arguments.node;
  options.check_files = !arguments.no_files;
  return options;
}

int Check(const Arguments& arguments) {
  ConfigOptions options = OptionsFrom(arguments);
  options.check_stamps = options.check_files;
  LoadedConfig loaded = LoadConfig(arguments.config, options);
  const bool guessed =
      !options.node && loaded.config.nodes_size() == 2 && !loaded.config.has_node_name();
  if (guessed) {
    options.node = loaded.config.nodes(0).name();
    loaded = LoadConfig(arguments.config, options);
  }
  std::fputs(loaded.ErrorText().c_str(), stderr);
  if (!loaded.ok() && guessed) {
    std::fprintf(stderr, "romulusd: checked as node '%s'; --node says which one this host is\n",
                 options.node->c_str());
  }
  if (!loaded.ok()) return kExitUsage;
  if (arguments.get.empty()) {
    std::printf("%s: no errors\n", arguments.config.c_str());
    return kExitOk;
  }
  const absl::StatusOr<std::string> lines = FieldLines(loaded.config, arguments.get);
  if (!lines.ok()) {
    std::fprintf(stderr, "romulusd: %s\n", std::string(lines.status().message()).c_str());
    return kExitUsage;
  }
  std::fputs(lines->c_str(), stdout);
  return kExitOk;
}

int Disks(const Arguments& arguments) {
  ConfigOptions options = OptionsFrom(arguments);
  options.check_files = false;  // the stamps are asked for just when something is amiss
  const LoadedConfig loaded = LoadConfig(arguments.config, options);
  std::fputs(loaded.ErrorText().c_str(), stderr);
  if (!loaded.ok()) return kExitUsage;
  return DisksCommand(loaded.config, arguments.compare, arguments.json);
}

// SIGTERM and SIGINT wait from the first line on, until the node that is told of them runs
// (Node::Run): whoever is stopped while it starts says what it leaves, too.
void HoldSignals(bool hold) {
  sigset_t stop;
  ::sigemptyset(&stop);
  ::sigaddset(&stop, SIGTERM);
  ::sigaddset(&stop, SIGINT);
  ::pthread_sigmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &stop, nullptr);
}

// The usual soft limit is for programs that call select(2); nothing here does. Where it cannot be
// raised the daemon still copes.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

absl::Status Narrow(const romulus::v1::Config& config, Log& log) {
  if (!config.syscall_filter() || !SyscallFilterIsBuiltIn()) {
    log.Warning("syscall_filter",
                {{"is", "off"}, {"by", config.syscall_filter() ? "build" : "configuration"}});
    return absl::OkStatus();
  }
  const SyscallFilter filter =
      config.failover().arbiter().has_command() ? SyscallFilter::kWide : SyscallFilter::kStrict;
  const absl::Status done = NarrowSyscalls(filter);
  if (done.ok()) log.Info("syscall_filter", {{"is", SyscallFilterName(filter)}});
  return done;
}

std::string StateDirectory() {
  const char* const given = std::getenv("STATE_DIRECTORY");
  return given == nullptr ? "" : given;
}

absl::Status KeepOnCpus(const google::protobuf::RepeatedField<uint32_t>& cpus) {
  if (cpus.empty()) return absl::OkStatus();
  return base::Annotate(base::KeepThreadOn(0, std::vector<int>(cpus.begin(), cpus.end())),
                        "cpus.others");
}

EventJournal::Options JournalOptions(const romulus::v1::Config& config) {
  return {.vm = config.name(),
          .node = config.node_name(),
          .folder = EventFolder(config, StateDirectory()),
          .max_bytes = uint64_t{config.events().max_kib()} << 10};
}

int Run(const Arguments& arguments) {
  RaiseDescriptorLimit();
  ConfigOptions options = OptionsFrom(arguments);
  // The configuration is judged before the host: its errors are the reader's to mend at once.
  LoadedConfig loaded = LoadConfig(arguments.config, options);
  if (!loaded.ok()) {
    std::fputs(loaded.ErrorText().c_str(), stderr);
    LeaveRefused(loaded, arguments.node, StateDirectory());
    return kExitUsage;
  }
  // Before there are other threads, which inherit it.
  if (absl::Status kept = KeepOnCpus(loaded.config.cpus().others()); !kept.ok()) return Fail(kept);
  if (!loaded.config.failover().arbiter().has_etcd()) wire::PollOwnSockets();
  EventJournal events(JournalOptions(loaded.config));
  History history(loaded.config.events().history_period_ms());
  const auto fail = [&events](const absl::Status& why) {
    events.OnLogged(romulus::v1::SEVERITY_ERROR, "start_failed", {{"why", why}});
    return Fail(why);
  };
  absl::StatusOr<std::unique_ptr<kvm::System>> system = kvm::System::Open(arguments.device);
  if (!system.ok()) return fail(system.status());
  options.host_max_ring_entries = (*system)->capabilities().max_ring_entries();
  loaded = LoadConfig(arguments.config, options);
  if (!loaded.ok()) {
    std::fputs(loaded.ErrorText().c_str(), stderr);
    TellRefused(loaded, events);
    return kExitUsage;
  }
  if (absl::Status able = (*system)->RequireForMachine(); !able.ok()) return fail(able);

  const bool alone = loaded.peer() == nullptr;
  if (alone && arguments.role == "secondary") {
    std::fprintf(stderr, "romulusd: --role secondary needs a second node in the configuration\n");
    return kExitUsage;
  }
  if (arguments.overwrite_peer && (alone || arguments.role != "primary")) {
    std::fprintf(stderr, "romulusd: --overwrite-peer needs --role primary and a second node\n");
    return kExitUsage;
  }
  if (arguments.take_over && (alone || arguments.role != "primary")) {
    std::fprintf(stderr, "romulusd: --take-over needs --role primary and a second node\n");
    return kExitUsage;
  }
  if (arguments.take_over && !loaded.config.failover().arbiter().has_etcd()) {
    std::fprintf(stderr,
                 "romulusd: --take-over needs an etcd arbiter: without one nobody keeps a record "
                 "that could be the other node's\n");
    return kExitUsage;
  }
  NodeOptions node_options;
  node_options.overwrite_peer = arguments.overwrite_peer;
  node_options.config = std::move(loaded);
  node_options.start_as_primary = alone || arguments.role == "primary";
  node_options.role_given = alone || !arguments.role.empty();
  node_options.take_over = arguments.take_over;
  node_options.events = &events;
  node_options.history = &history;
  const base::MonotonicClock clock;
  ServiceManager manager;
  Log log(node_options.config.config.log_level(), node_options.config.config.name(),
          node_options.config.config.node_name());
  Watchdog watchdog(manager, clock, log);
  node_options.manager = &manager;
  node_options.watchdog = &watchdog;
  manager.Extend(kStartNs);
  bool narrowed = false;
  for (;;) {
    watchdog.Expect("start", kStartNs);
    absl::StatusOr<std::unique_ptr<Node>> node = Node::Create(node_options, *std::move(system));
    if (!node.ok()) return fail(node.status());
    // Once all is set up. A node that begins anew sets all up again, with the filter.
    if (!std::exchange(narrowed, true)) {
      if (absl::Status done = Narrow(node_options.config.config, log); !done.ok())
        return fail(done);
    }
    HoldSignals(false);  // the node has its handlers; what waited is told to it first
    const absl::Status ended = (*node)->Run();
    watchdog.Expect("end", kEndNs);
    if (!(*node)->begins_anew()) manager.Stopping();
    if (!(*node)->begins_anew()) return ended.ok() ? kExitOk : Fail(ended);
    HoldSignals(true);
    node_options.switchovers = (*node)->switchovers();
    node->reset();  // its guest, addresses and disks, before there are new ones
    node_options.start_as_primary = node_options.overwrite_peer = node_options.take_over = false;
    node_options.role_given = node_options.begins_anew = true;
    system = kvm::System::Open(arguments.device);
    if (!system.ok()) return fail(system.status());
  }
}

int Main(int argc, char** argv) {
  base::KeepFreedMemory();
  base::SkipMutexChecksInRelease();
  HoldSignals(true);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a console file at its limit is an error of write(), no death
  ::umask(0077);               // sockets and console files are the owner's alone
  Arguments arguments;
  CLI::App app("romulusd runs one guest that outlives its host.");
  app.require_subcommand(1);
  app.footer("Exit codes: 0 ended as asked; 1 failed; 2 wrong arguments or configuration.");

  CLI::App* run = app.add_subcommand("run", "Run this node of a VM, until SIGTERM.");
  run->add_option("--config", arguments.config, "The VM\'s configuration (textproto)")
      ->type_name(kFileType)
      ->required();
  run->add_option("--node", arguments.node, "Which of its nodes this host is");
  run->add_option(
         "--role", arguments.role,
         "What to begin as: primary boots the guest; secondary waits for a primary. Without "
         "this option a node of two is the secondary, unless an arbiter's record says that "
         "it had the guest last")
      ->check(CLI::IsMember({"primary", "secondary"}));
  run->add_flag("--overwrite-peer", arguments.overwrite_peer,
                "As primary: overwrite the other node's disks although they may be newer than the "
                "ones here; what only they hold is lost");
  run->add_flag("--take-over", arguments.take_over,
                "As primary: although the arbiter's record says that the other node has the guest, "
                "or another host of this node's name, which must be gone for good");
  run->add_option("--kvm-device", arguments.device, "KVM's device")
      ->type_name(kFileType)
      ->capture_default_str();

  CLI::App* check = app.add_subcommand(
      "check", "Say what is wrong with a configuration and with the files and taps that it names.");
  check->add_option("--config", arguments.config, "The VM\'s configuration (textproto)")
      ->type_name(kFileType)
      ->required();
  check->add_option("--node", arguments.node, "Which of its nodes this host is");
  check->add_flag("--no-files", arguments.no_files,
                  "The files and taps that it names are on another host: do not look for them");
  check
      ->add_option("--get", arguments.get,
                   "Without errors: print only this field's value, or its default, on a line of "
                   "its own; may be repeated: --get nodes.0.name --get failover.auto_failover")
      ->allow_extra_args(false);

  CLI::App* probe = app.add_subcommand("probe", "Say what KVM offers on this host.");
  probe->add_flag("--json", arguments.json, "As JSON (romulus.v1.HostReport)");
  probe->add_option("--kvm-device", arguments.device, "KVM's device")
      ->type_name(kFileType)
      ->capture_default_str();

  CLI::App* disks = app.add_subcommand(
      "disks", "Say whose copies this node's disks are, and of which term and epoch.");
  disks->add_option("--config", arguments.config, "The VM\'s configuration (textproto)")
      ->type_name(kFileType)
      ->required();
  disks->add_option("--node", arguments.node, "Which of its nodes this host is");
  disks->add_flag("--json", arguments.json, "As JSON (romulus.v1.DiskReport)");
  disks
      ->add_option("--compare", arguments.compare,
                   "What `romulusd disks --json` printed on the other node: names the newer copies")
      ->type_name(kFileType);

  CLI::App* version = app.add_subcommand("version", "Print the version.");
  AddCompletionOption(app);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (!run->parsed()) HoldSignals(false);
  if (version->parsed()) {
    std::printf("romulusd %s\n", kVersion);
    return kExitOk;
  }
  if (check->parsed()) return Check(arguments);
  if (disks->parsed()) return Disks(arguments);
  if (probe->parsed()) return ProbeCommand(arguments.device, arguments.json);
  return Run(arguments);
}

}  // namespace
}  // namespace romulus::daemon

int main(int argc, char** argv) { return romulus::daemon::Main(argc, argv); }
