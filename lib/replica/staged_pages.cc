#include "replica/staged_pages.h"
