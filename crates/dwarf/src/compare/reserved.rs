//! Bits that the source sets aside.

use crate::flatten::Leaf;

/// Words by which sources call what they do not use.
const WORDS: [&str; 11] =
    ["rsv", "rsvd", "resv", "reserved", "pad", "padding", "unused", "mbz", "sbz", "filler", "ignored"];

/// Whether this is a bit-field that is named as reserved.
pub(super) fn is_reserved(leaf: &Leaf) -> bool {
    leaf.bit_field && is_reserved_name(last(leaf), &["res"])
}

/// Whether these are whole bytes, numbers by their type, that are named as padding.
pub(super) fn is_padding(leaf: &Leaf) -> bool {
    leaf.plain && !leaf.bit_field && is_reserved_name(last(leaf), &[])
}

fn last(leaf: &Leaf) -> &str {
    leaf.path.rsplit('.').next().unwrap_or_default()
}

fn is_reserved_name(name: &str, further: &[&str]) -> bool {
    name.split(|c: char| c == '_' || c.is_ascii_digit()).any(|word| {
        let word = word.to_ascii_lowercase();
        WORDS.contains(&&*word) || further.contains(&&*word)
    })
}

/// Whether reserved bits or padding bytes are now fewer of the same.
pub(super) fn shrinks(old: &Leaf, new: &Leaf) -> bool {
    let (from, to) = (old.range(), new.range());
    let same_use = is_reserved(old) && new.bit_field || is_padding(old) && is_padding(new);
    same_use && from.start <= to.start && to.end <= from.end && from != to
}

#[cfg(test)]
mod tests {
    use super::is_reserved_name;

    #[test]
    fn reserved_names_are_whole_words() {
        for name in ["rsvd", "_pad", "reserved0", "__reserved_2", "mbz1", "RSVD_3", "unused"] {
            assert!(is_reserved_name(name, &[]), "{name}");
        }
        for name in ["result", "padlock", "reserve_ptr", "address", "pages", "res"] {
            assert!(!is_reserved_name(name, &[]), "{name}");
        }
    }
}
