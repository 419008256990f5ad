// From the PVH entry, or a start-up IPI, to C at CPL3. Everything that runs at CPL0 is in this file
// (but for the last words of a trap): kvm-pvm emulates CPL0 slowly and incompletely.
// PVH start: https://xenbits.xen.org/docs/unstable/misc/pvh.html
#include "layout.h"

#define SEL_CODE32 0x08
#define SEL_DATA   0x10
#define SEL_CODE64 0x18
#define SEL_UDATA  0x23
#define SEL_UCODE  0x2b
#define SEL_TSS    0x30

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18          // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad guest_entry

    .section .boot, "ax"
    .code32
    .globl guest_entry
guest_entry:
    cli
    cld
    // At CPL3 kvm-pvm takes interrupts whatever RFLAGS.IF says.
    movb $0xff, %al
    outb %al, $0x21
    outb %al, $0xa1
    xorl %ebp, %ebp         // vCPU index
    jmp enter_long

    .globl guest_ap_entry
guest_ap_entry:
    movw $SEL_DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movl guest_ap_index, %ebp
    // fall through

enter_long:                 // ebp: vCPU index, ebx: hvm_start_info (boot processor only)
    movl $0x20, %eax        // PAE
    movl %eax, %cr4
    movl $guest_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx  // EFER.LME
    xorl %edx, %edx
    movl $0x100, %eax
    wrmsr
    movl $0x80010033, %eax  // PG WP NE ET MP PE; clears the CD and NW that INIT leaves set
    movl %eax, %cr0
    lgdt guest_gdt_ptr
    ljmp $SEL_CODE64, $long_mode

    .code64
long_mode:
    lidt guest_idt_ptr
    // A firmware may leave x2APIC on; C wants the MMIO window, which needs no CPL0.
    movl $0x1b, %ecx        // IA32_APIC_BASE
    rdmsr
    testl $0x400, %eax
    jz 1f
    andl $~0xc00, %eax      // x2APIC goes back to xAPIC only by way of disabled
    wrmsr
    orl $0x800, %eax
    wrmsr
1:  movl %ebp, %eax
    shll $4, %eax
    addl $SEL_TSS, %eax
    ltr %ax
    movl $SEL_UDATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %ebp, %ecx
    shll $12, %ecx
    leal GUEST_CPU_PA + GUEST_PAGE_SIZE(%rcx), %ecx
    movl %ecx, %esp
    subl $8, %ecx           // as after a call
    pushq $SEL_UDATA
    pushq %rcx
    // RFLAGS: interrupts off, IOPL 3. The TSS's bitmap allows ports too, but an emulated CPU may refuse
    // it once the TSS was restored as busy (QEMU 7.2, check_io), and kvm-pvm ignores IOPL: so both.
    pushq $0x3002
    pushq $SEL_UCODE
    pushq $guest_user
    iretq

guest_user:                // CPL3 from here
    movl %ebp, %edi
    movl %ebx, %esi
    xorl %ebp, %ebp
    jmp guest_main

    // Copied to GUEST_TRAMPOLINE_PA, entered in real mode with CS = that >> 4.
    .code16
    .globl guest_trampoline, guest_trampoline_end
guest_trampoline:
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_ptr - guest_trampoline
    movl $0x11, %eax        // PE, ET
    movl %eax, %cr0
    ljmpl $SEL_CODE32, $guest_ap_entry
trampoline_gdt_ptr:
    .word 0x17
    .long trampoline_gdt - guest_trampoline + GUEST_TRAMPOLINE_PA
    .balign 8
trampoline_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
guest_trampoline_end:

    // Exceptions end the guest with a message. Anything else is a stray interrupt: acknowledge it.
    .code64
    .section .stubs, "ax"
    .globl guest_stubs
guest_stubs:
    .set i, 0
    .rept 256
    .balign 16
    .if i < 32
    .if (i != 8) && (i != 10) && (i != 11) && (i != 12) && (i != 13) && (i != 14) && (i != 17)
    pushq $0
    .endif
    pushq $i
    jmp trap
    .else
    jmp stray
    .endif
    .set i, i + 1
    .endr
    .balign 16
trap:
    movq %rsp, %rdi         // struct TrapFrame
    movq %cr2, %rsi
    andq $-16, %rsp
    cld
    call guest_trap
stray:
    pushq %rax
    movl $0xfee000b0, %eax  // EOI
    movl $0, (%rax)
    popq %rax
    iretq

    .section .note.GNU-stack, "", @progbits
