struct in_header {
    int a;
#ifdef PATCHED
    long b; /* LINE in_header.b */
#endif
};

static inline void from_header(int x)
{
    if (x == 42)
        __builtin_trap(); /* LINE from_header trap */
}
