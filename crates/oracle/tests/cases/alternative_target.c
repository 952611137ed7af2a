// What a replacement calls.
// changed: calls
#ifdef PATCHED
#define NAME "one"
#else
#define NAME "two"
#endif
void calls(void)
{
    __asm__ volatile("661:\n\t.skip 5,0x90\n662:\n"
                     ".pushsection .altinstructions,\"a\",@progbits\n"
                     ".long 661b - .\n.long 663f - .\n.word 7\n.byte 5\n.byte 5\n.byte 0\n.byte 0\n"
                     ".section .altinstr_replacement,\"ax\",@progbits\n"
                     "663:\n\tcall " NAME "\n664:\n.popsection" ::: "memory");
}
