//! Damages files, the same way on every run.

/// A row of numbers that look random: Knuth's linear congruential generator (MMIX).
pub struct Row(u64);

impl Row {
    /// A row of its own for each number.
    pub fn new(seed: u64) -> Row {
        Row(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next, below a bound that is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound
    }
}

/// Values that counts, sizes and offsets rarely have.
const EXTREMES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// One damaged file of a sound one, which is not empty.
pub fn damaged(sound: &[u8], row: &mut Row) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for _ in 0..=row.below(3) {
        damage(&mut bytes, row);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, row: &mut Row) {
    if bytes.is_empty() {
        return;
    }
    let at = row.below(bytes.len());
    match row.below(8) {
        0 => bytes[at] ^= 1 << row.below(8),
        1 => bytes[at] = u8::try_from(row.below(256)).unwrap_or(0),
        2 | 3 => extreme(bytes, at, row),
        // Headers of ELF files are where the damage is done.
        4 => extreme(bytes, at % 64, row),
        5 => bytes.truncate(at),
        6 => {
            let from = row.below(bytes.len());
            let len = row.below(64).min(bytes.len() - from).min(bytes.len() - at);
            bytes.copy_within(from..from + len, at);
        }
        _ => {
            let len = row.below(48).min(bytes.len() - at);
            let copy = bytes[at..at + len].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}

fn extreme(bytes: &mut [u8], at: usize, row: &mut Row) {
    let size = [1, 2, 4, 8][row.below(4)];
    // Fields of ELF are where their size says.
    let at = at / size * size;
    let value = EXTREMES[row.below(EXTREMES.len())].to_le_bytes();
    if let Some(field) = bytes.get_mut(at..at + size) {
        field.copy_from_slice(&value[..size]);
    }
}
