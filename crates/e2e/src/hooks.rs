//! The recipes with hooks, for Xen 4.17 as Debian ships it.

use crate::{At, Edit, Recipe};

const SCHED: &str = "xen/common/sched/core.c";
const PHYSDEV: &str = "xen/arch/x86/physdev.c";
/// The function that all of them change; see [`crate::recipes::STATIC`].
const WATCHDOG: &str = "domain_watchdog";

const INCLUDES: Edit = Edit {
    file: SCHED,
    at: At::Line("#include <xen/sched.h>"),
    text: "#include <xen/livepatch.h>\n#include <xen/livepatch_payload.h>\n",
};

/// A load hook sets what the new code answers with; both hooks write to the console.
pub const LOAD_AND_UNLOAD: Recipe = Recipe {
    name: "load-and-unload-hook",
    what: "Run something when the payload is applied and when it is reverted",
    edits: &[
        INCLUDES,
        Edit {
            file: SCHED,
            at: At::Before(WATCHDOG),
            text: concat!(
                "static long xsplice_e2e_answer;\n\n",
                "static void cf_check xsplice_e2e_load(void)\n{\n",
                "    xsplice_e2e_answer += 4711;\n    printk(\"xsplice-e2e load hook\\n\");\n}\n",
                "LIVEPATCH_LOAD_HOOK(xsplice_e2e_load);\n\n",
                "static void cf_check xsplice_e2e_unload(void)\n{\n",
                "    printk(\"xsplice-e2e unload hook after %ld\\n\", xsplice_e2e_answer);\n}\n",
                "LIVEPATCH_UNLOAD_HOOK(xsplice_e2e_unload);\n\n",
            ),
        },
        Edit {
            file: SCHED,
            at: At::Body(WATCHDOG),
            text: "    if ( id == 0x5813 )\n        return xsplice_e2e_answer;\n\n",
        },
    ],
};

/// Hooks, and nothing that is replaced.
pub const ALONE: Recipe = Recipe {
    name: "hooks-alone",
    what: "Run something when the payload is applied and when it is reverted, and change nothing",
    edits: &[
        // At the end of the file, so that no line moves. It includes itself once.
        Edit {
            file: SCHED,
            at: At::End,
            text: concat!(
                "\n#ifndef XSPLICE_E2E\n#define XSPLICE_E2E\n#include <xen/livepatch_payload.h>\n\n",
                "static void cf_check xsplice_e2e_alone_in(void)\n{\n",
                "    printk(\"xsplice-e2e alone in\\n\");\n}\n",
                "LIVEPATCH_LOAD_HOOK(xsplice_e2e_alone_in);\n\n",
                "static void cf_check xsplice_e2e_alone_out(void)\n{\n",
                "    printk(\"xsplice-e2e alone out\\n\");\n}\n",
                "LIVEPATCH_UNLOAD_HOOK(xsplice_e2e_alone_out);\n#endif\n",
            ),
        },
    ],
};

