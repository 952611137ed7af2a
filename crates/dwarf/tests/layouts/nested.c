/* Types inside of types, and types behind pointers. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

//# struct inner: member y moved from offset 4 to 0 bytes
//# struct inner: member x moved from offset 0 to 4 bytes
struct inner {
#ifdef PATCHED
    u32 y, x;
#else
    u32 x, y;
#endif
};

//# struct outer: member in holds struct inner, whose layout changed
//# struct outer: member many holds struct inner[2], whose layout changed
struct outer {
    u64 a;
    struct inner in;
    struct inner many[2];
    struct inner *elsewhere;
} outer;

//# harmless struct calm: member old at offset 0 renamed to new
struct calm {
#ifdef PATCHED
    u32 new;
#else
    u32 old;
#endif
};
//# harmless struct calmer: member in holds struct calm, whose layout changed
struct calmer { struct calm in; };
//# harmless struct calmest: member in holds struct calmer, whose layout changed
struct calmest { struct calmer in; } calmest;

//# struct grows: size changed from 4 to 8 bytes
//# struct grows: member b (4 bytes) added at offset 4 behind the original end
struct grows {
    u32 a;
#ifdef PATCHED
    u32 b;
#endif
};
//# struct holder: size changed from 12 to 16 bytes
//# struct holder: member in holds struct grows, whose layout changed
//# struct holder: member after moved from offset 8 to 12 bytes
struct holder {
    u32 before;
    struct grows in;
    u32 after;
} holder;

/* Only a pointer: reported under its own name and nowhere else. */
struct points { struct grows *p; struct grows *(*get)(struct grows *); } points;

//# struct anonymous: member c (8 bytes) added at offset 8 behind the original end
//# struct anonymous: size changed from 8 to 16 bytes
//# struct anonymous: type of member pos.x changed from u32 to float
struct anonymous {
    union {
        u32 a;
#ifdef PATCHED
        struct { float x; u8 y; } pos;
#else
        struct { u32 x; u8 y; } pos;
#endif
    };
#ifdef PATCHED
    u64 c;
#endif
} anonymous;

/* A member that an anonymous union takes in stays where it was, and gets one more name. */
//# harmless struct wrapped: member b (4 bytes) added at offset 4 over members that stay
struct wrapped {
    u32 first;
#ifdef PATCHED
    union { u32 a; u32 b; };
#else
    u32 a;
#endif
} wrapped;

//# struct slots: size changed from 32 to 64 bytes
//# struct slots: member slots[].y (8 bytes) added at offset 8
//# struct slots: member slots holds struct {...}[4], whose layout changed
struct slots {
#ifdef PATCHED
    struct { u64 x; u64 y; } slots[4];
#else
    struct { u64 x; } slots[4];
#endif
} slots;

//# union u: size changed from 4 to 8 bytes
//# union u: member b (8 bytes) added at offset 0 behind the original end
union u {
    u32 a;
#ifdef PATCHED
    u64 b;
#endif
} u;

//# union same: member b (4 bytes) added at offset 0 over members that stay
union same {
    u32 a;
#ifdef PATCHED
    int b;
#endif
} same;

//# typedef number_t: stands for unsigned long instead of unsigned int
//# struct counts: size changed from 4 to 8 bytes
//# struct counts: type of member n changed from unsigned int to unsigned long
#ifdef PATCHED
typedef unsigned long number_t;
#else
typedef unsigned int number_t;
#endif
struct counts { number_t n; } counts;

//# typedef untagged_t: member b moved from offset 4 to 8 bytes
//# typedef untagged_t: size changed from 8 to 16 bytes
//# typedef untagged_t: type of member a changed from u32 to u64
typedef struct {
#ifdef PATCHED
    u64 a;
#else
    u32 a;
#endif
    u32 b;
} untagged_t;
//# struct uses: size changed from 16 to 24 bytes
//# struct uses: member in holds untagged_t, whose layout changed
//# struct uses: member p moved from offset 8 to 16 bytes
struct uses { untagged_t in; untagged_t *p; } uses;

//# typedef handler_t: stands for int (*)(u32, u32) instead of int (*)(u32)
//# struct ops: type of member run changed from int (*)(u32) to int (*)(u32, u32)
#ifdef PATCHED
typedef int (*handler_t)(u32, u32);
#else
typedef int (*handler_t)(u32);
#endif
struct ops { handler_t run; } ops;

/* A declaration on one side, a definition on the other. */
struct later;
struct later *later;
#ifdef PATCHED
struct later { int now; } now;
#endif

/* Only on one side, without a user. */
#ifdef PATCHED
struct only_new { int a; } only_new;
#else
struct only_old { int a; } only_old;
#endif

/* One name for several local types: the sets are the same, then they are not. */
int one(void) { struct local { int a; } l = { 1 }; return l.a + (int)sizeof(l); }
int two(void) { struct local { int b; } l = { 2 }; return l.b + (int)sizeof(l); }
//# struct scoped: size changed from 4 to 8 bytes
//# struct scoped: type of member b changed from int to long
int three(void) { struct scoped { int a; } l = { 1 }; return l.a; }
#ifdef PATCHED
long four(void) { struct scoped { long b; } l = { 2 }; return l.b; }
#else
int four(void) { struct scoped { int b; } l = { 2 }; return l.b; }
#endif
