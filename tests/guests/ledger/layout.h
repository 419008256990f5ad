// Fixed guest physical addresses, shared by C, assembly and the linker script.
//
// The descriptor tables are constants of the image, so that the CPL0 part of the boot, which some
// hosts emulate instruction by instruction, has no loops; that needs addresses known beforehand.
#ifndef ROMULUS_TESTS_GUESTS_LEDGER_LAYOUT_H_
#define ROMULUS_TESTS_GUESTS_LEDGER_LAYOUT_H_

#define LEDGER_MAX_VCPUS 8

#define LEDGER_TRAMPOLINE_PA 0x8000  // SIPI vector 0x08; free RAM under SeaBIOS and bare VMMs
#define LEDGER_IMAGE_PA 0x100000
#define LEDGER_STUBS_PA 0x101000     // 256 trap stubs, 16 bytes each
#define LEDGER_TSS_PA 0x180000       // 8 task state segments, 128 bytes apart, one I/O bitmap
#define LEDGER_PROGRESS_PA 0x200000  // struct CpuPage, one page per vCPU
#define LEDGER_DATA_PA 0x400000      // working set; external generation tables follow it

#define LEDGER_TSS_STRIDE 128
#define LEDGER_TSS_BITMAP (LEDGER_MAX_VCPUS * LEDGER_TSS_STRIDE)
#define LEDGER_TSS_BITMAP_BYTES 8192

#define LEDGER_PAGE_SIZE 4096
#define LEDGER_GEN_OFFSET 256  // within a CpuPage
#define LEDGER_GEN_INLINE 256  // generation counters that fit into a CpuPage

#endif  // ROMULUS_TESTS_GUESTS_LEDGER_LAYOUT_H_
