// What the linker throws away, and notes.
#ifdef PATCHED
#define BYTE "7"
#else
#define BYTE "6"
#endif
__asm__(".pushsection .discard,\"a\"\n.byte " BYTE "\n.section .discard.more,\"a\"\n.byte " BYTE "\n"
        ".section .note.own,\"a\",@note\n.long 4,4,1\n.asciz \"own\"\n.long " BYTE "\n.popsection");
int stays(int x) { return x + 1; }
