// The code that goes on after a fault.
// changed: changes gains
#define READ(value, error)                                                                       \
    __asm__ volatile("1: mov (%1),%0\n2:\n.pushsection .fixup,\"ax\"\n"                          \
                     "3: mov %2,%0\n jmp 2b\n.popsection\n"                                      \
                     ".pushsection .ex_table,\"a\"\n.balign 4\n.long 1b - .\n.long 3b - .\n"     \
                     ".popsection" : "=r" (value) : "r" (pointer), "i" (error))
#ifdef PATCHED
#define ERROR -14
long front(long *pointer) { long value; READ(value, -5); return value; }
// new: front
#else
#define ERROR -22
#endif
long changes(long *pointer) { long value; READ(value, ERROR); return value + 1; }
long stays(long *pointer) { long value; READ(value, -22); return value + 2; }
long gains(long *pointer)
{
    long value;
#ifdef PATCHED
    __asm__ volatile("1: mov (%1),%0\n2:\n.pushsection .ex_table,\"a\"\n.balign 4\n.long 1b - .\n"
                     ".long 2b - .\n.popsection" : "=r" (value) : "r" (pointer));
#else
    __asm__ volatile("1: mov (%1),%0\n2:\n" : "=r" (value) : "r" (pointer));
#endif
    return value;
}
