#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace romulus::base {

void CheckFailed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, expression);
  std::abort();
}

}  // namespace romulus::base
