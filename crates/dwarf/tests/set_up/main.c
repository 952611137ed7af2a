/* Variables with and without parts that have to be set up. */
struct list_head { struct list_head *next, *prev; };
typedef struct spinlock { unsigned int tickets; unsigned short owner; } spinlock_t;
typedef struct { unsigned int cnts; spinlock_t lock; } rwlock_t;
struct both { int number; struct { struct list_head list; } inner; spinlock_t locks[2]; };

struct list_head list;
struct both both;
rwlock_t lock;
char *pointer;
const void *pointers[2];
struct { int a; unsigned long b[3]; } numbers;
int use(void) { return list.next == 0; }
