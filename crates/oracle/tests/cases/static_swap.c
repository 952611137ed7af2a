// One function swaps its two variables of the same name; the other tells which is which.
// changed: swapped
int *held[2];
static inline int *get(int which)
{
    if (which) {
        static int slot;
        return &slot;
    }
    static int slot;
    return &slot;
}
void keeps(void) { held[0] = get(0); held[1] = get(1); }
void also_keeps(int x) { *get(0) = x; *get(1) = x + 1; }
#ifdef PATCHED
void swapped(void) { *get(1) = 7; *get(0) = 9; }
#else
void swapped(void) { *get(0) = 7; *get(1) = 9; }
#endif
