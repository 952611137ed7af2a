/* Something of each kind that readers know: sections, entries, data, types and lines. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

enum colour { RED, GREEN = 5, BLUE = -3 };

struct inner {
    u32 first : 3, second : 7;
    enum colour colour;
#ifdef PATCHED
    u64 more;
#endif
};

struct holder {
    struct holder *next;
    struct inner in, many[3];
    int (*call)(struct holder *, const char *);
    union {
        u64 whole;
        u8 bytes[8];
    };
};

extern struct holder *current;
extern int outside(struct holder *holder, const char *why);

static const char *const names[] = { "red", "green", "blue" };
const u32 table[] = { 1, 4, 9, 16, 25 };
static int counter = 7;
static struct holder shared;

static inline __attribute__((always_inline)) u32 mixed(u32 a, u32 b)
{
    return a * 31 + (b >> 3);
}

static __attribute__((noinline, cold)) int rare(struct holder *holder)
{
    return outside(holder, "rare");
}

int walk(struct holder *holder, u32 how)
{
    static u64 calls;

    calls++;
    switch ( how )
    {
    case 0: return counter++;
    case 1: return mixed(how, holder->in.first);
    case 2: return table[holder->in.second % 5];
    case 3: return names[how % 3][0];
    case 4: return rare(holder);
    case 5: return holder->call ? holder->call(holder, "call") : -1;
    case 6: return shared.many[how - 5].colour;
    }

    asm volatile ( "1: .byte 0x0f, 0x0b\n"
                   ".pushsection .bug_frames.1, \"a\", @progbits\n"
                   ".long 1b - ., 0\n"
                   ".popsection\n"
                   "2: mov (%0), %%rax\n3:\n"
                   ".section .fixup, \"ax\"\n4: xor %%eax, %%eax\n jmp 3b\n.previous\n"
                   ".section .ex_table, \"a\"\n.long 2b - ., 4b - .\n.previous\n"
                   :: "r" (holder) : "rax", "memory" );

    return (int)calls;
}

#ifdef PATCHED
long added(void)
{
    return walk(current, 4) + walk(&shared, 6);
}
#endif
