// A call gets an entry in .alt_call_sites: the code stays.
// changed: gains
#define CALL(entry)                                                                 \
    __asm__ volatile("1: call *pointer(%%rip)\n" entry ::: "memory")
#define SITE ".pushsection .alt_call_sites,\"a\",@progbits\n.long 1b - .\n.popsection"
#ifdef PATCHED
void front(void) { CALL(SITE); }
// new: front
void gains(void) { CALL(SITE); }
#else
void gains(void) { CALL(""); }
#endif
void stays(void) { CALL(SITE); }
