// A value in a table the compiler made of a switch.
// changed: changes
int changes(int x)
{
    switch (x) {
    case 0: return 3;
    case 1: return 14;
    case 2: return 159;
#ifdef PATCHED
    case 3: return 266;
#else
    case 3: return 265;
#endif
    case 4: return 35;
    }
    return -1;
}
int stays(int x)
{
    switch (x) {
    case 0: return 2;
    case 1: return 71;
    case 2: return 828;
    case 3: return 1;
    case 4: return 82;
    }
    return -1;
}
