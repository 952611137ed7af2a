/* Structures by where objects of them are; what is expected stands in the test. */
typedef unsigned long u64;
#define KEEP __attribute__((__used__))
#define APART __attribute__((__noinline__))

struct variable { u64 a; };
static KEEP struct variable one_variable[3];

struct declared { u64 a; };
extern struct declared elsewhere;

struct pointed { u64 a; };
struct pointed *pointer;

struct member { u64 a; };
struct holder { u64 a; struct member *const *points; };
KEEP struct holder *holders(struct holder *holder) { return holder; }

struct inner { u64 a; };
struct middle { u64 b; struct { struct inner in[2]; } untagged; };
struct outer { struct middle m; };
static KEEP struct outer deep;

struct parameter { u64 a; };
KEEP u64 with_parameter(struct parameter *parameter) { return parameter->a; }

struct given { u64 a; };
KEEP struct given *gives(u64 a) { return (struct given *)a; }

struct inlined { u64 a; };
static inline u64 count(u64 a)
{
    static struct inlined state;

    state.a += a;
    return state.a;
}
KEEP u64 count_one(u64 a) { return count(a) + 1; }
KEEP u64 count_two(u64 a) { return count(a) + 2; }

struct automatic { u64 a, b; };
struct part { u64 a, b; };
struct whole { u64 c; struct part part; };
static APART u64 uses(struct automatic *automatic, struct part *part) { return automatic->a + part->b; }
KEEP u64 automatics(u64 a)
{
    struct automatic automatic = { a, 2 };
    struct whole whole = { .part = { a, 3 } };

    return uses(&automatic, &whole.part) + whole.c + elsewhere.a;
}

struct list_head { struct list_head *next, *prev; };
struct linked { u64 a; struct { struct list_head list; } more; };
static APART u64 uses_linked(struct linked *linked) { return linked->a; }
KEEP u64 links(u64 a)
{
    struct linked linked = { a };

    return uses_linked(&linked);
}

typedef struct { u64 a; } untagged_t;
static KEEP untagged_t *untagged;
