//! Builds a tree with and without patches, and writes the objects that differ into a folder.
//!
//! `capture TREE CONFIG CACHE OUT PATCH...` fills `OUT/base` and `OUT/patched`, and lists in `OUT/captured`
//! what was found. With `--all` before TREE it also writes every object of the original build to `OUT/all`.
#![expect(clippy::print_stdout, reason = "an example program talks to its user")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use fs_err as fs;
use xsplice_build::{PatchInput, Planned, Progress, Request};
use xsplice_report::Problems;

struct Show(Instant);

impl Progress for Show {
    fn step(&self, name: &str) {
        println!("{:7.2} s  {name}", self.0.elapsed().as_secs_f64());
    }
    fn compiled(&self, object: &str, count: usize) {
        if count.is_multiple_of(50) {
            println!("{:7.2} s  {count} objects, {object}", self.0.elapsed().as_secs_f64());
        }
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Problems> {
    let io = |error: std::io::Error| {
        Problems::from(xsplice_report::Diagnostic::new(xsplice_build::codes::IO, error.to_string()))
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    fs::write(path, bytes).map_err(io)
}

fn run(mut args: Vec<String>) -> Result<(), Problems> {
    let all = args.first().is_some_and(|arg| arg == "--all");
    if all {
        args.remove(0);
    }
    let [tree, config, cache, out, patches @ ..] = args.as_slice() else {
        println!("usage: capture [--all] TREE CONFIG CACHE OUT PATCH...");
        return Ok(());
    };
    let out = Path::new(out);
    let mut inputs = Vec::new();
    for name in patches {
        let bytes = std::fs::read(name).unwrap_or_default();
        inputs.push(PatchInput { name: name.clone(), bytes });
    }
    let program = std::env::current_exe().unwrap_or_default();
    let show = Show(Instant::now());
    let request = Request::new(tree, inputs, config, cache, program, out.join("logs"));
    let plan = match xsplice_build::plan(request)? {
        Planned::Build(plan) => plan,
        Planned::Nothing(nothing) => {
            println!("nothing to build: {:#?}", nothing.touched);
            return Ok(());
        }
    };
    show.step(&format!("planned, kept: {}", plan.base_is_kept()));
    let built = xsplice_build::build(*plan, &show)?;
    show.step("captured");
    let mut list = String::new();
    for object in &built.objects {
        if let Some(bytes) = &object.base {
            put(&out.join("base").join(&object.path), bytes)?;
        }
        if let Some(bytes) = &object.patched {
            put(&out.join("patched").join(&object.path), bytes)?;
        }
        list += &format!(
            "{} from {}: linked {}, same command {}, reached by {:?}\n",
            object.path, object.source, object.linked, object.same_command, object.reached_by
        );
    }
    list += &format!("identical: {:#?}\ntouched: {:#?}\n", built.identical, built.touched);
    list += &format!("configuration: {:#?}\nlayout: {:?}\n", built.config_changes, built.funcs_layout);
    list += &format!("symbols: {:?}\nwarnings: {:?}\n", built.built_xen_syms, built.warnings);
    put(&out.join("captured"), list.as_bytes())?;
    if all {
        let mut list = String::new();
        for object in built.base_objects.list() {
            put(&out.join("all").join(&object.path), &built.base_objects.read(&object.path)?)?;
            list += &format!("{} {} linked {}\n", object.path, object.source, object.linked);
        }
        put(&out.join("all/list"), list.as_bytes())?;
    }
    show.step(&format!("{} objects differ, {} are identical", built.objects.len(), built.identical.len()));
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if args.first().is_some_and(|name| xsplice_build::is_wrapper(name)) {
        return xsplice_build::wrapper_main(args);
    }
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in &problems.0 {
                println!(
                    "{}: {}\n  {}\n  {}\n  {}",
                    problem.code.name, problem.what, problem.place, problem.why, problem.advice
                );
            }
            ExitCode::from(problems.outcome().exit_code())
        }
    }
}
