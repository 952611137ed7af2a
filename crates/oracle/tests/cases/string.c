// One letter of one string.
// changed: two
void say(const char *text);
void one(void) { say("text one"); say("shared"); }
#ifdef PATCHED
void two(void) { say("text twO"); say("shared"); }
#else
void two(void) { say("text two"); say("shared"); }
#endif
