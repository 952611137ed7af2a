// A new variable of the same name in front gives the others new numbers.
// changed: first
// data: New count.N
int first(void)
{
#ifdef PATCHED
    static int count;
    return ++count;
#else
    return 1;
#endif
}
int second(void) { static int count; return count += 2; }
int third(void) { static int count; return count += 3; }
int fourth(void) { static int count = 9; return count += 4; }
