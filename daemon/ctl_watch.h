// `romulusctl watch`: a screen that shows one daemon, again and again. The only file that knows
// ncurses is its .cc. One thread; one at a time in a process.
#ifndef ROMULUS_DAEMON_CTL_WATCH_H_
#define ROMULUS_DAEMON_CTL_WATCH_H_

#include "absl/time/time.h"
#include "daemon/ctl_client.h"

namespace romulus::daemon {

// Until 'q', SIGINT, SIGTERM or SIGHUP; the terminal is then as it was. Returns the exit code: that
// of wrong usage without a terminal, and what the first question brought if it failed.
int WatchOnScreen(CtlClient& client, absl::Duration interval);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_WATCH_H_
