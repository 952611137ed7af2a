// New code, strings and numbered variables in front move everything; nothing else changes its meaning.
// new: fresh
// data: New count.N
void say(const char *text);
void tell(const char *text, const char *name);
#ifdef PATCHED
int fresh(int x)
{
    static int count = 1;
    say("a string in front");
    say("another, longer string in front that is aligned to eight");
    tell("in", __func__);
    switch (x) {
    case 1: return 5;
    case 2: return 77;
    case 3: return -4;
    case 4: return 42;
    case 5: return 17;
    }
    return count++;
}
#endif
int old(int x)
{
    static int total = 3;
    say("old");
    say("a string of the old function that is aligned to eight");
    tell("in", __func__);
    switch (x) {
    case 1: return 6;
    case 2: return 88;
    case 3: return -1;
    case 4: return 12;
    case 5: return 100;
    }
    return total += x;
}
int caller(int x) { return old(x) + old(x + 1); }
