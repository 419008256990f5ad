#include "replica/console_tail.h"
