// Variables of all kinds.
// changed: reads_local
// data: Changed initialised, New added, Removed gone, Changed bigger, Changed table, Changed pointers, Changed was_zero
// users table: reads_table
#define __read_mostly __attribute__((section(".data.read_mostly")))
extern int first, second;
int stays = 4;
int untouched_bss[16];
int __read_mostly mostly_one = 1;
#ifdef PATCHED
int initialised = 8;
int added = 1;
int bigger[20];
const int table[3] = { 1, 2, 4 };
int *pointers[2] = { &second, &first };
int was_zero = 3;
int __read_mostly moved_to_mostly = 5;
#else
int initialised = 7;
int gone = 1;
int bigger[16];
const int table[3] = { 1, 2, 3 };
int *pointers[2] = { &first, &second };
int was_zero;
int moved_to_mostly = 5;
#endif
int reads_table(int x) { return table[x]; }
int reads_local(int x)
{
    static const int own[4] = { 1, 2, 3,
#ifdef PATCHED
        9
#else
        4
#endif
    };
    return own[x];
}
int reads_mostly(void) { return mostly_one + moved_to_mostly; }
