//! What the hypervisor's own table names more than once is referred to, and replaced, by its address.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/toolchain.rs"]
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};

use desk::Desk;
use goblin::elf::Elf;
use goblin::elf::section_header::SHN_ABS;
use xsplice_diff::{
    Compared, Correlated, Input, LeftOut, Loader, ObjectPair, Parts, Patchable, Selection, World,
};
use xsplice_link::{FuncsLayout, Ids, PayloadImage};
use xsplice_objects::Hypervisor;
use xsplice_report::Problems;
use xsplice_verify::{VerifyInput, verify};

/// struct livepatch_func of Xen 4.14 and later (xen/include/public/sysctl.h).
const FUNCS: FuncsLayout = FuncsLayout {
    version: 2,
    size: 104,
    name: 0,
    new_addr: 8,
    old_addr: 16,
    new_size: 24,
    old_size: 28,
    version_at: 32,
    expect: Some(72),
};

impl Desk {
    /// An object of a source of that name, in whatever folder, which includes the usual header.
    fn object(&self, name: &str, text: &str, flags: &[&str]) -> Vec<u8> {
        let include = if text.contains("#include") { "" } else { "#include \"hv.h\"\n" };
        self.compile(name, &format!("{include}{text}"), flags)
    }
}

/// A payload with what is told of it.
struct Made {
    payload: Vec<u8>,
    /// Names by address: the name, whether it is replaced, and why.
    told: Vec<(String, u64, bool, String)>,
    warnings: Vec<String>,
}

/// What a change of an object gives.
fn make(before: &[u8], after: &[u8], image: &[u8]) -> Result<Made, Problems> {
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
    let hypervisor = Hypervisor::parse("xen-syms", image).expect("a hypervisor");
    let loader = Loader::default();
    let world = World { no_expectations: Some(LeftOut::Asked), ..World::bare(&hypervisor, &loader) };
    let patchable = Patchable::check(Selection::of(&compared, &world), &parts, &world)?;
    let id = hypervisor.build_id().to_vec();
    let ids = Ids { depends: id.clone(), xen_depends: id };
    let payload = PayloadImage::link(&patchable, &FUNCS, &ids, &Vec::new()).bytes().to_vec();
    let verdict = verify(&VerifyInput {
        payload: &payload,
        name: "own",
        xen_syms: Some(image),
        funcs_version: Some(2),
        funcs_size: Some(104),
        ..VerifyInput::default()
    });
    assert!(verdict.is_accepted(), "{:?}", verdict.problems);
    let told = &patchable.selection().by_address;
    let told = told.iter().map(|one| (one.name.clone(), one.address, one.by.is_none(), one.because.clone()));
    let warnings = patchable.warnings().0.iter().map(|problem| problem.code.name.to_owned()).collect();
    Ok(Made { payload, told: told.collect(), warnings })
}

impl Made {
    /// The absolute symbols.
    fn absolute(&self) -> Vec<(String, u64)> {
        let elf = Elf::parse(&self.payload).expect("a payload");
        let name = |at| elf.strtab.get_at(at).unwrap_or("").to_owned();
        let absolute = elf.syms.iter().filter(|symbol| symbol.st_shndx == SHN_ABS as usize);
        let mut all: Vec<_> = absolute.map(|symbol| (name(symbol.st_name), symbol.st_value)).collect();
        all.sort();
        all
    }

    /// Names that the loader is to look up.
    fn undefined(&self) -> BTreeSet<String> {
        let elf = Elf::parse(&self.payload).expect("a payload");
        let undefined = elf.syms.iter().skip(1).filter(|symbol| symbol.st_shndx == 0);
        undefined.map(|symbol| elf.strtab.get_at(symbol.st_name).unwrap_or("").to_owned()).collect()
    }

