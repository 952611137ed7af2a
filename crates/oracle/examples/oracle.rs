//! `oracle BASE.o PATCHED.o` prints what differs in meaning; `-` stands for an object that does not exist.

use std::{env, io, io::Write, path::Path, process::ExitCode};

use xsplice_oracle::Oracle;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [base, patched] = args.as_slice() else {
        let _ = writeln!(io::stderr(), "usage: oracle BASE.o PATCHED.o");
        return ExitCode::from(2);
    };
    let oracle = Oracle::default();
    let verdict = match (base.as_str(), patched.as_str()) {
        ("-", patched) => oracle.judge_new(Path::new(patched)),
        (base, "-") => oracle.judge_removed(Path::new(base)),
        (base, patched) => oracle.judge(Path::new(base), Path::new(patched)),
    };
    match verdict {
        Ok(verdict) => {
            let _ = write!(io::stdout(), "{verdict}");
            ExitCode::from(u8::from(!verdict.is_same()))
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(2)
        }
    }
}
