// Clones get other numbers when one more is made.
// changed: first
void put(int, int);
int get(void);
static int __attribute__((noinline)) work(int kind, int x)
{
    for (int i = 0; i < x; i++)
        put(kind * i, get() ^ kind);
    return get() + kind;
}
#ifdef PATCHED
int first(int x) { return work(3, x) + 2; }
#else
int first(int x) { return work(3, x) + 1; }
#endif
int second(int x) { return work(3, x + 7); }
int third(int x) { return work(3, x * 11); }
