//! The document.

use std::fmt::Write;

use xsplice_e2e::unchanged::{Cost, Found};

/// What came out of one tree.
pub(crate) struct Row {
    pub(crate) tree: String,
    pub(crate) compiler: String,
    pub(crate) objects: usize,
    /// Of all objects, on one side.
    pub(crate) bytes: usize,
    /// How many objects of the second build have the same bytes.
    pub(crate) equal: usize,
    /// Each object against itself.
    pub(crate) itself: Found,
    /// Each object against that of the second build.
    pub(crate) second: Found,
    /// How many differences to the second build are expected.
    pub(crate) excused: usize,
    /// One process of readelf for each object.
    pub(crate) processes: Cost,
}

impl Row {
    /// How many differences there are.
    pub(crate) fn differences(&self) -> usize {
        self.itself.differences.len() + self.second.differences.len()
    }

    fn ms(&self, seconds: f64) -> f64 {
        seconds * 1000.0 / self.objects.max(1) as f64
    }
}

/// The whole document.
pub(crate) fn document(rows: &[Row], lbt: f64) -> String {
    let mut out = String::from(
        "# Self-difference\n\n\
         Every object of a whole build, with debug information, goes through the differ's stages parse, correlate \
         and compare, all in one run: against itself, and against the object of a second build from nothing at the \
         same path. Nothing may come out: no function, data or boot code that differs, no refusal, no section or \
         relocation of an unknown kind (but for `.ex_table.pre`, `.reloc` and `.trampoline_*`, which no payload can bring). Equal \
         bytes take no short cut. `cargo run --release -p xtask -- self --out DIR` writes this.\n\n\
         | Xen | compiler | objects | MB | differences to itself | differences to the second build | same bytes |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.1} | {} | {} | {} |",
            row.tree,
            row.compiler,
            row.objects,
            row.bytes as f64 / 1e6,
            row.itself.differences.len(),
            row.second.differences.len(),
            row.equal,
        );
    }
    if rows.iter().any(|row| row.excused > 0) {
        out.push_str(
            "\nLeft out of the second column of differences is xen/common/config_data.o of older Xens: gzip notes there \
             when `.config` was written. What a patch does to the configuration is judged apart from objects.\n",
        );
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let _ = write!(
        out,
        "\n## Speed\n\n\
         All objects against themselves, on {processors} processors; milliseconds for one object, on the clock and \
         (in brackets) of processors. A pair is two objects to read. Beside it what one process of `readelf -SW` for \
         each object takes, measured in the same run, one after the other. LBT's differ, which runs as a process for \
         each object, was measured once at {lbt} ms an object; it is not run here.\n\n\
         | Xen | seconds | parse | correlate and compare | together | readelf | together / readelf |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let all = row.itself.parse + row.itself.compare;
        let cell = |cost: Cost| {
            let (wall, processor) = (cost.wall.as_secs_f64(), cost.processor.as_secs_f64());
            format!("{:.2} ({:.2})", row.ms(wall), row.ms(processor))
        };
        let ratio = all.wall.as_secs_f64() / row.processes.wall.as_secs_f64().max(f64::MIN_POSITIVE);
        let _ = writeln!(
            out,
            "| {} | {:.2} | {} | {} | {} | {} | {ratio:.2} |",
            row.tree,
            all.wall.as_secs_f64(),
            cell(row.itself.parse),
            cell(row.itself.compare),
            cell(all),
            cell(row.processes),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn costs_are_told_per_object() {
        let cost = |ms| Cost { wall: Duration::from_millis(ms), processor: Duration::from_millis(2 * ms) };
        let found = |lines: usize| Found {
            differences: vec!["a".to_owned(); lines],
            parse: cost(100),
            compare: cost(60),
        };
        let row = Row {
            tree: "4".to_owned(),
            compiler: "cc".to_owned(),
            objects: 200,
            bytes: 31_000_000,
            equal: 199,
            itself: found(0),
            second: found(3),
            excused: 0,
            processes: cost(400),
        };
        assert_eq!(row.differences(), 3);
        let document = document(&[row], 6.5);
        assert!(document.contains("\n| 4 | cc | 200 | 31.0 | 0 | 3 | 199 |\n"), "{document}");
        let speed = "\n| 4 | 0.16 | 0.50 (1.00) | 0.30 (0.60) | 0.80 (1.60) | 2.00 (4.00) | 0.40 |\n";
        assert!(document.contains(speed), "{document}");
    }
}
