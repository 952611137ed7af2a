// Constants in merged sections, by their bytes.
// flags: -msse2
// changed: changes
#ifdef PATCHED
double front(double x) { return x * 9.75; }
// new: front
double changes(double x) { return x * 2.5; }
#else
double changes(double x) { return x * 3.5; }
#endif
double stays(double x) { return x * 3.5; }
double also(double x) { return x * 2.5 + 3.5; }
