// Two clones of one name change numbers; their users say which is which.
// new: earlier
__asm__(".pushsection .text.part_a,\"ax\"\n"
#ifdef PATCHED
        ".type part.part.1,@function\npart.part.1: mov $1,%eax\nret\n.size part.part.1,.-part.part.1\n"
#else
        ".type part.part.0,@function\npart.part.0: mov $1,%eax\nret\n.size part.part.0,.-part.part.0\n"
#endif
        ".section .text.part_b,\"ax\"\n"
#ifdef PATCHED
        ".type part.part.0,@function\npart.part.0: mov $2,%eax\nret\n.size part.part.0,.-part.part.0\n"
#else
        ".type part.part.1,@function\npart.part.1: mov $2,%eax\nret\n.size part.part.1,.-part.part.1\n"
#endif
        ".popsection");
#ifdef PATCHED
#define A "part.part.1"
#define B "part.part.0"
int earlier(int x) { return x; }
#else
#define A "part.part.0"
#define B "part.part.1"
#endif
void user_a(void) { __asm__ volatile("call " A ::: "eax"); }
void user_b(void) { __asm__ volatile("call " B ::: "eax"); }
