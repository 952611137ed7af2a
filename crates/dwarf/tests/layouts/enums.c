/* Enumerations. */

//# harmless enum appended: enumerator A2 added with value 2
enum appended { A0, A1,
#ifdef PATCHED
    A2,
#endif
} appended;

//# enum inserted: enumerator B1 changed from 1 to 2
//# enum inserted: enumerator BX added with value 1
enum inserted { B0,
#ifdef PATCHED
    BX,
#endif
    B1,
} inserted;

//# harmless enum bounded: enumerator C2 added with value 2
//# harmless enum bounded: enumerator NR_C changed from 2 to 3
//# struct table: size changed from 8 to 12 bytes
//# struct table: type of member slots changed from int[2] to int[3]
enum bounded { C0, C1,
#ifdef PATCHED
    C2,
#endif
    NR_C,
} bounded;
struct table { int slots[NR_C]; } table;

/* The last one is a value: who stored it would now be misread. */
//# enum sentinel: enumerator D_NONE changed from 1 to 2
//# enum sentinel: enumerator D1 added with value 1
enum sentinel { D0,
#ifdef PATCHED
    D1,
#endif
    D_NONE,
} sentinel;

//# enum removed: enumerator E1 with value 1 removed
enum removed { E0,
#ifndef PATCHED
    E1,
#endif
    E2 = 2,
} removed;

//# harmless enum renamed: enumerator F_OLD with value 1 renamed to F_NEW
enum renamed { F0,
#ifdef PATCHED
    F_NEW,
#else
    F_OLD,
#endif
} renamed;

//# enum negative: enumerator G1 changed from -1 to -2
enum negative {
#ifdef PATCHED
    G1 = -2,
#else
    G1 = -1,
#endif
    G2 = 300,
} negative;

//# enum grown: size changed from 4 to 8 bytes
//# enum grown: enumerator H_BIG added with value 4294967296
//# struct grown_holder: size changed from 4 to 8 bytes
//# struct grown_holder: member e holds enum grown, whose layout changed
enum grown { H0,
#ifdef PATCHED
    H_BIG = 0x100000000,
#endif
} grown;
struct grown_holder { enum grown e; } grown_holder;

/* Values of a named enumeration are reported once, not where it is held. */
struct user { enum inserted e; } user;

//# struct untagged: member e holds enum {...}, whose layout changed
struct untagged { enum { I0,
#ifdef PATCHED
    I_NEW,
#endif
    I1 } e; } untagged;

//# typedef untagged_t: enumerator J1 changed from 1 to 5
typedef enum { J0,
#ifdef PATCHED
    J1 = 5,
#else
    J1,
#endif
} untagged_t;
untagged_t j;
