// ROMULUS_CHECK: ends the process when one of our own invariants is broken. Never for bytes that a
// guest, a peer, a disk or a user produced: those get a Status. Any thread.
#ifndef ROMULUS_BASE_CHECK_H_
#define ROMULUS_BASE_CHECK_H_

namespace romulus::base {

[[noreturn]] void CheckFailed(const char* file, int line, const char* expression);

}  // namespace romulus::base

#define ROMULUS_CHECK(expression)                                    \
  do {                                                               \
    if (!(expression)) [[unlikely]] {                                \
      ::romulus::base::CheckFailed(__FILE__, __LINE__, #expression); \
    }                                                                \
  } while (false)

#endif  // ROMULUS_BASE_CHECK_H_
