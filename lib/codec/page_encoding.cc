#include "codec/page_encoding.h"
