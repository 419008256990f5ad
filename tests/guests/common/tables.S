// Descriptor and page tables, complete at link time. Accessed and dirty bits are set beforehand, so
// that no table page becomes dirty while the guest works (page counts in the README rely on it).
#include "layout.h"

#define PTE_TABLE 0x27   // present, writable, user, accessed
#define PTE_2MIB  0xe7   // the same, dirty, page size

    .section .tables, "aw"

    // TSS (Intel SDM vol. 3, 8.7): all share one all-clear I/O bitmap, which lets CPL3 use ports.
    .globl guest_tss
guest_tss:
    .set i, 0
    .rept GUEST_MAX_VCPUS
    .long 0
    .quad guest_trap_stacks + 1024 * (i + 1)  // rsp0
    .fill 22, 4, 0
    .word 0
    .word GUEST_TSS_BITMAP - i * GUEST_TSS_STRIDE
    .fill GUEST_TSS_STRIDE - 104, 1, 0
    .set i, i + 1
    .endr
    .fill GUEST_TSS_BITMAP_BYTES, 1, 0
    .byte 0xff  // the byte after the bitmap must be all ones

    .balign 4096
    .globl guest_pml4
guest_pml4:
    .quad pdpt + PTE_TABLE
    .fill 511, 8, 0
pdpt:
    .set i, 0
    .rept 4
    .quad page_dirs + i * 4096 + PTE_TABLE
    .set i, i + 1
    .endr
    .fill 508, 8, 0
page_dirs:
    .set i, 0
    .rept 4 * 512
    .quad i * 0x200000 + PTE_2MIB
    .set i, i + 1
    .endr

    .balign 4096
idt:
    .set i, 0
    .rept 256
    .word (GUEST_STUBS_PA + i * 16) & 0xffff
    .word 0x18
    .word 0x8e00  // interrupt gate, DPL 0
    .word (GUEST_STUBS_PA + i * 16) >> 16
    .quad 0
    .set i, i + 1
    .endr

gdt:
    .quad 0
    .quad 0x00cf9b000000ffff  // 0x08 code32, CPL0
    .quad 0x00cf93000000ffff  // 0x10 data, CPL0
    .quad 0x00af9b000000ffff  // 0x18 code64, CPL0
    .quad 0x00cff3000000ffff  // 0x20 data, CPL3
    .quad 0x00affb000000ffff  // 0x28 code64, CPL3
    .set i, 0
    .rept GUEST_MAX_VCPUS    // 0x30 + 16 i: TSS
    .word GUEST_TSS_BITMAP + GUEST_TSS_BITMAP_BYTES - i * GUEST_TSS_STRIDE
    .word (GUEST_TSS_PA + i * GUEST_TSS_STRIDE) & 0xffff
    .byte (GUEST_TSS_PA + i * GUEST_TSS_STRIDE) >> 16
    .byte 0x89, 0, 0
    .quad 0
    .set i, i + 1
    .endr
gdt_end:

    .globl guest_gdt_ptr, guest_idt_ptr
guest_gdt_ptr:
    .word gdt_end - gdt - 1
    .quad gdt
guest_idt_ptr:
    .word 256 * 16 - 1
    .quad idt

    .section .bss
    .balign 4096
guest_trap_stacks:
    .skip 1024 * GUEST_MAX_VCPUS
