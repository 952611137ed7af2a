// A variable with a copy for each CPU.
// changed: user
// data: New per_cpu__fresh
#define PER_CPU __attribute__((section(".bss.percpu")))
PER_CPU int per_cpu__old;
#ifdef PATCHED
PER_CPU int per_cpu__fresh;
int *user(void) { return &per_cpu__fresh; }
#else
int *user(void) { return &per_cpu__old; }
#endif
int *other(void) { return &per_cpu__old; }
