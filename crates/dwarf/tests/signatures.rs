//! Registers of arguments and results, counted by hand from the ABI.

mod common;

use common::{compile, compilers};
use xsplice_dwarf::{DebugInfo, Signature};

#[test]
fn arguments_and_results_take_the_registers_of_the_abi() {
    let cases = [
        ("other", 4, true, false),
        ("variadic", 6, true, false),
        // A structure of 24 bytes is passed on the stack.
        ("wide", 1, true, true),
        // The result's address is an argument.
        ("large", 2, true, false),
        ("nothing", 0, false, false),
        ("local", 2, true, false),
        ("use", 1, true, false),
    ];
    for compiler in compilers() {
        for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
            let object = compile(compiler, "signatures/main.c", &[dwarf, "-O2"]);
            let info = DebugInfo::read(&object).expect("readable").expect("debug information");
            for (name, arguments, result, wide_result) in cases {
                let expected = Signature { arguments, result, wide_result };
                assert_eq!(info.signature(name), Some(expected), "{compiler} {dwarf} {name}");
            }
            assert_eq!(info.signature("absent"), None);
        }
    }
}
