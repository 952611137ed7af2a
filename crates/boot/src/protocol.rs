//! Reads what the control domain's init writes: step records on the second serial port, and marks among
//! Xen's own lines on the first.
//!
//! A record is a line `@NONCE WORD ...`: `begin N`, `out N SIZE` and `err N SIZE`, each followed by lines
//! of base64, `end N CODE`, and at last `done`. SIZE is the whole length in bytes, of which the base64
//! has the beginning only where it was too long. A mark on Xen's console is `@NONCE:Nb@` where step N
//! begins and `@NONCE:Ne@` where it ends; it may stand anywhere in a line.

use serde::Serialize;

/// What was recorded of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The number of the step; 0 is the set-up.
    pub(crate) number: usize,
    /// Its exit code; none if it did not end.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: Stream,
    /// Standard error.
    pub(crate) stderr: Stream,
}

/// What a step wrote to one of its streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// The text; what is not UTF-8 is replaced.
    pub text: String,
    /// How many bytes were written; `text` has only the first of them where that is more than the lab keeps.
    pub size: u64,
    /// Whether something is missing: too much was written, or the machine stopped meanwhile.
    pub cut: bool,
}

/// Everything on the second serial port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records {
    /// The steps that began, in order.
    pub(crate) steps: Vec<Record>,
    /// Whether all steps have run.
    pub(crate) done: bool,
}

/// Which stream the base64 lines belong to, and what they gave so far.
struct Open {
    is_error: bool,
    size: u64,
    base64: String,
}

/// Reads the records of a boot whose nonce is `nonce`.
pub(crate) fn records(log: &[u8], nonce: &str) -> Records {
    let text = String::from_utf8_lossy(log);
    let mut records = Records::default();
    let mut open: Option<Open> = None;
    for line in text.lines() {
        let line = line.trim_end_matches('\r');
        let Some(rest) = line.strip_prefix('@').and_then(|line| line.strip_prefix(nonce)) else {
            if let Some(open) = &mut open {
                open.base64.push_str(line.trim());
            }
            continue;
        };
        close(&mut open, &mut records);
        let words: Vec<&str> = rest.split_whitespace().collect();
        let number = words.get(1).and_then(|word| word.parse().ok());
        match (words.as_slice(), number) {
            (["done"], _) => records.done = true,
            (["begin", _], Some(number)) => records.steps.push(Record { number, ..Record::default() }),
            ([kind @ ("out" | "err"), _, size], Some(_)) => {
                let size = size.parse().unwrap_or(0);
                open = Some(Open { is_error: *kind == "err", size, base64: String::new() });
            }
            (["end", _, code], Some(number)) => {
                if let Some(record) = records.steps.last_mut().filter(|record| record.number == number) {
                    record.code = code.parse().ok();
                }
            }
            // A line that was cut off when the machine stopped.
            _ => {}
        }
    }
    close(&mut open, &mut records);
    records
}

fn close(open: &mut Option<Open>, records: &mut Records) {
    let Some(open) = open.take() else { return };
    let Some(record) = records.steps.last_mut() else { return };
    let bytes = decode_base64(&open.base64);
    let stream = Stream {
        text: String::from_utf8_lossy(&bytes).into_owned(),
        size: open.size,
        cut: open.size != bytes.len() as u64,
    };
    if open.is_error {
        record.stderr = stream;
    } else {
        record.stdout = stream;
    }
}

/// RFC 4648's base64, up to the first character that is none.
fn decode_base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits: u32 = 0;
    let mut count = 0;
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            // The low 8 bits are meant.
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    out
}

/// The most console lines that are kept of a step.
const CONSOLE_LINES: usize = 200;