    /// The old addresses in `.livepatch.funcs`.
    fn old(&self) -> Vec<u64> {
        let elf = Elf::parse(&self.payload).expect("a payload");
        let is_list = |section: &&goblin::elf::SectionHeader| {
            elf.shdr_strtab.get_at(section.sh_name) == Some(".livepatch.funcs")
        };
        let range = elf.section_headers.iter().find(is_list).and_then(|s| s.file_range()).expect("functions");
        let entries = self.payload[range].chunks(104);
        entries.map(|entry| u64::from_le_bytes(entry[16..24].try_into().expect("eight bytes"))).collect()
    }
}

/// The addresses of a name, in the order of the objects that were linked.
fn addresses(image: &[u8], name: &str) -> Vec<u64> {
    let elf = Elf::parse(image).expect("a hypervisor");
    let named = elf.syms.iter().filter(|symbol| elf.strtab.get_at(symbol.st_name) == Some(name));
    named.map(|symbol| symbol.st_value).collect()
}

fn refusals(made: Result<Made, Problems>) -> BTreeMap<&'static str, String> {
    let Err(problems) = made else { panic!("it is not refused") };
    let refusals = problems.0.iter().filter(|problem| problem.kind == xsplice_report::Kind::Refusal);
    refusals.map(|problem| (problem.code.name, format!("{}: {}", problem.what, problem.why))).collect()
}

/// `user` is changed, and refers to a function and a variable that a file of the same name has too.
const USER: &str = r#"
static int counter = 1;
static int noinline helper(int a) { return handle(a) * 3 + counter; }
int caller(int a) { counter++; return helper(a) + 1; }
int user(int a)
{
#ifdef PATCHED
    a ^= 5;
#endif
    return helper(a) - counter;
}
"#;
/// The same local names and the very same code of `helper`.
const TWIN: &str = r#"
static int counter = 2;
static int noinline helper(int a) { return handle(a) * 3 + counter; }
int twin(int a) { counter--; return helper(a) * 2; }
"#;

#[test]
fn a_reference_goes_to_the_right_one_of_two() {
    let desk = Desk::new();
    let (before, after) = (desk.object("own.c", USER, &[]), desk.object("own.c", USER, &["-DPATCHED"]));
    let twin = desk.object("own.c", TWIN, &[]);
    for (number, image) in [(0, desk.image(&[&before, &twin])), (1, desk.image(&[&twin, &before]))] {
        let (helper, counter) = (addresses(&image, "helper"), addresses(&image, "counter"));
        assert_eq!((helper.len(), counter.len()), (2, 2), "the test's premise");
        let made = make(&before, &after, &image).expect("a payload");
        let expected = [("own.c#counter", counter[number]), ("own.c#helper", helper[number])];
        assert_eq!(made.absolute(), expected.map(|(name, address)| (name.to_owned(), address)));
        assert_eq!(made.undefined(), BTreeSet::new());
        assert_eq!(made.old(), [0], "user is found by its name");
        let told: Vec<_> =
            made.told.iter().map(|(name, at, new, why)| (name.as_str(), *at, *new, why.as_str())).collect();
        let why = "the shipped caller refers to it there";
        assert_eq!(
            told,
            [("own.c#counter", counter[number], false, why), ("own.c#helper", helper[number], false, why)]
        );
    }
    // Alone it is referred to by name.
    let made = make(&before, &after, &desk.image(&[&before])).expect("a payload");
    assert_eq!((made.absolute(), made.told.len()), (vec![], 0));
    assert!(made.undefined().contains("own.c#helper"));
}

#[test]
fn the_function_to_replace_is_told_by_who_calls_it() {
    let desk = Desk::new();
    let changed = USER.replace("* 3 + counter", "* 4 + counter");
    let (before, after) = (desk.object("own.c", USER, &[]), desk.object("own.c", &changed, &[]));
    let twin = desk.object("own.c", TWIN, &[]);
    for (number, image) in [(0, desk.image(&[&before, &twin])), (1, desk.image(&[&twin, &before]))] {
        let made = make(&before, &after, &image).expect("a payload");
        assert_eq!(made.old(), [addresses(&image, "helper")[number]]);
        assert!(made.told.iter().any(|(name, _, replaced, _)| name == "own.c#helper" && *replaced));
    }
}

