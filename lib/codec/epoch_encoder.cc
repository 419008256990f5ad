#include "codec/epoch_encoder.h"
