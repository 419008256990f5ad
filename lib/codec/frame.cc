#include "codec/frame.h"
