// A function that another object had is defined here now; who calls it does the same as before.
// new: target
int target(int x);
int user(int x) { return target(x) + 3; }
#ifdef PATCHED
int __attribute__((noipa)) target(int x) { return x ^ 0x1234; }
#endif
