// The end of an array is where another variable used to be.
// data: Removed neighbour
#define TOGETHER __attribute__((section(".data.read_mostly")))
TOGETHER long array[4] = { 1, 2, 3, 4 };
#ifndef PATCHED
TOGETHER long neighbour = 5;
#endif
TOGETHER long last = 6;
long sum(void)
{
    long total = 0;
    for (volatile long *at = array; at != array + 4; at++)
        total += *at;
    return total;
}
long *get_last(void) { return &last; }