/// A hook of each kind, which says its name. Those that stand in for the loader do its work.
pub const EVERY_KIND: Recipe = Recipe {
    name: "every-kind-of-hook",
    what: "Say which hook runs when",
    edits: &[
        Edit {
            file: SCHED,
            at: At::End,
            text: concat!(
                "\n#ifndef XSPLICE_E2E\n#define XSPLICE_E2E\n#include <xen/livepatch.h>\n#include <xen/livepatch_payload.h>\n\n",
                "static void xsplice_e2e_say(const char *which)\n{\n",
                "    printk(\"xsplice-e2e hook %s\\n\", which);\n}\n\n",
                "static void cf_check xsplice_e2e_load(void)\n{\n    xsplice_e2e_say(\"load\");\n}\n",
                "LIVEPATCH_LOAD_HOOK(xsplice_e2e_load);\n\n",
                "static void cf_check xsplice_e2e_unload(void)\n{\n    xsplice_e2e_say(\"unload\");\n}\n",
                "LIVEPATCH_UNLOAD_HOOK(xsplice_e2e_unload);\n\n",
                "static int cf_check xsplice_e2e_preapply(livepatch_payload_t *payload)\n{\n",
                "    xsplice_e2e_say(\"preapply\");\n    return 0;\n}\n",
                "LIVEPATCH_PREAPPLY_HOOK(xsplice_e2e_preapply);\n\n",
                "static int cf_check xsplice_e2e_apply(livepatch_payload_t *payload)\n{\n",
                "    unsigned int left = payload->nfuncs;\n\n",
                "    xsplice_e2e_say(\"apply\");\n",
                "    payload->load_funcs[0]();\n",
                "    if ( arch_livepatch_quiesce() )\n        return -EBUSY;\n",
                "    while ( left-- )\n    {\n",
                "        arch_livepatch_apply(payload->funcs + left, payload->fstate + left);\n",
                "        payload->fstate[left].applied = LIVEPATCH_FUNC_APPLIED;\n    }\n",
                "    arch_livepatch_revive();\n\n    return 0;\n}\n",
                "LIVEPATCH_APPLY_HOOK(xsplice_e2e_apply);\n\n",
                "static void cf_check xsplice_e2e_postapply(livepatch_payload_t *payload)\n{\n",
                "    xsplice_e2e_say(\"postapply\");\n}\n",
                "LIVEPATCH_POSTAPPLY_HOOK(xsplice_e2e_postapply);\n\n",
                "static int cf_check xsplice_e2e_prerevert(livepatch_payload_t *payload)\n{\n",
                "    xsplice_e2e_say(\"prerevert\");\n    return 0;\n}\n",
                "LIVEPATCH_PREREVERT_HOOK(xsplice_e2e_prerevert);\n\n",
                "static int cf_check xsplice_e2e_revert(livepatch_payload_t *payload)\n{\n",
                "    xsplice_e2e_say(\"revert\");\n    return revert_payload(payload);\n}\n",
                "LIVEPATCH_REVERT_HOOK(xsplice_e2e_revert);\n\n",
                "static void cf_check xsplice_e2e_postrevert(livepatch_payload_t *payload)\n{\n",
                "    xsplice_e2e_say(\"postrevert\");\n}\n",
                "LIVEPATCH_POSTREVERT_HOOK(xsplice_e2e_postrevert);\n#endif\n",
            ),
        },
        Edit {
            file: SCHED,
            at: At::Body(WATCHDOG),
            text: "    if ( id == 0x5814 )\n        return 5814;\n\n",
        },
    ],
};

/// A preapply hook that says no, with an error that nothing else in the way gives.
pub const VETO: Recipe = Recipe {
    name: "veto",
    what: "Never apply",
    edits: &[
        Edit {
            file: SCHED,
            at: At::End,
            text: concat!(
                "\n#ifndef XSPLICE_E2E\n#define XSPLICE_E2E\n#include <xen/livepatch.h>\n#include <xen/livepatch_payload.h>\n\n",
                "static int cf_check xsplice_e2e_veto(livepatch_payload_t *payload)\n{\n",
                "    return -EXDEV;\n}\n",
                "LIVEPATCH_PREAPPLY_HOOK(xsplice_e2e_veto);\n#endif\n",
            ),
        },
        Edit {
            file: SCHED,
            at: At::Body(WATCHDOG),
            text: "    if ( id == 0x5815 )\n        return 5815;\n\n",
        },
    ],
};

/// A hook that may not be called by pointer.
pub const NO_LANDING: Recipe = Recipe {
    name: "hook-without-landing",
    what: "Run something when the payload is applied",
    edits: &[Edit {
        file: SCHED,
        at: At::End,
        text: concat!(
            "\n#ifndef XSPLICE_E2E\n#define XSPLICE_E2E\n#include <xen/livepatch.h>\n#include <xen/livepatch_payload.h>\n\n",
            "static void xsplice_e2e_plain(void)\n{\n    printk(\"hook\\n\");\n}\n",
            "LIVEPATCH_LOAD_HOOK(xsplice_e2e_plain);\n#endif\n",
        ),
    }],
};

/// A hook in a source that is compiled in two forms, of a kind of which there can be one.
pub const TWICE: Recipe = Recipe {
    name: "hook-twice",
    what: "Ask before the payload is applied",
    edits: &[
        Edit { file: PHYSDEV, at: At::Includes, text: "#include <xen/livepatch_payload.h>\n" },
        Edit {
            file: PHYSDEV,
            at: At::Before("do_physdev_op"),
            text: concat!(
                "static int cf_check xsplice_e2e_ask(livepatch_payload_t *payload)\n{\n    return 0;\n}\n",
                "LIVEPATCH_PREAPPLY_HOOK(xsplice_e2e_ask);\n\n",
            ),
        },
    ],
};

/// Every recipe.
pub const ALL: &[&Recipe] = &[&LOAD_AND_UNLOAD, &ALONE, &EVERY_KIND, &VETO, &NO_LANDING, &TWICE];
