//! Writes the "new ASCII" cpio format, in which Linux takes its initial file system.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux. An entry is a header of
//! 110 bytes (the magic `070701` and thirteen fields of eight hexadecimal digits), the name with its NUL,
//! and the data; name and data are each padded so that what follows begins at a multiple of four bytes.

use std::collections::BTreeMap;

const TYPE_FILE: u32 = 0o100_000;
const TYPE_DIR: u32 = 0o040_000;
const TYPE_CHAR: u32 = 0o020_000;

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Dir,
    File { mode: u32, data: Vec<u8> },
    Char { mode: u32, major: u32, minor: u32 },
}

/// An archive in the making. Entries come out sorted by name, owned by root, with time 0: the same
/// contents give the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a folder and those it lies in. `path` may start with a slash.
    pub fn dir(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return;
        }
        self.parents(path);
        self.entries.entry(path.to_owned()).or_insert(Entry::Dir);
    }

    /// Adds a file and the folders it lies in; `mode` is its permission bits. A later file of the same
    /// name replaces an earlier one.
    pub fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::File { mode: mode & 0o7777, data: data.into() });
    }

    /// Adds a character device and the folders it lies in.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Char { mode: mode & 0o7777, major, minor });
    }

    /// Whether there is an entry of that name.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_matches('/'))
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Dir);
        }
    }

    /// The archive's bytes; their number is a multiple of 512.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // In sorted order a folder comes before what lies in it, as the kernel's unpacker needs.
        for (number, (name, entry)) in (1..).zip(&self.entries) {
            match entry {
                Entry::Dir => header(&mut out, number, TYPE_DIR | 0o755, name, 0, (0, 0)),
                Entry::File { mode, data } => {
                    header(&mut out, number, TYPE_FILE | mode, name, data.len(), (0, 0));
                    out.extend_from_slice(data);
                    pad(&mut out, 4);
                }
                Entry::Char { mode, major, minor } => {
                    header(&mut out, number, TYPE_CHAR | mode, name, 0, (*major, *minor));
                }
            }
        }
        header(&mut out, 0, 0, "TRAILER!!!", 0, (0, 0));
        pad(&mut out, 512);
        out
    }
}

fn header(out: &mut Vec<u8>, number: u32, mode: u32, name: &str, size: usize, device: (u32, u32)) {
    let links = if mode & 0o170_000 == TYPE_DIR { 2 } else { 1 };
    // Archives above 4 GiB cannot be described; QEMU could not load them either.
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
    // In the order of the format: inode, mode, owner, group, links, time, size, the device that holds it
    // (major, minor), the device that it is (major, minor), the name's size, a checksum that is not used.
    let fields = [number, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out, 4);
}

fn pad(out: &mut Vec<u8>, multiple: usize) {
    out.resize(out.len().next_multiple_of(multiple), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive independently of the writer: by the numbers in the headers.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let field = |at: usize, n: usize| {
            let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).expect("digits");
            u32::from_str_radix(text, 16).expect("hexadecimal")
        };
        let mut at = 0;
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            assert_eq!(at % 4, 0);
            let (mode, size, name_size) = (field(at, 1), field(at, 6) as usize, field(at, 11) as usize);
            let name = &bytes[at + 110..at + 110 + name_size];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_size - 1].to_vec()).expect("name");
            let data = (at + 110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
    }

    #[test]
    fn folders_come_first_and_data_survives() {
        let mut archive = Archive::new();
        archive.file("/b/c/file", 0o755, *b"12345");
        archive.file("init", 0o700, *b"");
        archive.char_device("/dev/console", 0o600, 5, 1);
        let bytes = archive.to_bytes();
        assert_eq!(bytes.len() % 512, 0);
        let expected = [
            ("b", 0o040_755, ""),
            ("b/c", 0o040_755, ""),
            ("b/c/file", 0o100_755, "12345"),
            ("dev", 0o040_755, ""),
            ("dev/console", 0o020_600, ""),
            ("init", 0o100_700, ""),
        ];
        let expected = expected.map(|(n, m, d)| (n.to_owned(), m, d.as_bytes().to_vec()));
        assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let mut one = Archive::new();
        one.file("a", 0o644, *b"a");
        one.dir("d/e");
        let mut other = Archive::new();
        other.dir("/d/e/");
        other.file("/a", 0o644, *b"a");
        assert_eq!(one.to_bytes(), other.to_bytes());
    }
}
