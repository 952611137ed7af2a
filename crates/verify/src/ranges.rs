//! Ranges that are asked again and again whether they contain something.

use std::ops::Range;

/// Ranges in order and apart: those that touch are one.
pub(crate) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

/// Whether one of those that [`merged`] gave contains it.
pub(crate) fn contains(merged: &[Range<u64>], value: u64) -> bool {
    let behind = merged.partition_point(|range| range.start <= value);
    merged[..behind].last().is_some_and(|range| range.contains(&value))
}
