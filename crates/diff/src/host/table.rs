//! Functions that a running host cannot have replaced, or not at once: data.
//!
//! Names are those of the source; `*` stands for anything at an end. Where a name is static, any file's counts.

/// What comes of replacing a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It may be running while it is overwritten.
    Apply,
    /// It may be running, or on a stack, when the payload is reverted and its memory freed.
    Revert,
    /// None, but the new code runs late or never.
    Late,
}

/// A function, or several.
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: &'static str,
    /// What comes of it.
    pub(crate) harm: Harm,
    /// Why, as a sentence.
    pub(crate) because: &'static str,
    /// The first and the last Xen 4.x whose source has it, of 4.13 to 4.22.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and checked by a test"))]
    pub(crate) seen: (u8, u8),
}

const fn listed(name: &'static str, harm: Harm, seen: (u8, u8), because: &'static str) -> Listed {
    Listed { name, harm, because, seen }
}

const ALWAYS: (u8, u8) = (13, 22);

const NMI: &str = "NMIs run it also while functions are overwritten.";
const MCE: &str = "A machine check runs it at any time, also while functions are overwritten.";
const COPY: &str = "The loader overwrites functions with it, so it runs while it is itself overwritten.";
const ACTION: &str = "It runs while the payload is applied or reverted: that would be done half by the old code and half by the new.";
const NEVER_LEFT: &str =
    "It never returns: after a revert idle CPUs would go on running the payload's memory, which is freed.";
const PARKED: &str =
    "CPUs that are offline stay in it, take no part in a revert, and would wake up in memory that is freed.";
const CPU_UP: &str = "It runs when a CPU comes online, that is at boot, after S3 and for CPUs that are taken offline and back: CPUs that are online stay as they are.";
const NEW_DOMAINS: &str =
    "It runs when a domain or virtual CPU is made: those that are there stay as they are.";

/// All of them, from the code of 4.13 to 4.22.
pub(crate) const LISTED: &[Listed] = &[
    listed("do_nmi", Harm::Apply, ALWAYS, NMI),
    listed("mask_nmi_callback", Harm::Apply, ALWAYS, NMI),
    listed("nmi", Harm::Apply, (13, 17), NMI),
    listed("entry_NMI", Harm::Apply, (18, 22), NMI),
    listed("handle_ist_exception", Harm::Apply, ALWAYS, NMI),
    listed("machine_check", Harm::Apply, (13, 17), MCE),
    listed("entry_MC", Harm::Apply, (18, 22), MCE),
    listed("do_machine_check", Harm::Apply, ALWAYS, MCE),
    listed("mcheck_cmn_handler", Harm::Apply, ALWAYS, MCE),
    listed("unexpected_machine_check", Harm::Apply, ALWAYS, MCE),
    listed("memcpy", Harm::Apply, ALWAYS, COPY),
    listed("check_for_livepatch_work", Harm::Apply, ALWAYS, ACTION),
    listed("do_livepatch_work", Harm::Apply, (19, 22), ACTION),
    listed("livepatch_do_action", Harm::Apply, ALWAYS, ACTION),
    listed("livepatch_spin", Harm::Apply, ALWAYS, ACTION),
    listed("apply_payload*", Harm::Apply, ALWAYS, ACTION),
    listed("revert_payload*", Harm::Apply, ALWAYS, ACTION),
    listed("common_livepatch_*", Harm::Apply, (14, 16), ACTION),
    listed("arch_livepatch_*", Harm::Apply, ALWAYS, ACTION),
    listed("idle_loop", Harm::Revert, ALWAYS, NEVER_LEFT),
    listed("play_dead", Harm::Revert, ALWAYS, PARKED),
    listed("*_dead_idle", Harm::Revert, ALWAYS, PARKED),
    listed("trap_nop", Harm::Revert, ALWAYS, PARKED),
    listed("init_amd", Harm::Late, ALWAYS, CPU_UP),
    listed("init_intel", Harm::Late, ALWAYS, CPU_UP),
    listed("init_hygon", Harm::Late, ALWAYS, CPU_UP),
    listed("init_centaur", Harm::Late, ALWAYS, CPU_UP),
    listed("init_shanghai", Harm::Late, ALWAYS, CPU_UP),
    listed("early_init_*", Harm::Late, ALWAYS, CPU_UP),
    listed("identify_cpu", Harm::Late, ALWAYS, CPU_UP),
    listed("cpu_init", Harm::Late, ALWAYS, CPU_UP),
    listed("vmx_cpu_up", Harm::Late, ALWAYS, CPU_UP),
    listed("svm_cpu_up", Harm::Late, ALWAYS, CPU_UP),
    listed("start_secondary", Harm::Late, ALWAYS, CPU_UP),
    listed("startup_cpu_idle_loop", Harm::Late, ALWAYS, CPU_UP),
    listed("mcheck_init", Harm::Late, ALWAYS, CPU_UP),
    listed("amd_mcheck_init", Harm::Late, ALWAYS, CPU_UP),
    listed("intel_mcheck_init", Harm::Late, ALWAYS, CPU_UP),
    listed("microcode_update_one", Harm::Late, ALWAYS, CPU_UP),
    listed("construct_vmcs", Harm::Late, ALWAYS, NEW_DOMAINS),
    listed("construct_vmcb", Harm::Late, ALWAYS, NEW_DOMAINS),
    listed("domain_create", Harm::Late, ALWAYS, NEW_DOMAINS),
    listed("vcpu_create", Harm::Late, ALWAYS, NEW_DOMAINS),
    listed("arch_domain_create", Harm::Late, ALWAYS, NEW_DOMAINS),
    listed("arch_vcpu_create", Harm::Late, ALWAYS, NEW_DOMAINS),
    listed("hvm_domain_initialise", Harm::Late, ALWAYS, NEW_DOMAINS),
    listed("hvm_vcpu_initialise", Harm::Late, ALWAYS, NEW_DOMAINS),
];

