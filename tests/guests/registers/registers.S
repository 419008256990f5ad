// Changes at CPL0 what no page and no interrupt tells about: n goes into DR0, and if it is a multiple of 4 the bit
// above into XCR0 and n's lower 20 bits as a page's number into the first MTRR's base, then n itself to the page at
// 0x180000, again and again, with some time in between.
#include "cpl0.inc"

    movl %cr4, %eax
    orl $(1 << 18), %eax    // OSXSAVE
    movl %eax, %cr4
    xorl %ebx, %ebx
3:  incl %ebx
    testl $3, %ebx          // seldom: it ends what a write to DR0 may have opened
    jnz 5f
    xorl %ecx, %ecx         // XCR0 = 1 (x87), or 3 (and SSE)
    xorl %edx, %edx
    movl %ebx, %eax
    shrl $2, %eax
    andl $1, %eax
    leal 1(%eax, %eax), %eax
    xsetbv
    movl $0x200, %ecx       // IA32_MTRR_PHYSBASE0, uncacheable; its mask is not valid
    xorl %edx, %edx
    movl %ebx, %eax
    shll $12, %eax
    wrmsr
5:  movl %ebx, %dr0
    movl %ebx, 0x180000
    movl $100, %ecx
4:  pause
    decl %ecx
    jnz 4b
    jmp 3b

greeting:
    .asciz "registers: ready\n"

    .section .note.GNU-stack, "", @progbits
