//! The recipes for kinds of code and data that a payload can bring, for Xen 4.17 as Debian ships it.
//!
//! As in [`crate::recipes`], new code is reached by hypercalls with numbers that the hypervisor as shipped answers
//! with an error, or else by keys of its own console, which the control domain can press.

use crate::{At, Edit, Recipe};

const SCHED: &str = "xen/common/sched/core.c";
/// The function behind SCHEDOP_watchdog; see [`crate::recipes::STATIC`].
const WATCHDOG: &str = "domain_watchdog";

/// A guarded read: of an address where nothing is mapped (the end of the direct map, which is made for 60 TiB), and
/// of one where something is. Answers with 5820 + EFAULT for the one, with what is there for the other.
pub const FIXUP: Recipe = Recipe {
    name: "exception-fixup",
    what: "Answer with what a guarded read gives",
    edits: &[
        Edit { file: SCHED, at: At::Line("#include <xen/sched.h>"), text: "#include <asm/uaccess.h>\n" },
        Edit {
            file: SCHED,
            at: At::Before(WATCHDOG),
            text: concat!(
                "static noinline long xsplice_e2e_guarded(const unsigned int *from)\n{\n",
                "    unsigned int value = 1;\n    int error = get_unsafe(value, from);\n\n",
                "    return error ? 5820 - error : value;\n}\n\n",
            ),
        },
        Edit {
            file: SCHED,
            at: At::Body(WATCHDOG),
            text: concat!(
                "    if ( id == 0x5820 )\n",
                "        return xsplice_e2e_guarded((const void *)(DIRECTMAP_VIRT_END - 8));\n",
                "    if ( id == 0x5821 )\n        return xsplice_e2e_guarded(&timeout);\n\n",
            ),
        },
    ],
};

/// A path that the compiler puts apart from the function, into `domain_watchdog.cold`: it calls a cold function,
/// which says from where it was called.
pub const COLD: Recipe = Recipe {
    name: "cold-path",
    what: "Say from where a cold function is called",
    edits: &[
        Edit {
            file: SCHED,
            at: At::Before(WATCHDOG),
            text: concat!(
                "static noinline void __attribute__((__cold__)) xsplice_e2e_rare(void)\n{\n",
                "    printk(\"xsplice-e2e called from %pS\\n\", __builtin_return_address(0));\n}\n\n",
            ),
        },
        Edit {
            file: SCHED,
            at: At::Body(WATCHDOG),
            text: concat!(
                "    if ( id == 0x5822 )\n    {\n",
                "        xsplice_e2e_rare();\n        return timeout + 5822;\n    }\n\n",
            ),
        },
    ],
};

/// A function with static variables of its own, of which the shipped hypervisor prints one: how often the key `t` was
/// pressed. The new code prints it once more, with a static variable of the patch. That comes first, so that the
/// compiler numbers all others anew.
pub const STATIC_LOCAL: Recipe = Recipe {
    name: "static-local",
    what: "Print a static variable of a function once more",
    edits: &[
        Edit {
            file: "xen/common/keyhandler.c",
            at: At::Body("read_clocks"),
            text: "    static unsigned int xsplice_e2e_marks = 40;\n",
        },
        Edit {
            file: "xen/common/keyhandler.c",
            at: At::Behind("read_clocks", "maxdif_cycles, sumdif_cycles/count"),
            text: "    printk(\"xsplice-e2e samples=%u marks=%u\\n\", count, ++xsplice_e2e_marks);\n",
        },
    ],
};

/// An inline function of a header, which three objects have in a function each: `dump_irqs`, `dump_evtchn_info` and
/// `do_poll`. Every event channel in use is called pending, which the first two print for the keys `i` and `e`, and
/// which ends the third one's polls at the first port.
pub const HEADER_INLINE: Recipe = Recipe {
    name: "header-inline",
    what: "Call every event channel pending",
    edits: &[Edit {
        file: "xen/include/xen/event.h",
        at: At::Body("evtchn_is_pending"),
        text: "    if ( evtchn_usable(evtchn) )\n        return true;\n\n",
    }],
};

/// A new source file with a global function, a variable and a string, and a function that uses them.
pub const NEW_SOURCE: Recipe = Recipe {
    name: "new-source-file",
    what: "Answer with what a function of a new source file computes",
    edits: &[
        Edit {
            file: "xen/common/Makefile",
            at: At::Line("obj-y += xmalloc_tlsf.o"),
            text: "obj-y += xsplice-e2e.o\n",
        },
        Edit {
            file: "xen/common/xsplice-e2e.c",
            at: At::NewFile,
            text: concat!(
                "#include <xen/lib.h>\n\n",
                "long xsplice_e2e_new_source(long value);\n\n",
                "static unsigned int calls;\n\n",
                "long xsplice_e2e_new_source(long value)\n{\n",
                "    printk(\"xsplice-e2e new source, call %u\\n\", ++calls);\n\n    return value * 3 + 1;\n}\n",
            ),
        },
        Edit { file: SCHED, at: At::Before(WATCHDOG), text: "long xsplice_e2e_new_source(long value);\n\n" },
        Edit {
            file: SCHED,
            at: At::Body(WATCHDOG),
            text: "    if ( id == 0x5823 )\n        return xsplice_e2e_new_source(timeout);\n\n",
        },
    ],
};

/// A constant table of pointers, which `_show_registers` reads with an index: how it calls the control domain.
pub const TABLE: Recipe = Recipe {
    name: "const-table",
    what: "Call a guest by another name in register dumps",
    edits: &[Edit {
        file: "xen/arch/x86/x86_64/traps.c",
        at: At::Word("[CTXT_pv_guest]", "\"pv guest\""),
        text: "\"xsplice-e2e guest\"",
    }],
};

/// A function that the patch changes, and another one that stores its address where it stays: in the table of the console's
/// keys, for one that nobody else has.
pub const ADDRESS: Recipe = Recipe {
    name: "stored-address",
    what: "Let another key show the clocks, with what it is called",
    edits: &[
        Edit {
            file: "xen/common/keyhandler.c",
            at: At::Behind("handle_keypress", "struct keyhandler *h;"),
            text: concat!(
                "\n    if ( key == 'Y' && !key_table['Y'].fn )\n    {\n",
                "        key_table['Y'] = key_table['t'];\n        key_table['Y'].fn = read_clocks;\n    }\n",
            ),
        },
        Edit {
            file: "xen/common/keyhandler.c",
            at: At::Behind("read_clocks", "maxdif_cycles, sumdif_cycles/count"),
            text: "    printk(\"xsplice-e2e key %c\\n\", key);\n",
        },
    ],
};

/// Every recipe.
pub const ALL: &[&Recipe] = &[&FIXUP, &COLD, &STATIC_LOCAL, &HEADER_INLINE, &NEW_SOURCE, &TABLE, &ADDRESS];
