// Exit codes of romulusd and romulusctl; their --help says the same.
#ifndef ROMULUS_DAEMON_EXIT_CODES_H_
#define ROMULUS_DAEMON_EXIT_CODES_H_

namespace romulus::daemon {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;       // it was tried and did not work
inline constexpr int kExitUsage = 2;        // wrong arguments or configuration
inline constexpr int kExitUnreachable = 3;  // romulusctl: no daemon answers
inline constexpr int kExitRefused = 4;      // romulusctl: the daemon refused, and says why

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_EXIT_CODES_H_
