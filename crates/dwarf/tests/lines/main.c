#include "inline.h"

struct in_header value; /* LINE value */
static int counter; /* LINE counter */

int next(void) /* LINE next */
{
    static int counter = 7; /* LINE next.counter */
    return counter++;
}

int other(void)
{
    return counter++;
}

void __attribute__((noinline)) traps(int x) /* LINE traps */
{
    if (x == 1)
        __builtin_trap(); /* LINE traps trap */
    value.a = x;
}

void inlines(int x) /* LINE inlines */
{
    from_header(x);
    value.a = x + 1;
}
