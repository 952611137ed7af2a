// Only the part that the compiler moved away changes.
// changed: changes
void die(const char *why) __attribute__((cold, noreturn));
void note(int) __attribute__((cold));
int changes(int x)
{
    if (x < 0) {
#ifdef PATCHED
        note(x + 2);
#else
        note(x + 1);
#endif
        die("negative");
    }
    return x * 3;
}
int stays(int x)
{
    if (x < 0) {
        note(x + 5);
        die("negative");
    }
    return x * 5;
}
