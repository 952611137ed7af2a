//! Whether a rebuilt original is the shipped hypervisor, and what is said where it is not.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/toolchain.rs"]
mod toolchain;

use std::io::Write;
use std::process::Command;

use desk::Desk;
use flate2::{Compression, GzBuilder};
use xsplice_diff::{
    Base, BaseHow, Compared, Configuration, Correlated, Input, LeftOut, Loader, ObjectPair, OtherOption,
    Parts, Patchable, Selection, World, configuration, prove,
};
use xsplice_objects::{Hypervisor, Object};
use xsplice_report::Problems;

impl Desk {
    /// An image after objcopy.
    fn changed(&self, image: &[u8], args: &[&str]) -> Vec<u8> {
        let file = self.0.path().join("image");
        std::fs::write(&file, image).expect("an image");
        let done = Command::new("objcopy").args(args).arg(&file).status().expect("objcopy");
        assert!(done.success());
        std::fs::read(&file).expect("an image")
    }
}

fn hypervisor(image: &[u8]) -> Hypervisor {
    Hypervisor::parse("xen-syms", image).expect("a hypervisor")
}

fn with_world<T>(image: &[u8], below: &[&str], ask: impl Fn(&World<'_>) -> T) -> T {
    let (hypervisor, loader) = (hypervisor(image), Loader::default());
    let replaced = below.iter().map(|&name| name.to_owned()).collect();
    ask(&World {
        replaced: &replaced,
        no_expectations: Some(LeftOut::Asked),
        ..World::bare(&hypervisor, &loader)
    })
}

/// How objects compare with an image; none of them is in an archive.
fn proved(objects: &[&[u8]], image: &[u8]) -> Base {
    let parse = |(number, object): (usize, &&[u8])| {
        Object::parse(&format!("xen/common/{number}.o"), object).expect("an object")
    };
    let objects: Vec<Object> = objects.iter().enumerate().map(parse).collect();
    with_world(image, &[], |world| prove(objects.iter().map(|object| (object, false)), world))
}

/// What a change of an object gives.
fn check(before: &[u8], after: &[u8], image: &[u8]) -> Result<Base, Problems> {
    let pair = ObjectPair::parse(Input {
        path: "xen/common/own.o",
        source: "xen/common/own.c",
        assembler: false,
        base: Some(before),
        patched: Some(after),
    })
    .expect("objects");
    let parts = [Parts::of(&pair).expect("parts")];
    let compared = Compared::all(parts.iter().map(Correlated::of).collect());
    with_world(image, &[], |world| {
        Patchable::check(Selection::of(&compared, world), &parts, world).map(|done| done.base().clone())
    })
}

/// Six functions, two of them with loops that optimisation shapes.
const SIX: &str = r#"
#include "hv.h"
#ifdef OPTION
#define STEPS 12
#else
#define STEPS 8
#endif
int noinline one(int a) { for (int i = 0; i < STEPS; i++) a += handle(a ^ i); return a; }
int two(int *a) { int s = 0; for (int i = 0; i < 40; i++) s += a[i] * a[i]; return handle(s); }
int noinline three(int a, int b) { if (a > b) printk("more"); else printk("less"); return handle(a) + handle(b); }
int four(int a) { return one(a) + three(a, 4) * 3; }
int five(int a) { switch (a) { case 1: return handle(7); case 2: return handle(9); } return handle(a) - 1; }
int six(int a)
{
#ifdef PATCHED
    a++;
#endif
#ifdef OTHER_SOURCE
    a += 3;
#endif
    return handle(a) + two(&a);
}
"#;

fn mismatch(problems: &Problems) -> String {
    let found: Vec<_> = problems.0.iter().filter(|problem| problem.code.name == "base-mismatch").collect();
    assert_eq!(found.len(), 1, "{problems:?}");
    format!("{}\n{}", found[0].what, found[0].why)
}

#[test]
fn the_same_base_is_accepted_and_another_one_is_refused_with_its_cause() {
    let desk = Desk::new();
    let compile = |flags: &[&str]| desk.compile("own.c", SIX, flags);
    let (before, after) = (compile(&[]), compile(&["-DPATCHED"]));
    let same = check(&before, &after, &desk.image(&[&before])).expect("a payload");
    assert_eq!((same.functions, same.identical, same.differing.len()), (6, 6, 0));

    let agree = "most functions that were compared agree, so that the source of these is another one";
    let most = "most functions that were compared differ, as they do under another optimisation level";
    for (flags, what, cause) in [
        (&["-DOTHER_SOURCE"][..], "1 of 6", agree),
        (&["-DOPTION"], "1 of 6", agree),
        (&["-O0"], "6 of 6", most),
    ] {
        let image = desk.image(&[&compile(flags)]);
        let problems = check(&before, &after, &image).expect_err("another base");
        let said = mismatch(&problems);
        for part in [what, cause, "The shipped hypervisor was built from other code, flags or compiler: "] {
            assert!(said.contains(part), "{flags:?}: {part:?} is not in {said}");
        }
    }
    // Another compiler is told by its own name, whatever differs.
    let image = desk.image(&[&compile(&["-DOTHER_SOURCE"])]);
    let comment = desk.source("comment", "other compiler 1.0\0");
    let image = desk.changed(&image, &["--update-section", &format!(".comment={}", comment.display())]);
    let said = mismatch(&check(&before, &after, &image).expect_err("another base"));
    assert!(said.contains("compiler: it was made by other compiler 1.0, and this object by GCC: "), "{said}");
}

#[test]
fn the_first_differing_instruction_is_shown_in_both() {
    let desk = Desk::new();
    let text = "#include \"hv.h\"\nint get(int a) { return handle(a) ^ FACTOR; }\n";
    let (ours, theirs) =
        (desk.compile("own.c", text, &["-DFACTOR=0x11"]), desk.compile("own.c", text, &["-DFACTOR=0x22"]));
    let base = proved(&[&ours], &desk.image(&[&theirs]));
    assert_eq!((base.functions, base.identical), (1, 0));
    let one = &base.differing[0];
    assert_eq!((one.name.as_str(), one.how, one.boot), ("get", BaseHow::Code, false));
    assert!(one.what.contains("`xor $0x11,%eax`, shipped is `xor $0x22,%eax`"), "{}", one.what);
}

/// Variables whose names are not in the shipped table: only the addresses in code tell.
const COUNTERS: &str = r#"
#include "hv.h"
static volatile u32 first, second;
u32 read_first(void) { return first; }
u32 read_second(void) { return second; }
void write_first(u32 a)
{
#ifdef SHIPPED
    second = a;
#else
    first = a;
#endif
}
"#;

#[test]
fn fields_that_refer_to_one_thing_agree_on_its_address() {
    let desk = Desk::new();
    let ours = desk.compile("own.c", COUNTERS, &[]);
    let strip = ["--strip-symbol", "first", "--strip-symbol", "second"];
    let same = desk.changed(&desk.image(&[&ours]), &strip);
    assert!(hypervisor(&same).named("own.c#first").next().is_none(), "the test's premise");
    let base = proved(&[&ours], &same);
    assert_eq!((base.functions, base.identical), (3, 3), "{base:?}");

    let theirs = desk.image(&[&desk.compile("own.c", COUNTERS, &["-DSHIPPED"])]);
    // The bytes are the same: with and without names it is noticed.
    for image in [theirs.clone(), desk.changed(&theirs, &strip)] {
        let base = proved(&[&ours], &image);
        assert_eq!((base.functions, base.identical), (3, 2), "{base:?}");
        let one = &base.differing[0];
        assert_eq!((one.name.as_str(), one.how), ("write_first", BaseHow::Code));
        assert!(one.what.contains("first, shipped leads elsewhere"), "{}", one.what);
    }
}

#[test]
fn objects_agree_on_what_they_have_in_common() {
    let desk = Desk::new();
    let shared = "#include \"hv.h\"\nint shared, other;\n";
    let reader = "#include \"hv.h\"\nextern int shared, other;\nint reader(void) { return shared; }\n";
    let writer = "#include \"hv.h\"\nextern int shared, other;\nvoid writer(int a) { WHICH = a; }\n";
    let shared = desk.compile("shared.c", shared, &[]);
    let reader = desk.compile("reader.c", reader, &[]);
    let ours = desk.compile("writer.c", writer, &["-DWHICH=shared"]);
    let theirs = desk.compile("writer.c", writer, &["-DWHICH=other"]);
    let image = desk.image(&[&shared, &reader, &theirs]);
    let nameless = desk.changed(&image, &["--strip-symbol", "shared", "--strip-symbol", "other"]);
    let base = proved(&[&reader, &ours], &nameless);
    assert_eq!((base.functions, base.identical), (2, 1), "{base:?}");
    assert!(base.differing[0].what.contains("shared, shipped leads elsewhere than reader does"), "{base:?}");
    assert_eq!(proved(&[&reader, &theirs], &nameless).identical, 2);
}

#[test]
fn contents_are_compared_where_they_have_no_name() {
    let desk = Desk::new();
    let text = "#include \"hv.h\"\nstatic const u32 table[] = { 3, 5, LAST };\n\
        u32 pick(u32 n) { return table[n & 1]; }\nvoid tell(void) { printk(TEXT); }\n";
    let ours = desk.compile("own.c", text, &["-DLAST=7", "-DTEXT=\"one\""]);
    for (flags, how, name) in [
        (["-DLAST=8", "-DTEXT=\"one\""], BaseHow::Data, "pick"),
        (["-DLAST=7", "-DTEXT=\"two\""], BaseHow::Text, "tell"),
    ] {
        let image = desk.image(&[&desk.compile("own.c", text, &flags)]);
        let base = proved(&[&ours], &desk.changed(&image, &["--strip-symbol", "table"]));
        let found: Vec<_> = base.differing.iter().map(|one| (one.how, one.name.as_str())).collect();
        assert_eq!(found, [(how, name)], "{base:?}");
        assert_eq!(base.other_content(), 1);
    }
}

#[test]
fn what_the_hypervisor_has_and_no_object_is_listed_and_archives_give_what_is_needed() {
    let desk = Desk::new();
    let two = desk.compile("two.c", "#include \"hv.h\"\nint kept(int a) { return handle(a); }\n", &[]);
    let image = desk.image(&[&two]);
    let base = proved(&[], &image);
    let missing = base.not_rebuilt.expect("a list");
    assert!(
        missing.iter().any(|name| name == "kept") && missing.iter().any(|name| name == "handle"),
        "{missing:?}"
    );
    let unused = "int unused(int a) { return a * 3; }\nint kept(int a) { return a; }\n";
    let unused =
        Object::parse("xen/lib/unused.o", &desk.compile("unused.c", unused, &[])).expect("an object");
    let used = Object::parse("xen/lib/two.o", &two).expect("an object");
    for archived in [false, true] {
        let all = [(&unused, archived), (&used, archived)];
        let base = with_world(&image, &[], |world| prove(all, world));
        let not_linked: &[&str] = if archived { &["xen/lib/unused.o"] } else { &[] };
        assert_eq!(base.not_linked, not_linked);
        assert_eq!((base.functions, base.identical), if archived { (1, 1) } else { (3, 1) });
    }
}

/// As `xen/common/config_data.o` holds it.
fn configuration_data(desk: &Desk, packed: &[u8]) -> Vec<u8> {
    let bytes: Vec<String> = packed.iter().map(u8::to_string).collect();
    let bytes = bytes.join(",");
    let text = format!("const char __attribute__((used)) xen_config_data[] = {{ {bytes} }};\n");
    desk.compile("config_data.c", &text, &["-Wno-overflow"])
}

fn packed(time: u32, text: &str) -> Vec<u8> {
    let mut packer = GzBuilder::new().mtime(time).write(Vec::new(), Compression::best());
    packer.write_all(text.as_bytes()).expect("packed");
    packer.finish().expect("packed")
}

#[test]
fn the_configuration_that_both_hold_is_compared() {
    const OURS: &str = "# Words\nCONFIG_A=y\nCONFIG_B=\"b\"\n# CONFIG_C is not set\n";
    let desk = Desk::new();
    let object = configuration_data(&desk, &packed(1, OURS));
    let ours = Object::parse("xen/common/config_data.o", &object).expect("an object");
    let other = |name: &str, ours: &str, shipped: &str| OtherOption {
        name: name.to_owned(),
        ours: ours.to_owned(),
        shipped: shipped.to_owned(),
    };
    for (theirs, wanted) in [
        (packed(1, OURS), Some(Configuration::Same)),
        (packed(2, OURS), Some(Configuration::Same)),
        (
            packed(1, "CONFIG_B=\"c\"\nCONFIG_C=y\n"),
            Some(Configuration::Other(vec![
                other("CONFIG_A", "y", "n"),
                other("CONFIG_B", "\"b\"", "\"c\""),
                other("CONFIG_C", "n", "y"),
            ])),
        ),
        (b"this is not what gzip writes".to_vec(), Some(Configuration::Other(Vec::new()))),
        (vec![31, 139], None),
    ] {
        let image = desk.image(&[&configuration_data(&desk, &theirs)]);
        assert_eq!(configuration(&ours, &hypervisor(&image)), wanted);
    }
    assert_eq!(configuration(&ours, &hypervisor(&desk.image(&[]))), None);
}

/// Tail calls that reach far or near, and code that is put aside.
const JUMPS: &str = r#"
#include "hv.h"
int noinline helper(int a) { return handle(a) + 1; }
int noinline other(int a) { return handle(a) + 2; }
int tail(int a)
{
    int s = 0;
    for (int i = 0; i < a; i++)
        s += handle(i);
    if (s LIMIT 3)
        return TARGET(s);
    return handle(s - 1);
}
int noinline aside(int a)
{
    asm volatile ("test %0, %0\n jz .Laside%=\n.Lback%=:\n.subsection 1\n"
                  ".Laside%=: add $" STEP ", %0\n jmp .Lback%=\n.subsection 0" : "+r" (a));
    return helper(a);
}
int last(int a) { return a ? helper(a) : aside(a); }
"#;

#[test]
fn jumps_of_other_lengths_are_the_same_code() {
    let desk = Desk::new();
    let usual = ["-DLIMIT=>", "-DTARGET=helper", "-DSTEP=\"3\""];
    let compile = |flags: &[&str]| desk.compile("own.c", JUMPS, flags);
    // As hypervisors before Xen 4.17 are shipped: functions share a section.
    let shipped = |flags: &[&str]| {
        let together = ["-fno-function-sections", "-fno-data-sections"];
        desk.image(&[&compile(&[flags, &together].concat())])
    };
    let ours = compile(&usual);
    let image = shipped(&usual);
    let size = |image: &[u8]| hypervisor(image).unique("tail").expect("a function").size;
    assert!(size(&image) < size(&desk.image(&[&ours])), "the test's premise");
    let base = proved(&[&ours], &image);
    assert_eq!((base.functions, base.identical), (5, 5), "{base:?}");
    for (flags, name) in [
        (["-DLIMIT=>=", usual[1], usual[2]], "tail"),
        ([usual[0], "-DTARGET=other", usual[2]], "tail"),
        ([usual[0], usual[1], "-DSTEP=\"4\""], "aside"),
    ] {
        let base = proved(&[&ours], &shipped(&flags));
        let found: Vec<&str> = base.differing.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(found, [name], "{flags:?}");
    }
}

#[test]
fn a_function_with_other_jumps_is_replaced_at_its_shipped_size() {
    let desk = Desk::new();
    let usual = ["-DLIMIT=>", "-DTARGET=helper", "-DSTEP=\"3\""];
    let before = desk.compile("own.c", JUMPS, &usual);
    let after = desk.compile("own.c", &JUMPS.replace("handle(s - 1)", "handle(s - 2)"), &usual);
    let together = ["-fno-function-sections", "-fno-data-sections"];
    let image = desk.image(&[&desk.compile("own.c", JUMPS, &[&usual[..], &together].concat())]);
    let base = check(&before, &after, &image).expect("a payload");
    assert_eq!((base.functions, base.identical), (5, 5));
}

/// A function with a place that boot may write over: a NOP of three bytes until then.
const GUARDED: &str = r#"
#include "hv.h"
#ifdef SITE
#define GUARD asm volatile ("1: .byte 0x0f, 0x1f, 0x00\n" \
        ".pushsection .altinstructions, \"a\", @progbits\n" \
        ".long 1b - ., 2f - .\n.word 5\n.byte " SITE ", 3, 0, 0\n.popsection\n" \
        ".pushsection .altinstr_replacement, \"ax\", @progbits\n2: lfence\n.popsection" ::: "memory")
#else
#define GUARD
#endif
int guarded(int a)
{
    if (a > 3) {
        GUARD;
        return handle(a) + 7;
    }
    return handle(a - 1);
}
"#;

#[test]
fn nops_that_boot_writes_over_are_no_padding() {
    let desk = Desk::new();
    let compile = |flags: &[&str]| desk.compile("own.c", GUARDED, flags);
    let together = ["-fno-function-sections", "-fno-data-sections"];
    let shipped = |flags: &[&str]| desk.image(&[&compile(&[flags, &together].concat())]);
    let differing = |ours: &[&str], theirs: &[&str]| {
        let base = proved(&[&compile(ours)], &shipped(theirs));
        base.differing.iter().map(|one| one.name.clone()).collect::<Vec<_>>()
    };
    let (with, without) = (&["-DSITE=\"3\""][..], &[][..]);
    assert_eq!(differing(with, with), [""; 0]);
    assert_eq!(differing(without, without), [""; 0]);
    // Hardened code that would be replaced by code that is not, and the reverse.
    assert_eq!(differing(with, without), ["guarded"]);
    assert_eq!(differing(without, with), ["guarded"]);
}
