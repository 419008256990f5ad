#include "codec/page_digest.h"
