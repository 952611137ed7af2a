//! End-to-end tests on the Xen that Debian 12 ships, 4.17.5+72: patches become payloads, which the shipped
//! hypervisor loads, runs and reverts in QEMU.
//!
//! They need the network or a filled cache, QEMU, and about a quarter of an hour, so they run only with
//! `XSPLICE_E2E=1`; `./test` does that. All share one kept build of the original. What is missing on this
//! machine is reported as ignored with the reason; with `CI=true` it is a failure.

mod answers;
mod base;
mod boots;
mod expectations;
mod in_place;
mod killed;
mod launchers;
mod refusals;
mod same;
mod setup;
mod whole;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use xsplice_e2e::recipes;

type Test = fn() -> Result<Completion, Failed>;

/// Tests that have a function each.
const TESTS: &[(&str, Test)] = &[
    ("stack::the_upper_payload_uses_the_lower_one", boots::stack),
    ("hooks::a_preapply_hook_says_no", boots::veto),
    ("expectations::one_that_is_wrong_stops_the_apply", expectations::wrong),
    ("expectations::none_where_a_payload_below_has_its_jump", expectations::below),
    ("expectations::left_out_where_nobody_wants_them_or_knows_what_is_below", expectations::left_out),
    ("stack::without_the_lower_one_it_is_refused", boots::stack_without_lower),
    ("base::all_functions_of_the_original_are_as_shipped", base::shipped),
    ("verify::the_loader_answers_as_it_is_said_to", answers::bookworm),
    ("verify::that_of_4_14_6_does", || answers::other(&xsplice_boot::BULLSEYE)),
    ("verify::that_of_4_20_4_does", || answers::other(&xsplice_boot::TRIXIE)),
    ("verify::a_payload_in_place_is_what_its_objects_say", in_place::objects),
    ("refusals::a_patch_that_does_not_apply", refusals::does_not_apply),
    ("refusals::a_configuration_without_live_patching", refusals::livepatch_off),
    ("refusals::the_symbols_of_another_xen", refusals::another_xens_symbols),
    ("refusals::a_changed_struct_in_a_shared_header", refusals::changed_struct),
    ("refusals::a_new_percpu_variable", refusals::new_percpu),
    ("refusals::changed_initialised_data", refusals::changed_data),
    ("refusals::a_new_global_whose_name_is_taken", refusals::name_taken),
    ("refusals::a_new_global_whose_name_is_taken_below", refusals::name_taken_below),
    ("refusals::a_function_without_room_for_the_jump", refusals::no_room),
    ("refusals::functions_that_run_meanwhile", refusals::runs_meanwhile),
    ("refusals::an_assembler_only_change", refusals::assembler_only),
    ("refusals::a_makefile_that_alters_other_objects", refusals::makefile),
    ("refusals::a_kconfig_change_that_alters_other_objects", refusals::kconfig),
    ("refusals::a_hook_that_may_not_be_called_by_pointer", refusals::hook_without_landing),
    ("refusals::a_hook_in_a_source_of_two_objects", refusals::hook_twice),
    ("nothing::comments_only", || refusals::nothing(&recipes::COMMENT, "comment")),
    ("nothing::init_only", || refusals::nothing(&recipes::INIT, "boot")),
    ("nothing::tools_only", || refusals::nothing(&recipes::TOOLS, "tool")),
    ("nothing::another_architecture_only", || refusals::nothing(&recipes::ELSEWHERE, "arch")),
    ("base::what_the_build_says_about_itself_is_the_shipped", same::version_c),
    ("same_bytes::with_one_job", same::same_bytes_with_one_job),
    ("same_bytes::with_empty_caches_elsewhere_after_a_killed_build", same::same_bytes),
    ("same_bytes::of_a_whole_original", same::same_bytes_of_a_whole_original),
    ("same_bytes::without_git", same::no_git),
    ("same_bytes::after_a_full_disk", same::full_disk),
    ("same_bytes::with_ccache", launchers::ccache),
    ("same_bytes::with_distcc", launchers::distcc),
    ("tree::of_another_owner_and_not_writable", same::foreign_owner),
    ("tree::on_a_read_only_mount", same::read_only_mount),
    ("whole::each_object_of_debians_xen_against_itself", whole::debian),
    ("whole::debians_xen_by_its_preset_is_the_shipped_one", whole::preset),
    ("whole::a_function_of_xen_4_14_and_each_object_against_itself", whole::old),
];

fn main() {
    let mut args = Arguments::from_args();
    // Builds wait for each other; one more thread boots meanwhile.
    args.test_threads = args.test_threads.or(Some(2));
    let skip = std::env::var_os("XSPLICE_E2E").is_none_or(|value| value != "1");
    let mut trials = Vec::new();
    for case in boots::CASES {
        trials.push(Trial::ignorable_test(format!("boot::{}", case.name), || boots::case(case)));
    }
    for case in boots::CASES {
        if case.has_entry() {
            let name = format!("boot::{}_and_not_without_its_entry", case.name);
            trials.push(Trial::ignorable_test(name, || boots::without_entry(case)));
        }
    }
    trials.extend(TESTS.iter().map(|(name, test)| Trial::ignorable_test(*name, test)));
    for stage in killed::STAGES {
        trials.push(Trial::ignorable_test(format!("killed::at_{stage}"), || killed::at(stage)));
    }
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(skip)).collect();
    let conclusion = libtest_mimic::run(&args, trials);
    setup::tear_down();
    conclusion.exit();
}
