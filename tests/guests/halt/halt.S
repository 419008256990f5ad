// Says that it is there and halts, with interrupts off: nothing but its VMM costs anything. All of it
// runs at CPL0, where alone a guest can halt.
#include "cpl0.inc"

2:  hlt
    jmp 2b

greeting:
    .asciz "halt: ready\n"

    .section .note.GNU-stack, "", @progbits
