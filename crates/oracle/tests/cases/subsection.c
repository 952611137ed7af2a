// Code that assembler puts behind the function.
// changed: changes
#define ASIDE(number)                                                              \
    __asm__ volatile("test %0,%0\n\tjs 1f\n2:\n.subsection 1\n"                    \
                     "object.o.unlikely:\n1: mov $" #number ",%%eax\n jmp 2b\n.subsection 0" \
                     :: "r" (x) : "eax")
#ifdef PATCHED
int changes(int x) { ASIDE(5); return x * 3; }
#else
int changes(int x) { ASIDE(4); return x * 3; }
#endif
#undef ASIDE
int stays(int x)
{
    __asm__ volatile("test %0,%0\n\tjs 1f\n2:\n.subsection 1\n1: mov $4,%%eax\n jmp 2b\n.subsection 0"
                     :: "r" (x) : "eax");
    return x * 5;
}
