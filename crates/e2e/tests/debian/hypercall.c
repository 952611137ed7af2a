/* hypercall NUMBER ARG...: issues a hypercall through Linux's /dev/xen/privcmd and prints what it returns.
 * An ARG is a number, or a comma-separated list of 32-bit numbers that is passed by address. @N in a list, or for
 * an ARG, stands for the address of the list that is the N-th ARG, from 1; in a list it is 64 bits.
 * Needs no C library: the control domain of the lab has none of its own. */

static long syscall3(long number, long a, long b, long c)
{
    long result;

    __asm__ volatile ("syscall" : "=a" (result) : "a" (number), "D" (a), "S" (b), "d" (c)
                      : "rcx", "r11", "memory");
    return result;
}

enum { SYS_write = 1, SYS_open = 2, SYS_ioctl = 16, SYS_exit = 60 };

/* struct privcmd_hypercall and IOCTL_PRIVCMD_HYPERCALL: include/uapi/xen/privcmd.h of Linux. */
struct call {
    unsigned long op, arg[5];
};
#define IOCTL_HYPERCALL ((sizeof(struct call) << 16) | ('P' << 8))

static unsigned int buffers[5][16] __attribute__((aligned(4096)));

static const char *number(const char *text, unsigned long *value)
{
    unsigned int base = 10;

    if ( text[0] == '0' && text[1] == 'x' )
    {
        base = 16;
        text += 2;
    }
    for ( *value = 0; ; text++ )
    {
        if ( *text >= '0' && *text <= '9' )
            *value = *value * base + (*text - '0');
        else if ( base == 16 && *text >= 'a' && *text <= 'f' )
            *value = *value * base + (*text - 'a' + 10);
        else
            return text;
    }
}

/* A number, or the address of a list; the answer is its size in 32-bit numbers. */
static unsigned int element(const char **text, unsigned long *value)
{
    if ( **text != '@' )
    {
        *text = number(*text, value);
        return 1;
    }
    *text = number(*text + 1, value);
    *value = (unsigned long)buffers[(*value - 1) % 5];
    return 2;
}

static unsigned long argument(const char *text, unsigned int *buffer)
{
    unsigned long value;
    unsigned int count = 0, size = element(&text, &value);

    if ( *text != ',' )
        return value;
    while ( count + size <= 16 )
    {
        buffer[count++] = value;
        if ( size == 2 )
            buffer[count++] = value >> 32;
        if ( *text != ',' )
            break;
        text++;
        size = element(&text, &value);
    }
    return (unsigned long)buffer;
}

static void print(long value)
{
    char text[24], *at = text + sizeof(text);
    unsigned long rest = value < 0 ? -value : value;

    *--at = '\n';
    do
        *--at = '0' + rest % 10;
    while ( rest /= 10 );
    if ( value < 0 )
        *--at = '-';
    syscall3(SYS_write, 1, (long)at, text + sizeof(text) - at);
}

__attribute__((used)) static void run(long *stack)
{
    long count = stack[0], file, i;
    char **words = (char **)&stack[1];
    struct call call = { 0 };

    file = syscall3(SYS_open, (long)"/dev/xen/privcmd", 2, 0);
    if ( file < 0 || count < 2 )
        syscall3(SYS_exit, 2, 0, 0);
    number(words[1], &call.op);
    for ( i = 2; i < count && i < 7; i++ )
        call.arg[i - 2] = argument(words[i], buffers[i - 2]);
    print(syscall3(SYS_ioctl, file, IOCTL_HYPERCALL, (long)&call));
    syscall3(SYS_exit, 0, 0, 0);
}

__asm__ (".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
