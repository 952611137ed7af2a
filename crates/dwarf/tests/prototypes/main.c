/* Functions and variables before a patch, and with -DPATCHED behind it. */
struct one { long a; };
struct two { long a, b; };
struct other { int a; int b; long c; };
typedef struct { int counter; } count_t;
enum kind { kind_a };
#ifdef PATCHED
# define NOW(before, after) after
struct renamed { int x, y, z; };
# define RENAMED renamed
# define ADDED(...) , __VA_ARGS__
# define REMOVED(...)
# define FIRST
# define INITIAL { 1 }
#else
# define NOW(before, after) before
struct named { int x, y, z; };
# define RENAMED named
# define ADDED(...)
# define REMOVED(...) , __VA_ARGS__
# define FIRST int x,
# define INITIAL 1
#endif

/* What does no harm. */
int renamed_parameter(int NOW(a, b)) { return 1; }
int qualified(NOW(, const) char *a) { return *a; }
int by_typedef(NOW(unsigned int, enum kind) a) { return 1; }
int signedness(NOW(unsigned long, long) a) { return 1; }
int any(NOW(void, struct one) *a) { return 1; }
int tag(struct RENAMED *a) { return a->z; }
int array(int NOW(a[3], *a)) { return a[0]; }
NOW(void, int) result_added(int a) { return NOW(, a); }

/* What does. */
int added(int a ADDED(int b)) { return 1; }
int removed(int a REMOVED(int b)) { return 1; }
int removed_first(FIRST long a) { return 1; }
int wider(NOW(int, long) a) { return 1; }
int truth(NOW(unsigned char, _Bool) a) { return 1; }
int pointer(NOW(unsigned long a, char *a)) { return 1; }
int pointee(struct NOW(one, other) *a) { return 1; }
int narrower_pointee(NOW(long, int) *a) { return 1; }
int value(struct NOW(one, two) a) { return a.a; }
NOW(int, void) result_gone(int a) { return NOW(a, ); }
NOW(int, long) result_wider(int a) { return a; }
int callback(int (*f)(int ADDED(long))) { return 1; }
int variadic(int a ADDED(...)) { return 1; }

int plain_kept;
NOW(int, unsigned int) sign;
NOW(int, count_t) wrapped = INITIAL;
int (*function)(int ADDED(int));
struct NOW(two, other) structure;
struct NOW(one, two) *to_structure;
int (*table[2])(NOW(int, long));
static NOW(unsigned char, _Bool) truth_value;
int use(void) { return truth_value; }
