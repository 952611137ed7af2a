// A function under another name, one turned global, one removed that is called elsewhere now.
// changed: caller
// new: fresh_name
// removed: old_name
#define NOINLINE __attribute__((noinline))
int other(int);
#ifdef PATCHED
int NOINLINE fresh_name(int x) { return other(x) + 1; }
int NOINLINE turned(int x) { return other(x) + 2; }
int caller(int x) { return fresh_name(x); }
#else
static int NOINLINE old_name(int x) { return other(x) + 1; }
static int NOINLINE turned(int x) { return other(x) + 2; }
int caller(int x) { return old_name(x); }
#endif
int user(int x) { return turned(x) * 3; }