/// `lonely` is only called through a pointer that no compared field holds.
const LONELY: &str = r#"
static int noinline helper(int a) { return handle(a) * 3; }
int OUTER(int a) { return helper(a) + ADD; }
static int __used lonely(int a)
{
#ifdef PATCHED
    a ^= 5;
#endif
    return handle(a) - STEP;
}
"#;

#[test]
fn a_function_that_nobody_refers_to_is_told_by_its_own_code() {
    let desk = Desk::new();
    let compile = |outer: &str, add: &str, step: &str, more: &[&str]| {
        let (outer, add, step) =
            (format!("-DOUTER={outer}"), format!("-DADD={add}"), format!("-DSTEP={step}"));
        desk.object("own.c", LONELY, &[&[&outer[..], &add, &step], more].concat())
    };
    let before = compile("outer", "1", "7", &[]);
    let after = compile("outer", "1", "7", &["-DPATCHED"]);
    let other = compile("twin", "2", "8", &[]);
    let same = compile("twin", "2", "7", &[]);
    for (number, image) in [
        (0, desk.image(&[&before, &other])),
        (1, desk.image(&[&other, &before])),
        // The very same code twice: what is beside it tells.
        (0, desk.image(&[&before, &same])),
        (1, desk.image(&[&same, &before])),
    ] {
        let made = make(&before, &after, &image).expect("a payload");
        assert_eq!(made.old(), [addresses(&image, "lonely")[number]]);
        assert_eq!(made.told[0].3, "its own code is there");
    }
    // The shipped one of this object has other code, and only that of the other object fits.
    let shipped = compile("outer", "1", "9", &[]);
    let found = refusals(make(&before, &after, &desk.image(&[&shipped, &same])));
    let why = &found["ambiguous-name"];
    assert!(
        why.starts_with("own.c#lonely is to be replaced, but the hypervisor has it 2 times"),
        "{found:?}"
    );
    // So it is where the other object has nothing else.
    let alone = "static int __used lonely(int a) { return handle(a) - 7; }\n";
    let alone = desk.object("own.c", alone, &[]);
    let found = refusals(make(&before, &after, &desk.image(&[&shipped, &alone])));
    assert!(found.contains_key("ambiguous-name"), "{found:?}");
}

/// `caller` leads to a function that is another one in the shipped object, and the other object has the original's.
#[test]
fn code_that_is_only_elsewhere_is_another_base() {
    const TEXT: &str = r#"
int OUTER(int a);
static int noinline helper(int a);
int CALLER(int a) { return helper(a) + 1; }
static int noinline helper(int a) { return handle(a) * TIMES; }
int OUTER(int a)
{
#ifdef PATCHED
    a ^= 5;
#endif
    return helper(a) - 1;
}
"#;
    let desk = Desk::new();
    let own = |times: &str, more: &[&str]| {
        let times = format!("-DTIMES={times}");
        let flags = ["-DCALLER=caller", "-DOUTER=outer", "-fno-toplevel-reorder", &times];
        desk.object("own.c", TEXT, &[&flags, more].concat())
    };
    let twin = desk.object("own.c", TEXT, &["-DCALLER=other", "-DOUTER=twin", "-DTIMES=3"]);
    let image = desk.image(&[&own("5", &[]), &twin]);
    let sizes: BTreeSet<u64> = {
        let elf = Elf::parse(&image).expect("a hypervisor");
        let helpers = elf.syms.iter().filter(|s| elf.strtab.get_at(s.st_name) == Some("helper"));
        helpers.map(|symbol| symbol.st_size).collect()
    };
    assert_eq!(sizes.len(), 1, "the test's premise");
    let found = refusals(make(&own("3", &[]), &own("3", &["-DPATCHED"]), &image));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["ambiguous-name", "base-mismatch"], "{found:?}");
    let why = &found["ambiguous-name"];
    assert!(why.contains("and the code there is not that of the original"), "{why}");
    assert!(found["base-mismatch"].starts_with("1 of 3 functions"), "{found:?}");
}

