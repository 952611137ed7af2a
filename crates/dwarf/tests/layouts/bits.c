/* Bit-fields. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

//# harmless struct named: member flag (1 bit) added at bit 6 of byte 0 in reserved bits
//# harmless struct named: member rsvd moved from bit 6 of byte 0 to bit 7 of byte 0
//# harmless struct named: type of member rsvd changed from u32:10 to u32:9
struct named {
    u32 a:6;
#ifdef PATCHED
    u32 flag:1;
    u32 rsvd:9;
#else
    u32 rsvd:10;
#endif
    u32 b:16;
} named;

/* Between two others, so the original must have left these bits out by an unnamed field. */
//# harmless struct between: member flag (2 bits) added at offset 1 in reserved bits
struct between {
    u64 a:8;
#ifdef PATCHED
    u64 flag:2;
    u64 :6;
#else
    u64 :8;
#endif
    u64 b:9;
} between;

//# harmless union view: member flag (1 bit) added at bit 3 of byte 0 in reserved bits
union view {
    u32 raw;
    struct {
        u32 a:3;
#ifdef PATCHED
        u32 flag:1;
        u32 :4;
#else
        u32 :5;
#endif
        u32 b:8;
    };
} view;

/* Behind the last one, an unnamed field cannot be told from padding. */
//# struct last: member b (1 bit) added at bit 1 of byte 0 in a hole
struct last {
    u32 a:1;
#ifdef PATCHED
    u32 b:1;
#endif
} last;

//# struct widened: type of member a changed from u32:3 to u32:5
//# struct widened: member b moved from bit 3 of byte 0 to bit 5 of byte 0
struct widened {
#ifdef PATCHED
    u32 a:5;
#else
    u32 a:3;
#endif
    u32 b:3;
} widened;

//# struct turned: type of member a changed from u8 to u8:4
struct turned {
#ifdef PATCHED
    u8 a:4;
#else
    u8 a;
#endif
    u32 b;
} turned;

//# harmless struct called: member spare_pad at bit 4 of byte 0 renamed to used
struct called {
    u32 a:4;
#ifdef PATCHED
    u32 used:4;
#else
    u32 spare_pad:4;
#endif
} called;

//# struct shifted: member c moved from bit 3 of byte 4 to bit 4 of byte 4
//# struct shifted: member fresh (1 bit) added at bit 3 of byte 4
struct shifted {
    u32 a;
    u32 b:3;
#ifdef PATCHED
    u32 fresh:1;
#endif
    u32 c:1;
} shifted;
