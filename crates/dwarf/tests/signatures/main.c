/* Functions of every kind of argument and result. */
struct pair { long a, b; };
struct big { long a, b, c; };
enum colour { red };
typedef const int number;

int other(int a, struct pair b, const char *c);
int variadic(const char *format, ...);
struct pair wide(struct big a, number b);
struct big large(enum colour a);
void nothing(void);

static __attribute__((noinline)) short local(char a, char b)
{
    nothing();
    return a + b + large(red).c;
}

long use(int a)
{
    struct pair p = wide((struct big){ 1, 2, 3 }, a);
    return local(a, a) + other(a, p, "x") + variadic("y", a);
}
