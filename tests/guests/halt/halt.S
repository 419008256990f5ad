// Says that it is there and halts, with interrupts off: nothing but its VMM costs anything. All of it
// runs at CPL0, where alone a guest can halt.
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18          // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad guest_entry

    .section .text, "ax"
    .code32
    .globl guest_entry
guest_entry:
    cli
    cld
    movw $0x3f8, %dx        // COM1
    movl $greeting, %esi
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  hlt
    jmp 2b

greeting:
    .asciz "halt: ready\n"

    .section .note.GNU-stack, "", @progbits
