//! Names that compilers make.

/// Whether the name ends in a number that the compiler counted: `last.3`, `__func__.12`, `CSWTCH.7`.
pub(crate) fn is_numbered(name: &str) -> bool {
    unnumbered(name) != name
}

/// The name without trailing counters: `last.3` is `last`, `foo.part.0` is `foo.part`.
pub(crate) fn unnumbered(name: &str) -> &str {
    let mut rest = name;
    while let Some((head, tail)) = rest.rsplit_once('.') {
        if tail.is_empty() || head.is_empty() || !tail.bytes().all(|b| b.is_ascii_digit()) {
            break;
        }
        rest = head;
    }
    rest
}

/// The function that a fragment belongs to, where it is one that is only ever entered by a jump from there:
/// gcc moves unlikely code of `foo` to `foo.cold` (older releases: `foo.cold.12`).
pub(crate) fn cold_of(name: &str) -> Option<&str> {
    unnumbered(name).strip_suffix(".cold")
}

/// Local names whose content is all that matters: nobody can tell two equal copies apart.
pub(crate) fn is_by_content(name: &str) -> bool {
    let base = unnumbered(name);
    base != name && (base == "CSWTCH" || base == "__func__" || base == "__PRETTY_FUNCTION__" || base == ".LC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_from_names() {
        assert_eq!(unnumbered("last.22857"), "last");
        assert_eq!(unnumbered("foo.constprop.0"), "foo.constprop");
        assert_eq!(unnumbered("foo.constprop.0.isra.1"), "foo.constprop.0.isra");
        assert_eq!(unnumbered(".LC7"), ".LC7");
        assert!(!is_numbered("foo"));
        assert_eq!(cold_of("foo.cold"), Some("foo"));
        assert_eq!(cold_of("foo.part.0.cold.3"), Some("foo.part.0"));
        assert_eq!(cold_of("cold"), None);
        assert!(is_by_content("__func__.1"));
        assert!(!is_by_content("last.1"));
    }
}
