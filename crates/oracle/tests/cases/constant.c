// A constant in a function that is inlined into two others; the fourth stays.
// changed: first second
int out;
static inline int shared(int x)
{
#ifdef PATCHED
    return x * 12;
#else
    return x * 10;
#endif
}
int first(int x) { return shared(x) + 1; }
int second(int x) { return shared(x) - out; }
int third(int x) { return x * 10; }
