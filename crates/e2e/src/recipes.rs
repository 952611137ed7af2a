//! The recipes for Xen 4.17 as Debian ships it.
//!
//! New code is reached by hypercalls with numbers that the hypervisor as shipped answers with an error.

use crate::{At, Edit, Recipe};

const KERNEL: &str = "xen/common/kernel.c";
const SCHED: &str = "xen/common/sched/core.c";
const PHYSDEV: &str = "xen/arch/x86/physdev.c";
/// The function behind the hypercall xen_version, in both of its forms.
const VERSION: &str = "DO(xen_version)";
/// The last of its declarations.
const DECLARED: &str = "xsm_xen_version";

/// The demo's, which fits older trees too: what the control domain reads in /sys/hypervisor/properties/capabilities.
pub const DEMO: Recipe = Recipe {
    name: "demo-capabilities",
    what: "Say in the hypervisor's capabilities that it was live patched",
    edits: &[Edit {
        file: "xen/arch/x86/setup.c",
        at: At::Behind("arch_get_xen_caps", "[0]"),
        text: "\n    safe_strcat(*info, \"live-patched-by-xsplice \");\n",
    }],
};

/// A changed global function: one more bit in /sys/hypervisor/properties/features.
pub const GLOBAL: Recipe = Recipe {
    name: "global-function",
    what: "Set a feature bit that no guest knows",
    edits: &[Edit {
        file: KERNEL,
        at: At::Behind(VERSION, "XENFEAT_memory_op_vnode_supported"),
        text: "            fi.submap |= 1U << 30;\n",
    }],
};

/// A function of the source that holds what the build says about itself.
pub const VERSION_C: Recipe = Recipe {
    name: "version-c",
    what: "Deny in other words",
    edits: &[Edit {
        file: "xen/common/version.c",
        at: At::Body("xen_deny"),
        text: "    return \"<refused>\";\n",
    }],
};

/// A changed static function, in a file that is compiled once.
pub const STATIC: Recipe = Recipe {
    name: "static-function",
    what: "Answer a watchdog with an impossible number",
    edits: &[Edit {
        file: SCHED,
        at: At::Body("domain_watchdog"),
        text: "    if ( id == 0x5801 )\n        return timeout + 58;\n\n",
    }],
};

/// A new string, written to the console.
pub const STRING: Recipe = Recipe {
    name: "new-string",
    what: "Write new strings to the console",
    edits: &[Edit {
        file: KERNEL,
        at: At::Behind(VERSION, DECLARED),
        text: concat!(
            "\n    if ( cmd == 0x5802 || cmd == 0x5803 )\n    {\n",
            "        printk(\"xsplice-e2e says %s\\n\",\n",
            "               cmd == 0x5802 ? \"a string that is new\" : \"another string that is new\");\n",
            "        return 0;\n    }\n",
        ),
    }],
};

/// A new static function, in a file that is compiled in two forms.
pub const NEW_STATIC: Recipe = Recipe {
    name: "new-static-function",
    what: "Answer with what a new function computes",
    edits: &[
        Edit {
            file: KERNEL,
            at: At::Before(VERSION),
            text: "static noinline long xsplice_e2e_triple(long value)\n{\n    return value * 3 + 1;\n}\n\n",
        },
        Edit {
            file: KERNEL,
            at: At::Behind(VERSION, DECLARED),
            text: "\n    if ( cmd == 0x5804 )\n        return xsplice_e2e_triple(cmd);\n",
        },
    ],
};

/// A warning; its line is the one with [`WARN_ANCHOR`].
pub const WARN: Recipe = Recipe {
    name: "warn",
    what: "Warn when asked to",
    edits: &[Edit {
        file: KERNEL,
        at: At::Behind(VERSION, DECLARED),
        text: "\n    if ( cmd == 0x5805 )\n    {\n        WARN_ON(cmd == 0x5805);\n        return 0x5e;\n    }\n",
    }],
};
/// What marks the line of the warning in [`WARN`].
pub const WARN_ANCHOR: &str = "WARN_ON(cmd == 0x5805)";

/// An alternative whose two forms give different numbers.
pub const ALTERNATIVE: Recipe = Recipe {
    name: "alternative",
    what: "Answer with which form of an alternative is in place",
    edits: &[
        Edit { file: PHYSDEV, at: At::Includes, text: "#include <asm/alternative.h>\n" },
        Edit {
            file: PHYSDEV,
            at: At::Before("do_physdev_op"),
            text: concat!(
                "static noinline long xsplice_e2e_which(void)\n{\n    unsigned int which;\n\n",
                "    asm volatile ( ALTERNATIVE(\"mov $101, %0\", \"mov $102, %0\", X86_FEATURE_ALWAYS)\n",
                "                   : \"=r\" (which) );\n\n    return which;\n}\n\n",
            ),
        },
        Edit {
            file: PHYSDEV,
            at: At::Behind("do_physdev_op", "currd = current->domain"),
            text: "\n    if ( cmd == 0x5806 )\n        return xsplice_e2e_which();\n",
        },
    ],
};

