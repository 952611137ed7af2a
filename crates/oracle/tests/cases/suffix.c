// The assembler merges nothing, but a place inside a string counts from there.
// changed: user
static const char *const text = "prefix: body";
const char *whole(void) { return text; }
#ifdef PATCHED
const char *user(void) { return text + 7; }
#else
const char *user(void) { return text + 8; }
#endif
