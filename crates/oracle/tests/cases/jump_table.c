// Two entries of a table of jumps change places: the code is the same, the table is not.
// flags: -fno-reorder-blocks
// changed: changes
#ifdef PATCHED
#define ONE 3
#define TWO 5
#else
#define ONE 5
#define TWO 3
#endif
void a(int), b(int), c(int), d(int), e(int), f(int);
void changes(int x)
{
    switch (x) {
    case 0: a(x * 3); break;
    case 1: b(x + 1); break;
    case 2: c(x - 7); break;
    case ONE: d(x ^ 4); break;
    case 4: e(x | 8); break;
    case TWO: f(x & 16); break;
    }
}
void stays(int x)
{
    switch (x) {
    case 0: a(x * 5); break;
    case 1: c(x + 1); break;
    case 2: b(x - 7); break;
    case 3: f(x ^ 4); break;
    case 4: d(x | 8); break;
    case 5: e(x & 16); break;
    }
}
