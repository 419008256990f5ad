#include "daemon/ctl_watch.h"

#include <langinfo.h>
#include <signal.h>
#include <unistd.h>

// As macros its names ("clear", "timeout") would be everybody's.
#define NCURSES_NOMACROS 1
#include <curses.h>

#include <algorithm>
#include <chrono>
#include <clocale>
#include <cstdlib>
#include <cwchar>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "daemon/clean_text.h"
#include "daemon/ctl_events.h"
#include "daemon/ctl_screen.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

constexpr std::chrono::seconds kAnswerTimeout{3};
constexpr int kKeyPollMs = 100;

volatile sig_atomic_t told_to_end = 0;

// While it lives the terminal is ncurses'.
class Terminal {
 public:
  Terminal() {
    struct sigaction action {};
    action.sa_handler = [](int) { told_to_end = 1; };
    ::sigemptyset(&action.sa_mask);
    // Before ncurses looks: it leaves handlers alone that are there.
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
    screen_ = ::newterm(nullptr, stdout, stdin);
    if (screen_ == nullptr) return;
    ::cbreak();
    ::noecho();
    ::curs_set(0);
    ::keypad(stdscr, TRUE);
    ::wtimeout(stdscr, kKeyPollMs);
    if (::has_colors()) {
      ::start_color();
      ::use_default_colors();
      ::init_pair(1, COLOR_GREEN, -1);
      ::init_pair(2, COLOR_YELLOW, -1);
      ::init_pair(3, COLOR_RED, -1);
    }
  }
  ~Terminal() {
    if (screen_ == nullptr) return;
    ::endwin();
    ::delscreen(screen_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool ok() const { return screen_ != nullptr; }
  size_t columns() const { return static_cast<size_t>(std::max(1, ::getmaxx(stdscr))); }
  size_t rows() const { return static_cast<size_t>(std::max(1, ::getmaxy(stdscr))); }

  void Draw(const std::vector<std::string>& lines, Mood mood) {
    ::werase(stdscr);
    for (size_t row = 0; row < std::min(lines.size(), rows()); ++row) {
      const attr_t look = row == 0 ? A_BOLD : row == 1 ? A_BOLD | Colour(mood) : A_NORMAL;
      ::wattr_on(stdscr, look, nullptr);
      const std::string line = Clip(lines[row]);
      ::mvwaddnstr(stdscr, static_cast<int>(row), 0, line.c_str(), static_cast<int>(line.size()));
      ::wattr_off(stdscr, look, nullptr);
    }
    ::wrefresh(stdscr);
  }
  // Returns whether it is time to end; early if it is, or if the size has changed.
  bool WaitForKey(absl::Duration patience) {
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(patience);
    do {
      const int key = ::wgetch(stdscr);
      if (told_to_end != 0 || key == 'q' || key == 'Q') return true;
      if (key == KEY_RESIZE) {
        ::clearok(stdscr, TRUE);  // what the terminal made of the old rows is not known
        return false;
      }
    } while (std::chrono::steady_clock::now() < until);
    return false;
  }

 private:
  static attr_t Colour(Mood mood) {
    if (!::has_colors()) return A_NORMAL;
    return static_cast<attr_t>(COLOR_PAIR(mood == Mood::kGood ? 1 : mood == Mood::kBusy ? 2 : 3));
  }
  // What fits into a row: a longer line would go on in the next one.
  std::string Clip(const std::string& line) const {
    std::mbstate_t state{};
    size_t used = 0, at = 0;
    while (at < line.size()) {
      wchar_t c = 0;
      const size_t bytes = std::mbrtowc(&c, line.data() + at, line.size() - at, &state);
      if (bytes == 0 || bytes > line.size()) break;  // no character of this locale
      const int width = std::max(0, ::wcwidth(c));
      if (used + static_cast<size_t>(width) > columns()) break;
      used += static_cast<size_t>(width);
      at += bytes;
    }
    return line.substr(0, at);
  }

  SCREEN* screen_ = nullptr;
};

}  // namespace

int WatchOnScreen(CtlClient& client, absl::Duration interval) {
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
    std::fprintf(stderr,
                 "romulusctl: watch draws on a terminal, and this is none; `status --watch` is for "
                 "pipes and files\n");
    return kExitUsage;
  }
  v1::GetStatusResponse status;
  const grpc::Status first =
      client.Ask(&CtlClient::Stub::GetStatus, v1::GetStatusRequest(), &status);
  if (!first.ok()) return client.Fail(first);

  std::setlocale(LC_ALL, "");
  const bool utf8 = std::string(::nl_langinfo(CODESET)) == "UTF-8";
  const base::MonotonicClock clock;
  RecentRates recent;
  recent.Add(status, clock.NowNs());
  Terminal terminal;
  if (!terminal.ok()) {
    const char* const name = std::getenv("TERM");
    std::fprintf(stderr, "romulusctl: the terminal '%s' (TERM) is not known here\n",
                 name == nullptr ? "" : name);
    return kExitUsage;
  }
  uint64_t asked_ns = clock.NowNs();
  for (std::string failure;;) {
    // Without events the rest is still worth a look.
    std::vector<v1::Event> events;
    if (failure.empty()) {
      ReadEvents(client, 0, static_cast<uint32_t>(terminal.rows()), &events);
    }
    std::vector<std::string> lines = ScreenLines(status, recent, events, terminal.columns(), utf8);
    if (!failure.empty()) lines.insert(lines.begin() + 1, "NO ANSWER: " + CleanText(failure));
    terminal.Draw(lines, failure.empty() ? MoodOf(status.mode()) : Mood::kBad);
    if (terminal.WaitForKey(interval)) return kExitOk;
    // A change of the size draws at once, and is no reason for another question.
    if (clock.NowNs() - asked_ns < static_cast<uint64_t>(absl::ToInt64Nanoseconds(interval)))
      continue;
    asked_ns = clock.NowNs();
    v1::GetStatusResponse now;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kAnswerTimeout);
    const grpc::Status asked = client.stub().GetStatus(&context, v1::GetStatusRequest(), &now);
    failure = asked.error_message();
    if (!asked.ok()) {
      if (failure.empty()) failure = "no reason was given";
      continue;
    }
    status = std::move(now);
    recent.Add(status, asked_ns);
  }
}

}  // namespace romulus::daemon