/// An alternative call; the answer is 201 if it works and is a direct call to its target.
pub const ALTCALL: Recipe = Recipe {
    name: "altcall",
    what: "Answer with whether an alternative call is a direct call",
    edits: &[
        Edit {
            file: PHYSDEV,
            at: At::Includes,
            text: "#include <asm/alternative.h>\n#include <asm/genapic.h>\n",
        },
        Edit {
            file: PHYSDEV,
            at: At::Before("do_physdev_op"),
            text: concat!(
                "static noinline const cpumask_t *xsplice_e2e_mask(int cpu)\n{\n",
                "    return alternative_call(genapic.vector_allocation_cpumask, cpu);\n}\n\n",
                "static noinline long xsplice_e2e_altcall(void)\n{\n",
                "    const uint8_t *code = (const void *)xsplice_e2e_mask;\n",
                "    unsigned long target = (unsigned long)genapic.vector_allocation_cpumask;\n",
                "    unsigned int i;\n\n",
                // The compiler is not to know whose bytes these are.
                "    asm ( \"\" : \"+r\" (code) );\n",
                "    if ( !cpumask_test_cpu(0, xsplice_e2e_mask(0)) )\n        return 203;\n\n",
                "    for ( i = 0; i < 48; i++ )\n",
                "    {\n",
                "        unsigned long called = (unsigned long)&code[i + 5];\n\n",
                "        called += *(const int32_t *)&code[i + 1];\n",
                // The hypervisor lets a direct call skip the target's ENDBR64, four bytes.
                "        if ( code[i] == 0xe8 && (called == target || called == target + 4) )\n",
                "            return 201;\n",
                "    }\n\n",
                "    return 202;\n}\n\n",
            ),
        },
        Edit {
            file: PHYSDEV,
            at: At::Behind("do_physdev_op", "currd = current->domain"),
            text: "\n    if ( cmd == 0x5807 )\n        return xsplice_e2e_altcall();\n",
        },
    ],
};

/// The lower of two stacked payloads; it brings a global function.
pub const LOWER: Recipe = Recipe {
    name: "stack-lower",
    what: "Bring a function that another payload can use",
    edits: &[
        Edit {
            file: KERNEL,
            at: At::Before(VERSION),
            text: concat!(
                "#ifndef COMPAT\nlong xsplice_e2e_lower(long value);\n",
                "long noinline xsplice_e2e_lower(long value)\n{\n    return value + 7000;\n}\n#endif\n\n",
            ),
        },
        Edit {
            file: KERNEL,
            at: At::Behind(VERSION, DECLARED),
            text: "\n#ifndef COMPAT\n    if ( cmd == 0x5808 )\n        return xsplice_e2e_lower(1);\n#endif\n",
        },
    ],
};

/// The upper one: another function, which calls the lower payload's.
pub const UPPER: Recipe = Recipe {
    name: "stack-upper",
    what: "Use a function of another payload",
    edits: &[
        Edit {
            file: SCHED,
            at: At::Before("domain_watchdog"),
            text: "long xsplice_e2e_lower(long value);\n\n",
        },
        Edit {
            file: SCHED,
            at: At::Body("domain_watchdog"),
            text: "    if ( id == 0x5809 )\n        return xsplice_e2e_lower(timeout);\n\n",
        },
    ],
};

/// A member more in a structure of a header that several files share.
pub const STRUCT: Recipe = Recipe {
    name: "changed-struct",
    what: "Add a member to a structure",
    edits: &[Edit {
        file: "xen/include/xen/kimage.h",
        at: At::Line("uint16_t arch;"),
        text: "    uint64_t xsplice_e2e;\n",
    }],
};

/// A per-CPU variable.
pub const PERCPU: Recipe = Recipe {
    name: "new-percpu",
    what: "Count per processor",
    edits: &[
        Edit {
            file: SCHED,
            at: At::Before("domain_watchdog"),
            text: "static DEFINE_PER_CPU(unsigned long, xsplice_e2e_calls);\n\n",
        },
        Edit { file: SCHED, at: At::Body("domain_watchdog"), text: "    this_cpu(xsplice_e2e_calls)++;\n\n" },
    ],
};

/// Another initial value of a variable.
pub const DATA: Recipe = Recipe {
    name: "changed-data",
    what: "Start with another log level",
    edits: &[Edit {
        file: "xen/drivers/char/console.c",
        at: At::Word("xenlog_upper_thresh =", "XENLOG_UPPER_THRESHOLD"),
        text: "XENLOG_UPPER_THRESHOLD + 1",
    }],
};

