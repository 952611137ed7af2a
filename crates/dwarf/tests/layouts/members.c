/* Members that move, come, go and change. Each expectation is what a reader of the two sources sees. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

//# struct moved: size changed from 8 to 16 bytes
//# struct moved: member fresh (8 bytes) added at offset 0
//# struct moved: member a moved from offset 0 to 8 bytes, and the one after it by as much
struct moved {
#ifdef PATCHED
    u64 fresh;
#endif
    u32 a;
    u32 b;
} moved;

//# struct swapped: member a moved from offset 0 to 4 bytes
//# struct swapped: member b moved from offset 4 to 0 bytes
struct swapped {
#ifdef PATCHED
    int b, a;
#else
    int a, b;
#endif
} swapped;

//# struct appended: size changed from 8 to 16 bytes
//# struct appended: member last (4 bytes) added at offset 8 behind the original end
struct appended {
    u64 first;
#ifdef PATCHED
    u32 last;
#endif
} appended;

//# struct hole: member flag (1 byte) added at offset 1 in a hole
struct hole {
    u8 a;
#ifdef PATCHED
    u8 flag;
#endif
    u32 b;
} hole;

//# struct tail: member flag (2 bytes) added at offset 10 in a hole
struct tail {
    u64 a;
    u8 b;
#ifdef PATCHED
    u16 flag;
#endif
} tail;

//# struct gone: member b (4 bytes) removed from offset 4
struct gone {
    u32 a;
#ifndef PATCHED
    u32 b;
#endif
    u64 c;
} gone;

//# harmless struct renamed: member before at offset 4 renamed to after
struct renamed {
    u32 a;
#ifdef PATCHED
    u32 after;
#else
    u32 before;
#endif
} renamed;

//# struct retyped: type of member sign changed from u32 to int
//# struct retyped: type of member few changed from u8[2] to u8[3]
//# struct retyped: type of member p changed from struct moved * to struct hole *
struct retyped {
#ifdef PATCHED
    int sign;
    u8 few[3];
    struct hole *p;
#else
    u32 sign;
    u8 few[2];
    struct moved *p;
#endif
} retyped;

//# struct wider: type of member width changed from u32 to u64
struct wider {
    u64 a;
#ifdef PATCHED
    u64 width;
#else
    u32 width;
#endif
} wider;

/* The other name of the same number is no change, and neither are qualifiers. */
struct spelled {
#ifdef PATCHED
    const unsigned int a;
    volatile u64 *b;
#else
    u32 a;
    unsigned long *b;
#endif
} spelled;

//# struct replaced: member a (4 bytes) removed from offset 0
//# struct replaced: member b (4 bytes) added at offset 0
struct replaced {
#ifdef PATCHED
    float b;
#else
    int a;
#endif
} replaced;

//# struct callbacks: type of member run changed from int (*)(struct moved *, u32) to int (*)(struct moved *, u64)
//# struct callbacks: type of member log changed from void (*)(u8 *) to void (*)(u8 *, ...)
struct callbacks {
    int (*same)(struct moved *, ...);
#ifdef PATCHED
    int (*run)(struct moved *, u64);
    void (*log)(u8 *, ...);
#else
    int (*run)(struct moved *, u32);
    void (*log)(u8 *);
#endif
} callbacks;

//# struct aligned: size changed from 8 to 64 bytes
//# struct aligned: requested alignment changed from 0 to 64 bytes
struct aligned {
    u64 a;
}
#ifdef PATCHED
__attribute__((aligned(64)))
#endif
aligned;

//# struct flexible: size changed from 4 to 8 bytes
//# struct flexible: member n2 (4 bytes) added at offset 4 behind the original end
//# struct flexible: member tail moved from offset 4 to 8 bytes
struct flexible {
    u32 n;
#ifdef PATCHED
    u32 n2;
#endif
    u8 tail[];
} *flexible;

//# struct grid: size changed from 24 to 32 bytes
//# struct grid: type of member cells changed from int[2][3] to int[2][4]
struct grid {
#ifdef PATCHED
    int cells[2][4];
#else
    int cells[2][3];
#endif
} grid;

//# struct padded: member flags (1 byte) added at offset 1 in a hole
//# harmless struct padded: member pad moved from offset 1 to 2 bytes
//# harmless struct padded: type of member pad changed from u8[3] to u8[2]
struct padded {
    u8 a;
#ifdef PATCHED
    u8 flags;
    u8 pad[2];
#else
    u8 pad[3];
#endif
} padded;

//# struct repadded: member flags (2 bytes) added at offset 2 in a hole
//# harmless struct repadded: member _pad (2 bytes) removed from offset 2
struct repadded {
    u16 a;
#ifdef PATCHED
    u16 flags;
#else
    u16 _pad;
#endif
} repadded;
