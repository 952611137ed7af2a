// The feature of one alternative, and the replacement of another; the third only moves.
// changed: feature replacement
#define ALTERNATIVE(old, new, bit)                                                            \
    __asm__ volatile("661:\n\t" old "\n662:\n"                                                \
                     ".pushsection .altinstructions,\"a\",@progbits\n"                        \
                     ".long 661b - .\n.long 663f - .\n.word " #bit "\n"                       \
                     ".byte 662b-661b\n.byte 664f-663f\n.byte 0\n.byte 0\n"                   \
                     ".section .discard,\"a\",@progbits\n.byte 1\n"                           \
                     ".section .altinstr_replacement,\"ax\",@progbits\n"                      \
                     "663:\n\t" new "\n664:\n.popsection" ::: "memory")
#ifdef PATCHED
#define BIT 0x26f
#define CODE "mov $2,%%eax"
void before(void);
#else
#define BIT 0x26c
#define CODE "mov $1,%%eax"
#endif
#define EXPANDED(bit) ALTERNATIVE("nop\n\tnop\n\tnop", "lfence", bit)
#ifdef PATCHED
// A first entry that the base does not have moves all others.
// new: before
void before(void) { ALTERNATIVE("nop\n\tnop\n\tnop", "clac", 0x11); }
#endif
void feature(void) { EXPANDED(BIT); }
void replacement(void)
{
    __asm__ volatile("661:\n\t.skip 5,0x90\n662:\n"
                     ".pushsection .altinstructions,\"a\",@progbits\n"
                     ".long 661b - .\n.long 663f - .\n.word 7\n.byte 5\n.byte 5\n.byte 0\n.byte 0\n"
                     ".section .altinstr_replacement,\"ax\",@progbits\n"
                     "663:\n\t" CODE "\n664:\n.popsection" ::: "eax");
}
void target(void);
void stays(void) { ALTERNATIVE("nop\n\tnop\n\tnop", "lfence", 0x26c); }
void calls(void) { ALTERNATIVE(".skip 5,0x90", "call target", 3); }
