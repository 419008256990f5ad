#include "replica/replica_store.h"
