// The vCPU pages of a guest that keeps nothing else in them (layout.h).
#include "guest.h"

__attribute__((section(".cpu"), used)) static uint8_t guest_cpu[GUEST_PAGE_SIZE];
