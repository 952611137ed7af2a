// A string that only a table of a function's own table refers to.
// changed: name_of
struct entry { const char *name; const int *values; };
const char *name_of(int which, int at)
{
    static const int small[] = { 1, 2, 3 };
    static const struct entry entries[] = {
        { "first", small },
#ifdef PATCHED
        { "secanD", small },
#else
        { "second", small },
#endif
    };
    return entries[which].values[at] ? entries[which].name : 0;
}
const char *other_name(int which)
{
    static const char *const names[] = { "first", "second" };
    return names[which];
}
