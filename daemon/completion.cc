#include "daemon/completion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace romulus::daemon {
namespace {

enum class ValueKind { kNone, kAny, kFile, kAddress, kOneOf };

struct OptionWords {
  std::vector<std::string> names;  // "--json", "-h"
  std::string description;
  ValueKind kind = ValueKind::kNone;
  std::vector<std::string> values;  // kOneOf
};

struct Command {
  std::string name;  // empty: the program itself
  std::string description;
  std::vector<OptionWords> options;
};

// In a menu only what comes before the details has room.
std::string FirstSentence(absl::string_view text) {
  constexpr size_t kMaxBytes = 90;
  text = text.substr(0, std::min(text.find(". "), text.find(';')));
  if (text.size() > kMaxBytes) text = text.substr(0, text.rfind(' ', kMaxBytes));
  absl::ConsumeSuffix(&text, ".");
  return std::string(absl::StripAsciiWhitespace(text));
}

OptionWords WordsOf(const CLI::Option& option) {
  OptionWords words;
  for (const std::string& name : option.get_lnames()) words.names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) words.names.push_back("-" + name);
  words.description = FirstSentence(option.get_description());
  if (option.get_items_expected_max() == 0) return words;
  const std::string type = option.get_type_name();
  const size_t open = type.find('{'), close = type.rfind('}');
  words.kind = ValueKind::kAny;
  if (absl::StartsWith(type, kFileType)) {
    words.kind = ValueKind::kFile;
  } else if (absl::StartsWith(type, kAddressType)) {
    words.kind = ValueKind::kAddress;
  } else if (open != std::string::npos && close != std::string::npos && close > open) {
    words.kind = ValueKind::kOneOf;
    words.values = absl::StrSplit(type.substr(open + 1, close - open - 1), ',');
  }
  return words;
}

// Each subcommand has its own --help; the program's stands for all.
Command CommandOf(const CLI::App& app, absl::string_view name) {
  Command command{std::string(name), FirstSentence(app.get_description()), {}};
  for (const CLI::Option* option : app.get_options()) {
    if (!option->nonpositional() || option->get_group().empty()) continue;
    if (!name.empty() && option == app.get_help_ptr()) continue;
    command.options.push_back(WordsOf(*option));
  }
  return command;
}

// The program itself comes first.
std::vector<Command> CommandsOf(const CLI::App& app) {
  std::vector<Command> commands{CommandOf(app, "")};
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) commands.push_back(CommandOf(*sub, sub->get_name()));
  }
  return commands;
}

std::vector<std::string> NamesOf(const std::vector<Command>& commands) {
  std::vector<std::string> names;
  for (const Command& command : commands) {
    if (!command.name.empty()) names.push_back(command.name);
  }
  return names;
}

std::vector<std::string> NamesOf(const Command& command) {
  std::vector<std::string> names;
  for (const OptionWords& option : command.options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return names;
}

std::string BashValues(const OptionWords& option) {
  switch (option.kind) {
    case ValueKind::kFile:
      return "_filedir";
    case ValueKind::kAddress:
      return "COMPREPLY=($(compgen -W \"$(compgen -G '/run/romulus/*.sock' | sed 's|^|unix://|')\""
             " -- \"$cur\")); __ltrim_colon_completions \"$cur\"";
    case ValueKind::kOneOf:
      return absl::StrCat("COMPREPLY=($(compgen -W \"", absl::StrJoin(option.values, " "),
                          "\" -- \"$cur\"))");
    default:
      return "COMPREPLY=()";
  }
}

std::string Bash(const std::vector<Command>& commands, absl::string_view program) {
  std::string values, offered, takes_value;
  for (const Command& command : commands) {
    for (const OptionWords& option : command.options) {
      if (option.kind == ValueKind::kNone) continue;
      // The program's own options may stand behind a subcommand, too.
      const std::string scope = command.name.empty() ? "*'" : absl::StrCat("'", command.name);
      for (const std::string& name : option.names) {
        absl::StrAppend(&values, "    ", scope, " ", name, "') ", BashValues(option),
                        "; return ;;\n");
        absl::StrAppend(&takes_value, takes_value.empty() ? "" : "|", name);
      }
    }
    const std::string pattern = command.name.empty() ? "''" : command.name;
    const std::string more =
        command.name.empty() ? absl::StrJoin(NamesOf(commands), " ") : "$program_options";
    absl::StrAppend(
        &offered, "    ", pattern, ") words_offered=\"",
        command.name.empty() ? "$program_options" : absl::StrJoin(NamesOf(command), " "), " ", more,
        "\" ;;\n");
  }
  return absl::StrCat("# bash completion of ", program, "; needs the package bash-completion.\n_",
                      program,
                      "() {\n"
                      "  local cur prev words cword i subcommand= words_offered=\n"
                      "  local program_options=\"",
                      absl::StrJoin(NamesOf(commands.front()), " "),
                      "\"\n"
                      "  _init_completion -n : || return\n"
                      "  for ((i = 1; i < cword; i++)); do\n"
                      "    case ${words[i]} in\n"
                      "      ",
                      takes_value,
                      ") ((i++)) ;;\n"
                      "      ",
                      absl::StrJoin(NamesOf(commands), "|"),
                      ") subcommand=${words[i]}; break ;;\n"
                      "    esac\n"
                      "  done\n"
                      "  case \"$subcommand $prev\" in\n",
                      values,
                      "  esac\n"
                      "  case $subcommand in\n",
                      offered,
                      "  esac\n"
                      "  COMPREPLY=($(compgen -W \"$words_offered\" -- \"$cur\"))\n"
                      "}\n"
                      "complete -F _",
                      program, " ", program, "\n");
}

std::string ZshText(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"'", "'\\''"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}, {"\\", ""}});
}

