// A line number in a bug frame; frames of other functions only move.
// changed: changes changes_high
#define BUG(line, file)                                                                          \
    __asm__ volatile("1: ud2\n.pushsection .bug_frames.2,\"a\",@progbits\n.p2align 2\n"          \
                     "2: .long (1b - 2b) + (%c0 << 24)\n.long (%c1 - 2b) + (%c2 << 24)\n"        \
                     ".popsection" :: "i" ((line) >> 8), "i" (file), "i" ((line) & 0xff))
#ifdef PATCHED
#define LINE 123
#define LINE_HIGH (4 * 256 + 5)
void front(void) { BUG(9, "some/file.c"); }
// new: front
#else
#define LINE 122
#define LINE_HIGH (3 * 256 + 5)
#endif
void changes(int x) { if (x) BUG(LINE, "some/file.c"); }
void changes_high(int x) { if (x) BUG(LINE_HIGH, "some/file.c"); }
void stays(int x) { if (x) BUG(200, "some/file.c"); }
