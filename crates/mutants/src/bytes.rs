//! What data directives of the assembler put into a section.

/// Data directives as bytes: numbers and strings become hexadecimal digits, however the compiler chose to write them.
/// What refers to a name stays as it is.
pub fn fold(lines: &[String]) -> Vec<String> {
    let mut folded = Vec::new();
    let mut bytes: Vec<u8> = Vec::new();
    for line in lines {
        match of(line) {
            Some(more) => bytes.extend(more),
            None => {
                flush(&mut bytes, &mut folded);
                folded.push(line.clone());
            }
        }
    }
    flush(&mut bytes, &mut folded);
    folded
}

fn flush(bytes: &mut Vec<u8>, folded: &mut Vec<String>) {
    if bytes.is_empty() {
        return;
    }
    if bytes.iter().all(|&byte| byte == 0) {
        folded.push(format!("{} zeroes", bytes.len()));
    } else {
        // The prefix keeps it from being taken for a name.
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        folded.push(format!("0x{digits}"));
    }
    bytes.clear();
}

/// The bytes of one directive; none where it is no number or string alone.
fn of(line: &str) -> Option<Vec<u8>> {
    let (word, rest) = line.split_once(' ')?;
    let rest = rest.trim();
    let width = match word {
        ".byte" => 1,
        ".value" | ".short" | ".word" | ".hword" | ".2byte" => 2,
        ".long" | ".int" | ".4byte" => 4,
        ".quad" | ".8byte" => 8,
        ".zero" => {
            return Some(vec![0; usize::try_from(number(rest)?).ok().filter(|&length| length < 1 << 20)?]);
        }
        ".string" | ".asciz" => {
            let mut bytes = string(rest)?;
            bytes.push(0);
            return Some(bytes);
        }
        ".ascii" => return string(rest),
        _ => return None,
    };
    let mut bytes = Vec::new();
    for part in rest.split(',') {
        bytes.extend_from_slice(&number(part.trim())?.to_le_bytes()[..width]);
    }
    Some(bytes)
}

fn number(text: &str) -> Option<u64> {
    match (text.strip_prefix("0x"), text.strip_prefix('-')) {
        (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
        (None, Some(_)) => text.parse::<i64>().ok().map(i64::cast_unsigned),
        (None, None) => text.parse().ok(),
    }
}

/// A quoted string with the escapes that gcc writes.
fn string(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'\\' {
            bytes.push(text[at]);
            at += 1;
            continue;
        }
        at += 1;
        match text.get(at)? {
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'r' => bytes.push(b'\r'),
            b'b' => bytes.push(8),
            b'f' => bytes.push(12),
            b'0'..=b'7' => {
                let digits = text[at..].iter().take(3).take_while(|c| (b'0'..=b'7').contains(c)).count();
                let value =
                    text[at..at + digits].iter().fold(0u32, |value, c| value * 8 + u32::from(c - b'0'));
                bytes.push(value.to_le_bytes()[0]);
                at += digits - 1;
            }
            c => bytes.push(*c),
        }
        at += 1;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(lines: &[&str]) -> Vec<String> {
        fold(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_same_bytes_are_the_same_however_they_are_written() {
        assert_eq!(folded(&[".long 1", ".zero 4"]), folded(&[".quad 1"]));
        assert_eq!(folded(&[".string \"a\\001\\n\""]), folded(&[".byte 97", ".byte 1", ".value 10"]));
        assert_eq!(folded(&[".zero 8"]), folded(&[".long 0", ".long 0"]));
        assert_eq!(folded(&[".long -1"]), ["0xffffffff"]);
    }

    #[test]
    fn names_stay_where_they_are() {
        assert_eq!(folded(&[".byte 1", ".quad f+4", ".byte 2"]), ["0x01", ".quad f+4", "0x02"]);
        assert_ne!(folded(&[".zero 8", ".quad f"]), folded(&[".zero 16", ".quad f"]));
    }
}