std::string ZshOption(const OptionWords& option) {
  std::string value;
  switch (option.kind) {
    case ValueKind::kNone:
      break;
    case ValueKind::kFile:
      value = ":file:_files";
      break;
    case ValueKind::kAddress:
      value = ":address:_romulus_addresses";
      break;
    case ValueKind::kOneOf:
      value = absl::StrCat(":value:(", absl::StrJoin(option.values, " "), ")");
      break;
    case ValueKind::kAny:
      value = ":value: ";
      break;
  }
  std::string lines;
  for (const std::string& name : option.names) {
    absl::StrAppend(&lines, "    '", name, "[", ZshText(option.description), "]", value, "'\n");
  }
  return lines;
}

std::string ZshOptions(const Command& command) {
  std::string lines;
  for (const OptionWords& option : command.options) absl::StrAppend(&lines, ZshOption(option));
  return lines;
}

std::string Zsh(const std::vector<Command>& commands, absl::string_view program) {
  std::string described, cases;
  for (const Command& command : commands) {
    if (command.name.empty()) continue;
    absl::StrAppend(&described, "    '", command.name, ":", ZshText(command.description), "'\n");
    absl::StrAppend(&cases, "    ", command.name, ")\n    options+=(\n", ZshOptions(command),
                    "    ) ;;\n");
  }
  return absl::StrCat("#compdef ", program,
                      "\n_romulus_addresses() {\n"
                      "  local -a sockets=(/run/romulus/*.sock(N))\n"
                      "  compadd -- unix://${^sockets}\n"
                      "}\n_",
                      program,
                      "() {\n"
                      "  local context state state_descr line\n"
                      "  typeset -A opt_args\n"
                      "  local -a options=(\n",
                      ZshOptions(commands.front()),
                      "  )\n"
                      "  local -a subcommands=(\n",
                      described,
                      "  )\n"
                      "  _arguments -C $options '1: :->subcommand' '*:: :->rest' && return\n"
                      "  if [[ $state == subcommand ]]; then\n"
                      "    _describe subcommand subcommands\n"
                      "    return\n"
                      "  fi\n"
                      "  case $words[1] in\n",
                      cases,
                      "  esac\n"
                      "  _arguments $options\n"
                      "}\n"
                      "if [ \"$funcstack[1]\" = _",
                      program, " ]; then _", program, " \"$@\"; else compdef _", program, " ",
                      program, "; fi\n");
}

std::string FishText(absl::string_view text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

std::string FishOption(const OptionWords& option) {
  std::string line;
  for (const std::string& name : option.names) {
    const bool is_long = absl::StartsWith(name, "--");
    absl::StrAppend(&line, is_long ? " -l " : " -s ", name.substr(is_long ? 2 : 1));
  }
  switch (option.kind) {
    case ValueKind::kNone:
      break;
    case ValueKind::kAny:
      absl::StrAppend(&line, " -x");
      break;
    case ValueKind::kFile:
      absl::StrAppend(&line, " -r -F");
      break;
    case ValueKind::kAddress:
      absl::StrAppend(&line, " -x -a '(string replace -r ^ unix:// /run/romulus/*.sock)'");
      break;
    case ValueKind::kOneOf:
      absl::StrAppend(&line, " -x -a '", absl::StrJoin(option.values, " "), "'");
      break;
  }
  return absl::StrCat(line, " -d ", FishText(option.description), "\n");
}

std::string Fish(const std::vector<Command>& commands, absl::string_view program) {
  const std::string complete = absl::StrCat("complete -c ", program);
  std::string text = absl::StrCat("# fish completion of ", program, "\n", complete, " -f\n");
  for (const Command& command : commands) {
    std::string when;
    if (!command.name.empty()) {
      absl::StrAppend(&text, complete, " -n __fish_use_subcommand -a ", command.name, " -d ",
                      FishText(command.description), "\n");
      when = absl::StrCat(" -n '__fish_seen_subcommand_from ", command.name, "'");
    }
    for (const OptionWords& option : command.options) {
      absl::StrAppend(&text, complete, when, FishOption(option));
    }
  }
  return text;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, absl::string_view program,
                             absl::string_view shell) {
  const std::vector<Command> commands = CommandsOf(app);
  if (shell == "bash") return Bash(commands, program);
  if (shell == "zsh") return Zsh(commands, program);
  if (shell == "fish") return Fish(commands, program);
  return "";
}

void AddCompletionOption(CLI::App& app) {
  app.add_option_function<std::string>(
         "--completion",
         [&app](const std::string& shell) {
           const std::string path = app.get_name();
           const std::string script =
               CompletionScript(app, path.substr(path.rfind('/') + 1), shell);
           std::fputs(script.c_str(), stdout);
           throw CLI::Success();
         },
         "Print a completion script")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->group("");
}

}  // namespace romulus::daemon
