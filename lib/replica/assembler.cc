#include "replica/assembler.h"
