// Shell completion for romulusd and romulusctl, made from the tree of options that the program
// parses by: what it offers is what --help tells. Any thread; nothing is kept.
//
// What an option's value is, is told by its type name: "FILE" completes files, "ADDRESS" the
// control sockets in /run/romulus, and what CLI::IsMember allows is offered by name; anything else
// is left to the user.
#ifndef ROMULUS_DAEMON_COMPLETION_H_
#define ROMULUS_DAEMON_COMPLETION_H_

#include <string>

#include "absl/strings/string_view.h"

namespace CLI {
class App;
}

namespace romulus::daemon {

inline constexpr char kFileType[] = "FILE";
inline constexpr char kAddressType[] = "ADDRESS";

// The script for "bash", "zsh" or "fish" that completes `program`: its options, its subcommands
// (one level), and theirs. Hidden ones (of no group) are left out. Other shells: empty.
std::string CompletionScript(const CLI::App& app, absl::string_view program,
                             absl::string_view shell);

// A hidden option `--completion SHELL`: prints the script and ends the parse by CLI::Success,
// before anything else is asked for. What is said is complete when it is called last, behind all
// other options.
void AddCompletionOption(CLI::App& app);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_COMPLETION_H_
