#include "replica/session.h"
