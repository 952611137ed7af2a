//! Where a run builds, and what stays of it.

use std::path::{Path, PathBuf};

use xsplice_process::Swept;
use xsplice_report::{Diagnostic, Problems};

use crate::args::{self, Build};
use crate::codes::{OUTPUT_UNWRITABLE, USAGE};

/// The size that kept builds may have, in bytes: 20 of Xen 4.17.
const LIMIT: u64 = 10 << 30;
/// The variable that sets another one.
const LIMIT_VARIABLE: &str = "XSPLICE_CACHE_LIMIT";

/// The folder of a run's builds.
pub(crate) enum BuildPlace {
    /// They stay, within a limit.
    Kept { cache: PathBuf, limit: u64 },
    /// They go with this value.
    Temporary(Swept),
}

impl BuildPlace {
    /// As the command line says.
    pub(crate) fn of(args: &Build) -> Result<BuildPlace, Problems> {
        if args.no_cache {
            return temporary().map_err(Problems::from);
        }
        let cache = xsplice_boot::default_cache()?;
        Ok(BuildPlace::Kept { cache, limit: limit(args.cache_limit)? })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        match self {
            BuildPlace::Kept { cache, .. } => cache,
            BuildPlace::Temporary(folder) => folder.path(),
        }
    }

    /// Brings it to what may stay.
    pub(crate) fn leave(self) -> Option<Diagnostic> {
        let BuildPlace::Kept { cache, limit } = self else { return None };
        xsplice_build::bound(&cache, limit).err()
    }
}

fn temporary() -> Result<BuildPlace, Diagnostic> {
    let failed = |error: std::io::Error| {
        Diagnostic::new(OUTPUT_UNWRITABLE, format!("cannot make a temporary folder: {error}"))
            .advice("Name a folder with room for two builds in $TMPDIR.")
    };
    let folder = tempfile::Builder::new().prefix("xsplice-").tempdir().map_err(failed)?;
    let swept = Swept::new(folder.path()).map_err(failed)?;
    // From here on the other one removes it, later than this process if need be.
    let _ = folder.keep();
    Ok(BuildPlace::Temporary(swept))
}

fn limit(given: Option<u64>) -> Result<u64, Diagnostic> {
    let variable = std::env::var_os(LIMIT_VARIABLE).filter(|text| !text.is_empty());
    let (None, Some(text)) = (given, variable) else { return Ok(given.unwrap_or(LIMIT)) };
    let text = text.to_string_lossy();
    args::size(&text).map_err(|why| {
        Diagnostic::new(USAGE, format!("{LIMIT_VARIABLE}={text}: {why}"))
            .advice("Set it to a size such as 20G, or unset it.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("1K", 1024), ("500M", 500 << 20), ("10GiB", 10 << 30), ("2t", 2 << 40)]
        {
            assert_eq!(args::size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "G", "-1", "1.5G", "1GB", "1 G", "99999999999999999999", "99999999T", "+1"] {
            assert!(args::size(wrong).is_err(), "{wrong}");
        }
    }
}
