// Another kind of text section, another alignment, a hot one: only places.
#ifdef PATCHED
#define HOW __attribute__((section(".text.hot.runs"), aligned(64)))
#else
#define HOW
#endif
int other(int);
int HOW runs(int x) { return other(x) + 3; }
int user(int x) { return runs(x) - 1; }