/// Nothing but one function, twice.
#[test]
fn what_nothing_tells_apart_is_refused() {
    const TEXT: &str = r#"
static int __used lonely(int a)
{
#ifdef PATCHED
    a ^= 5;
#endif
    return handle(a) - 7;
}
"#;
    let desk = Desk::new();
    let (before, after) = (desk.object("own.c", TEXT, &[]), desk.object("own.c", TEXT, &["-DPATCHED"]));
    let found = refusals(make(&before, &after, &desk.image(&[&before, &before])));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["ambiguous-name"], "{found:?}");
    let why = &found["ambiguous-name"];
    assert!(
        why.contains("No shipped code that could be compared says by a field where own.c#lonely is"),
        "{why}"
    );
}

/// Boot code of the shipped hypervisor refers to another variable: a difference that is only warned of.
const BOOT: &str = r#"
static volatile int first = 1, second = 2;
int get_second(void) { return second; }
void __attribute__((__section__(".init.text"))) begin(void)
{
#ifdef SHIPPED
    second = 3;
#else
    first = 3;
#endif
}
int READ(int a)
{
#ifdef PATCHED
    a ^= 5;
#endif
    return handle(a) - first;
}
"#;

#[test]
fn fields_that_contradict_each_other_tell_nothing() {
    let desk = Desk::new();
    let compile = |flags: &[&str]| desk.object("own.c", BOOT, &[&["-DREAD=read"], flags].concat());
    let (before, after) = (compile(&[]), compile(&["-DPATCHED"]));
    let twin = desk.object(
        "own.c",
        "static volatile int first = 4, second = 5;\nint sum(void) { return first + second; }\n",
        &[],
    );
    let same = make(&before, &after, &desk.image(&[&before, &twin])).expect("a payload");
    assert_eq!((same.absolute().len(), same.warnings.len()), (1, 0), "{:?}", same.warnings);

    let found = refusals(make(&before, &after, &desk.image(&[&compile(&["-DSHIPPED"]), &twin])));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["ambiguous-name"], "{found:?}");
    let why = &found["ambiguous-name"];
    assert!(why.contains("read refers to own.c#first, which the hypervisor has 2 times"), "{why}");
    assert!(why.contains("Shipped code leads to more than one address for own.c#first"), "{why}");
}

/// The shipped `caller` calls the function of the other object: then the base is another one.
#[test]
fn a_caller_of_the_other_one_is_another_base() {
    let desk = Desk::new();
    let (before, after) = (desk.object("own.c", USER, &[]), desk.object("own.c", USER, &["-DPATCHED"]));
    let twin = desk.object("own.c", TWIN, &[]);
    let mut image = desk.image(&[&before, &twin]);
    let helper = addresses(&image, "helper");
    let (caller, size, file) = {
        let elf = Elf::parse(&image).expect("a hypervisor");
        let symbol =
            elf.syms.iter().find(|s| elf.strtab.get_at(s.st_name) == Some("caller")).expect("caller");
        let section = &elf.section_headers[symbol.st_shndx];
        (symbol.st_value, symbol.st_size, (symbol.st_value - section.sh_addr + section.sh_offset) as usize)
    };
    let mut swapped = 0;
    for at in 0..(size as usize - 4) {
        let field = &mut image[file + at..file + at + 4];
        let end = caller + at as u64 + 4;
        let distance = i32::from_le_bytes((&*field).try_into().expect("four bytes"));
        if end.wrapping_add_signed(distance.into()) == helper[0] {
            let other = helper[1].wrapping_sub(end).cast_signed() as i32;
            field.copy_from_slice(&other.to_le_bytes());
            swapped += 1;
        }
    }
    assert_eq!(swapped, 1, "the test's premise");
    let found = refusals(make(&before, &after, &image));
    assert!(found.contains_key("base-mismatch") && found.contains_key("ambiguous-name"), "{found:?}");
}

