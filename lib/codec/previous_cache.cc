#include "codec/previous_cache.h"
