#include "replica/fault.h"
