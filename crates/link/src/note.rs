//! ELF notes that hold a build-id (xen/common/version.c, `xen_build_id_check`).

/// NT_GNU_BUILD_ID.
const BUILD_ID: u32 = 3;

/// A note of owner "GNU" that holds an id.
pub(crate) fn build_id(id: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend_from_slice(&4u32.to_le_bytes());
    note.extend_from_slice(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_le_bytes());
    note.extend_from_slice(&BUILD_ID.to_le_bytes());
    note.extend_from_slice(b"GNU\0");
    note.extend_from_slice(id);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}