/// A new global function whose name the hypervisor has already.
pub const NAME_TAKEN: Recipe = Recipe {
    name: "name-taken",
    what: "Use a name that is taken",
    edits: &[
        Edit {
            file: SCHED,
            at: At::Before("domain_watchdog"),
            text: concat!(
                "long pmstat_reset_cx_stat(long value);\n",
                "long noinline pmstat_reset_cx_stat(long value)\n{\n    return value * 5;\n}\n\n",
            ),
        },
        Edit {
            file: SCHED,
            at: At::Body("domain_watchdog"),
            text: "    if ( id == 0x5810 )\n        return pmstat_reset_cx_stat(timeout);\n\n",
        },
    ],
};

/// A function that is two bytes long in the shipped hypervisor.
pub const NO_ROOM: Recipe = Recipe {
    name: "no-room",
    what: "Say something before the end",
    edits: &[Edit {
        file: "xen/arch/x86/mm.c",
        at: At::Body("__set_fixmap_x"),
        text: "    if ( flags == 0x5811 )\n        return;\n",
    }],
};

/// A change of assembler code only.
pub const ASSEMBLER: Recipe = Recipe {
    name: "assembler-only",
    what: "Do nothing for longer",
    edits: &[Edit {
        file: "xen/arch/x86/x86_64/entry.S",
        at: At::Line("restore_all_guest:"),
        text: "        nop\n",
    }],
};

/// A change of the flags of all objects of a folder.
pub const MAKEFILE: Recipe = Recipe {
    name: "makefile",
    what: "Compile with another flag",
    edits: &[Edit {
        file: "xen/common/sched/Makefile",
        at: At::End,
        text: "CFLAGS-y += -fno-schedule-insns2\n",
    }],
};

/// An option that the given configuration has can no longer be chosen.
pub const KCONFIG: Recipe = Recipe {
    name: "kconfig",
    what: "Forbid an option",
    edits: &[Edit {
        file: "xen/arch/x86/Kconfig",
        at: At::Line("config PV_LINEAR_PT"),
        text: "\tdepends on !X86\n",
    }],
};

/// Comments only.
pub const COMMENT: Recipe = Recipe {
    name: "comment-only",
    what: "Explain something",
    edits: &[Edit { file: KERNEL, at: At::End, text: "/* A remark of the end-to-end tests. */\n" }],
};

/// Code that runs at boot only.
pub const INIT: Recipe = Recipe {
    name: "init-only",
    what: "Say something at boot",
    edits: &[Edit {
        file: KERNEL,
        at: At::Behind("param_init", "hypfs_add_dir"),
        text: "    printk(\"xsplice-e2e\\n\");\n",
    }],
};

/// Tools of the control domain.
pub const TOOLS: Recipe = Recipe {
    name: "tools-only",
    what: "Change a tool",
    edits: &[Edit { file: "tools/misc/xen-livepatch.c", at: At::End, text: "int xsplice_e2e;\n" }],
};

/// Another architecture.
pub const ELSEWHERE: Recipe = Recipe {
    name: "other-architecture",
    what: "Change code for Arm",
    edits: &[Edit { file: "xen/arch/arm/setup.c", at: At::End, text: "int xsplice_e2e;\n" }],
};

/// Functions that the host may be running while they are overwritten, and one that looks so.
pub const MEANWHILE: Recipe = Recipe {
    name: "runs-meanwhile",
    what: "Change what NMIs, machine checks and offline CPUs run, and the switch of contexts",
    edits: &[
        Edit {
            file: "xen/arch/x86/traps.c",
            at: At::Behind("do_nmi", "this_cpu(nmi_count)++"),
            text: "    barrier();\n    this_cpu(nmi_count) |= 0x80000000;\n",
        },
        Edit {
            file: "xen/arch/x86/cpu/mcheck/mce.c",
            at: At::Behind("mcheck_mca_logout", "mc_flags = MC_FLAG_MCE"),
            text: "        errcnt = 1;\n",
        },
        Edit {
            file: "xen/arch/x86/domain.c",
            at: At::Behind("context_switch", "info->use_pv_cr3"),
            text: "    info->xen_cr3 = 1;\n    barrier();\n",
        },
    ],
};

/// Every recipe.
pub const ALL: &[&Recipe] = &[
    &DEMO,
    &GLOBAL,
    &STATIC,
    &STRING,
    &NEW_STATIC,
    &WARN,
    &ALTERNATIVE,
    &ALTCALL,
    &LOWER,
    &UPPER,
    &STRUCT,
    &PERCPU,
    &DATA,
    &NAME_TAKEN,
    &NO_ROOM,
    &ASSEMBLER,
    &MAKEFILE,
    &KCONFIG,
    &COMMENT,
    &INIT,
    &TOOLS,
    &ELSEWHERE,
    &MEANWHILE,
];