/// Xen's lines that appeared during step `number`: from the mark of its beginning to that of its end, or
/// to the end of the log. Lines of the control domain's kernel are left out.
/// Where there are too many, the first are kept and one more says how many followed.
pub(crate) fn console_of(log: &[u8], nonce: &str, number: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(log);
    let Some((_, after)) = text.split_once(&format!("@{nonce}:{number}b@")) else {
        return Vec::new();
    };
    let end = format!("@{nonce}:{number}e@");
    let mut lines = xen_lines(after.split_once(&end).map_or(after, |(during, _)| during));
    if lines.len() > CONSOLE_LINES {
        let more = lines.len() - CONSOLE_LINES;
        lines.truncate(CONSOLE_LINES);
        lines.push(format!("... and {more} lines more"));
    }
    lines
}

/// The lines that Xen itself wrote, from its prefix on.
pub(crate) fn xen_lines(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.find("(XEN) ").map(|at| &line[at..]));
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// The first line that says that the host is lost, if there is one.
pub(crate) fn panic_line(text: &str) -> Option<String> {
    const SIGNS: &[&str] = &["DOUBLE FAULT", "Panic on CPU", "Kernel panic"];
    let mut lines = text.lines();
    let line = lines.find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_with_both_streams() {
        // "hello\n" and "\xff!" in base64.
        let log = b"noise\n@abc begin 0\n@abc out 0 6\naGVs\nbG8K\n@abc err 0 2\n/yE=\n@abc end 0 1\n\
                    @abc begin 1\r\n@abc out 1 0\r\n@abc err 1 0\r\n@abc end 1 0\r\n@abc done\n";
        let records = records(log, "abc");
        assert!(records.done);
        assert_eq!(records.steps.len(), 2);
        let first = &records.steps[0];
        assert_eq!((first.number, first.code), (0, Some(1)));
        assert_eq!((first.stdout.text.as_str(), first.stdout.cut), ("hello\n", false));
        assert_eq!(first.stderr.text, "\u{fffd}!");
        assert_eq!(records.steps[1].code, Some(0));
    }

    #[test]
    fn a_machine_that_stops_leaves_a_step_open() {
        let log = b"@abc begin 0\n@abc out 0 0\n@abc err 0 0\n@abc end 0 0\n@abc begin 1\n@abc out 1 6\naGVs";
        let records = records(log, "abc");
        assert!(!records.done);
        assert_eq!(records.steps[1].code, None);
        assert_eq!((records.steps[1].stdout.text.as_str(), records.steps[1].stdout.cut), ("hel", true));
    }

    #[test]
    fn a_step_cannot_forge_a_record() {
        // base64 of "@abc done\n".
        let log = b"@abc begin 0\n@abc out 0 10\nQGFiYyBkb25lCg==\n@abc err 0 0\n";
        let records = records(log, "abc");
        assert!(!records.done);
        assert_eq!(records.steps[0].stdout.text, "@abc done\n");
    }

    #[test]
    fn console_lines_belong_to_the_step_between_the_marks() {
        let log =
            b"(XEN) boot\r\n\n@n:1b@\n(XEN) one\r\n[ 1.0] linux\npart(XEN) two\n\n@n:1e@\n(XEN) between\n\
                    @n:2b@\n(XEN) three\n";
        assert_eq!(console_of(log, "n", 1), ["(XEN) one", "(XEN) two"]);
        assert_eq!(console_of(log, "n", 2), ["(XEN) three"]);
        assert!(console_of(log, "n", 3).is_empty());
    }

    #[test]
    fn a_flood_is_counted() {
        let log = format!("@n:1b@\n{}@n:1e@\n", "(XEN) again\n".repeat(CONSOLE_LINES + 7));
        let lines = console_of(log.as_bytes(), "n", 1);
        assert_eq!(lines.len(), CONSOLE_LINES + 1);
        assert_eq!(lines[CONSOLE_LINES], "... and 7 lines more");
    }

    #[test]
    fn signs_of_a_lost_host() {
        assert_eq!(panic_line("a\n(XEN) Panic on CPU 0:\r\nb"), Some("(XEN) Panic on CPU 0:".to_owned()));
        assert_eq!(
            panic_line("[ 2.0] Kernel panic - not syncing"),
            Some("[ 2.0] Kernel panic - not syncing".to_owned())
        );
        assert_eq!(panic_line("all is well"), None);
    }
}
