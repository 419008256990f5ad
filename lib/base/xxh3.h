// XXH3 by the widest vectors that the processor has, chosen at run time by libxxhash itself. Its
// plain header takes what the compiler may take for granted: SSE2, a third as fast on pages that
// are in the cache. The hashes are the same. Users link PkgConfig::XXHASH.
#ifndef ROMULUS_BASE_XXH3_H_
#define ROMULUS_BASE_XXH3_H_

#include <xxh_x86dispatch.h>  // IWYU pragma: export

#endif  // ROMULUS_BASE_XXH3_H_
