// Boot code and data on their own; a call inside .init.text has no relocation.
// init: boot_setup boot_limit fresh_boot
#define __init __attribute__((section(".init.text"), noinline))
#define __initdata __attribute__((section(".init.data")))
void say(const char *text);
#ifdef PATCHED
int __initdata boot_limit = 6;
void __init fresh_boot(void) { say("fresh"); }
#else
int __initdata boot_limit = 5;
#endif
static int __init helper(int x) { say("helper"); return x + boot_limit; }
int __init boot_setup(int x)
{
#ifdef PATCHED
    say("more text");
#endif
    return helper(x) * 3;
}
int __init boot_late(int x) { return helper(x) * 5 + helper(x + 1); }
int runs(int x) { return x + 1; }
