// A section of a name nobody knows.
// unknown: .mystery
#ifdef PATCHED
#define BYTE "7"
#else
#define BYTE "6"
#endif
__asm__(".pushsection .mystery,\"a\"\n.byte " BYTE "\n.popsection\n"
        ".pushsection .known_to_be_equal,\"a\"\n.byte 1\n.quad stays\n.popsection");
int stays(int x) { return x + 1; }
