// Fixed guest physical addresses, shared by C, assembly and the linker script of all guests here.
//
// The descriptor tables are constants of the image, so that the CPL0 part of the boot, which some
// hosts emulate instruction by instruction, has no loops; that needs addresses known beforehand.
#ifndef ROMULUS_TESTS_GUESTS_COMMON_LAYOUT_H_
#define ROMULUS_TESTS_GUESTS_COMMON_LAYOUT_H_

#define GUEST_MAX_VCPUS 8

#define GUEST_TRAMPOLINE_PA 0x8000  // SIPI vector 0x08; free RAM under SeaBIOS and bare VMMs
#define GUEST_IMAGE_PA 0x100000
#define GUEST_STUBS_PA 0x101000  // 256 trap stubs, 16 bytes each
#define GUEST_TSS_PA 0x180000    // 8 task state segments, 128 bytes apart, one I/O bitmap
#define GUEST_CPU_PA 0x200000    // a page per vCPU: its stack at the end, before it what it likes
#define GUEST_DATA_PA 0x400000   // free for what a guest works on

#define GUEST_TSS_STRIDE 128
#define GUEST_TSS_BITMAP (GUEST_MAX_VCPUS * GUEST_TSS_STRIDE)
#define GUEST_TSS_BITMAP_BYTES 8192

#define GUEST_PAGE_SIZE 4096

#endif  // ROMULUS_TESTS_GUESTS_COMMON_LAYOUT_H_
