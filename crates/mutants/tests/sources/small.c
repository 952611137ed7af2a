/* Something of everything that a change can touch. */
extern int printk(const char *format, ...);
extern void consume(const void *place);
extern int handle(int value);
extern void panic(const char *why) __attribute__((cold, noreturn));

struct limits {
    unsigned int low;
    unsigned int high;
    const char *name;
};

static const unsigned short weights[] = { 1, 2, 4, 8, 16, 32, 64, 128, 256 };
static const struct limits limits = { .low = 3, .high = 90, .name = "narrow" };
static const struct limits *const all_limits[] = { &limits, 0 };
static unsigned int budget = 40;
const unsigned char shared_table[] = { 5, 6, 7 };
static int __attribute__((section(".init.data"))) preset = 12;

static inline int clamp(int value, int most)
{
    if ( value > most )
        return most;
    return value;
}

static int __attribute__((noinline)) weigh(unsigned int index)
{
    if ( index >= sizeof(weights) / sizeof(weights[0]) )
        panic("index too large");
    return weights[index] * 3;
}

int first(int a, int b)
{
    static unsigned int calls;

    calls += 1;
    budget += b;
    if ( a < b && b != 7 )
        printk("first got %d and %d\n", a, b);
    return clamp(a + b, 100) - handle(5);
}

int second(int a)
{
    asm volatile ( "1: incl %0\n\t"
                   ".pushsection .fixup, \"ax\"\n"
                   "2: movl $7, %0\n\t"
                   "jmp 3f\n\t"
                   ".popsection\n"
                   "3:\n\t"
                   ".pushsection .ex_table, \"a\"\n\t"
                   ".p2align 2\n\t"
                   ".long 1b - ., 2b - .\n\t"
                   ".popsection"
                   : "+r" (a) );
    return clamp(a << 2, 50) + weigh(a & 7);
}

unsigned int third(unsigned int a)
{
    unsigned int i, sum = 0;

    for ( i = 0; all_limits[i]; i++ )
        if ( a >= all_limits[i]->low || a == 77 )
            sum += limits.high;
    consume(shared_table);
    return sum % budget;
}

int __attribute__((section(".init.text"))) start(int a)
{
    if ( a > 1 )
        return preset + handle(a - 1);
    return printk("boot %d\n", preset);
}