/// Functions of which a name in [`LISTED`] is not meant: the loader runs them when it takes a payload, and no action
/// is under way then (xen/common/livepatch.c and livepatch_elf.c, 4.13 to 4.22).
pub(crate) const AT_UPLOAD: &[&str] = &[
    "arch_livepatch_init",
    "arch_livepatch_perform_rel",
    "arch_livepatch_perform_rela",
    "arch_livepatch_secure",
    "arch_livepatch_symbol_deny",
    "arch_livepatch_symbol_ok",
    "arch_livepatch_verify_elf",
    "arch_livepatch_verify_func",
];

/// Functions that look dangerous and are not: CPUs meet from the idle loop, with stacks that were reset, so that none
/// of these has a frame that survives an action.
pub(crate) const SAFE: &[&str] = &[
    "context_switch",
    "continue_running",
    "do_softirq",
    "__do_softirq",
    "schedule",
    "do_tasklet",
    "vmx_do_resume",
    "svm_do_resume",
    "acpi_processor_idle",
    "acpi_idle_do_entry",
    "mwait_idle",
    "mwait_idle_with_hints",
    "default_idle",
    "sched_guest_idle",
    "smp_call_function_interrupt",
];

/// What a machine check runs in C; the handlers are called by pointer.
pub(crate) const MACHINE_CHECK: &[&str] = &["do_machine_check", "mcheck_cmn_handler"];
/// Folder of what only machine checks are about.
pub(crate) const MACHINE_CHECK_FOLDER: &str = "xen/arch/x86/cpu/mcheck/";
/// What it calls and is not followed: the host is lost when these run, or they report something unusual.
pub(crate) const NOT_FOLLOWED: &[&str] =
    &["mc_panic", "panic", "fatal_trap", "do_unhandled_trap", "machine_restart", "add_taint", "printk"];

/// Where the idle loop of a CPU that goes offline ends.
pub(crate) const DEAD: &str = "play_dead";
/// What that calls by pointer.
pub(crate) const DEAD_IDLE: &str = "*_dead_idle";

/// Puts the stack of the virtual CPU that runs it away; its callers return when that is woken (xen/common/wait.c).
pub(crate) const WAIT: &[&str] = &["prepare_to_wait", "__prepare_to_wait"];
/// Takes such a stack back: jumps into the middle of the inner function of [`WAIT`].
pub(crate) const WAKE: &str = "check_wakeup_from_wait";

/// Functions that keep an address which they are given, or start what holds one, and call it later.
pub(crate) const KEEPERS: &[&str] = &[
    "alloc_direct_apic_vector",
    "alloc_unbound_xen_event_channel",
    "call_rcu",
    "continue_hypercall_on_cpu",
    "init_timer",
    "notifier_chain_register",
    "open_softirq",
    "register_cpu_notifier",
    "register_irq_keyhandler",
    "register_keyhandler",
    "register_mmio_handler",
    "register_portio_handler",
    "request_irq",
    "set_direct_apic_vector",
    "set_nmi_callback",
    "set_timer",
    "setup_irq",
    "softirq_tasklet_init",
    "tasklet_init",
    "tasklet_schedule",
    "tasklet_schedule_on_cpu",
    "vpci_add_register",
];

/// Functions that are done with an address which they are given when they return.
pub(crate) const CALLERS: &[&str] = &[
    "bsearch",
    "on_selected_cpus",
    "radix_tree_destroy",
    "rangeset_consume_ranges",
    "rangeset_report_ranges",
    "smp_call_function",
    "sort",
    "stop_machine_run",
];

/// Whether a name is that of a list, where `*` stands for anything at an end.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sentences_about_known_versions() {
        for entry in LISTED {
            assert!(entry.because.ends_with('.') && entry.because.len() > 20, "{}", entry.name);
            assert!(
                13 <= entry.seen.0 && entry.seen.0 <= entry.seen.1 && entry.seen.1 <= 22,
                "{}",
                entry.name
            );
            assert!(!SAFE.iter().any(|safe| fits(entry.name, safe)), "{} is listed as safe too", entry.name);
        }
        for name in AT_UPLOAD {
            assert!(LISTED.iter().any(|entry| fits(entry.name, name)), "{name} needs no exception");
        }
    }

    #[test]
    fn stars_stand_for_anything_at_an_end() {
        assert!(fits("*_dead_idle", "acpi_dead_idle") && !fits("*_dead_idle", "dead_idle_loop"));
        assert!(fits("early_init_*", "early_init_amd") && !fits("early_init_*", "early_microcode_init"));
        assert!(fits("nmi", "nmi") && !fits("nmi", "do_nmi"));
    }
}
