// A configuration that was refused, as an event: so that whoever asks later why no daemon ran is
// told by the next one. Any thread.
#ifndef ROMULUS_DAEMON_REFUSED_CONFIG_H_
#define ROMULUS_DAEMON_REFUSED_CONFIG_H_

#include <string>

#include "daemon/config.h"
#include "daemon/event_journal.h"

namespace romulus::daemon {

// "config_refused", with the first error and how many there are.
void TellRefused(const LoadedConfig& refused, EventJournal& events);

// The same in the journal of the node that it would have been: `node` (--node, or empty) or the
// configuration's own. Nothing is written if even that cannot be said for sure, as the text ends
// before it, or a name or the folder is among what is wrong; nor while a daemon has the journal.
// `state_directory`: systemd's, or empty.
void LeaveRefused(const LoadedConfig& refused, const std::string& node,
                  const std::string& state_directory);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_REFUSED_CONFIG_H_
