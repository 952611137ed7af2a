// A loop goes back to another instruction.
// changed: loops
#ifdef PATCHED
#define FIRST "1: inc %%edx\n"
#define SECOND "inc %%esi\n"
#else
#define FIRST "inc %%edx\n"
#define SECOND "1: inc %%esi\n"
#endif
void loops(void) { __asm__ volatile(FIRST SECOND "inc %%eax\n" "dec %%ecx\n jnz 1b" ::: "eax", "ecx", "edx", "esi"); }