#[test]
fn what_boot_frees_is_not_referred_to_by_address_either() {
    const TEXT: &str = r#"
static int __section(".init.data") boots = START;
static int __section(".init.text") noinline begin(int a) { return handle(a) + boots; }
int __section(".init.text") ENTER(int a) { return begin(a) + 1; }
int USES(int a)
{
#ifdef PATCHED
    return begin(a) + boots;
#endif
    return handle(a);
}
"#;
    let desk = Desk::new();
    let before = desk.object("own.c", TEXT, &["-DSTART=1", "-DENTER=enter", "-DUSES=uses"]);
    let after = desk.object("own.c", TEXT, &["-DSTART=1", "-DENTER=enter", "-DUSES=uses", "-DPATCHED"]);
    let twin = desk.object("own.c", TEXT, &["-DSTART=2", "-DENTER=twin", "-DUSES=twin_uses"]);
    let found = refusals(make(&before, &after, &desk.image(&[&before, &twin])));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["init-reference"], "{found:?}");
}

/// A function may go on to use what boot frees as its original does, but by name only: the verifier follows no other.
#[test]
fn what_the_original_has_of_boot_is_not_referred_to_by_address() {
    const TEXT: &str = r#"
static int __section(".init.text") noinline begin(int a) { return handle(a) * 2; }
int __section(".init.text") ENTER(int a) { return begin(a) + 1; }
int USES(int a)
{
#ifdef PATCHED
    a ^= 5;
#endif
    if (ticks < 5)
        return begin(a) + 1;
    return handle(a);
}
"#;
    let desk = Desk::new();
    let own = ["-DENTER=enter", "-DUSES=uses"];
    let before = desk.object("own.c", TEXT, &own);
    let after = desk.object("own.c", TEXT, &[&own[..], &["-DPATCHED"]].concat());
    let alone = make(&before, &after, &desk.image(&[&before])).expect("a payload");
    assert_eq!(alone.warnings, ["init-reference-kept"], "the test's premise");
    let twin = desk.object("own.c", TEXT, &["-DENTER=twin", "-DUSES=twin_uses"]);
    let found = refusals(make(&before, &after, &desk.image(&[&before, &twin])));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["init-reference"], "{found:?}");
}

/// The other object's constant of that name holds something else.
#[test]
fn a_constant_is_found_by_who_reads_it() {
    const TEXT: &str = r#"
static const int table[] = { 3, 5, LAST };
int FIRST(int n) { return table[n & 1]; }
int PICK(int n)
{
#ifdef PATCHED
    n ^= 2;
#endif
    return handle(n) + table[n & 3];
}
"#;
    let desk = Desk::new();
    let own = ["-DLAST=7", "-DFIRST=first", "-DPICK=pick"];
    let before = desk.object("own.c", TEXT, &own);
    let after = desk.object("own.c", TEXT, &[&own[..], &["-DPATCHED"]].concat());
    let twin = desk.object("own.c", TEXT, &["-DLAST=8", "-DFIRST=twin", "-DPICK=twin_pick"]);
    for (number, image) in [(0, desk.image(&[&before, &twin])), (1, desk.image(&[&twin, &before]))] {
        let made = make(&before, &after, &image).expect("a payload");
        assert_eq!(made.absolute(), [("own.c#table".to_owned(), addresses(&image, "table")[number])]);
    }
    let shipped = desk.object("own.c", TEXT, &["-DLAST=8", own[1], own[2]]);
    let found = refusals(make(&before, &after, &desk.image(&[&shipped, &twin])));
    assert!(found.contains_key("ambiguous-name"), "{found:?}");
}
