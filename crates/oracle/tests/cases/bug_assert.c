// The message of an assertion, in the second half of its frame.
// changed: changes
#define ASSERT_FRAME(line, file, text)                                                           \
    __asm__ volatile("1: ud2\n.pushsection .bug_frames.3,\"a\",@progbits\n.p2align 2\n"          \
                     "2: .long (1b - 2b)\n.long (%c1 - 2b) + (%c0 << 24)\n"                      \
                     ".long 0, %c2 - 2b\n.popsection" :: "i" (line), "i" (file), "i" (text))
#ifdef PATCHED
#define TEXT "x > 1"
void front(void) { ASSERT_FRAME(9, "some/file.c", "fresh"); }
// new: front
#else
#define TEXT "x > 0"
#endif
void changes(int x) { if (x) ASSERT_FRAME(10, "some/file.c", TEXT); }
void stays(int x) { if (x) ASSERT_FRAME(200, "some/file.c", "y > 0"); }
