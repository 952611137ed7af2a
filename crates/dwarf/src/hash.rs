//! 128-bit fingerprints of structures.
//!
//! Not cryptographic: both sides are built by the user's own compiler from the user's own source.

/// A fingerprint: equal for equal structures, and for different ones with a chance of 2^-128.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Print(pub u64, pub u64);

impl Print {
    /// Joins fingerprints so that their order does not count.
    pub fn add(self, other: Print) -> Print {
        Print(self.0.wrapping_add(other.0), self.1.wrapping_add(other.1))
    }
}

/// Takes words and bytes in, gives a [`Print`].
pub(crate) struct Mixer(u64, u64);

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Mixer {
    /// `seed` tells kinds of things apart.
    pub fn new(seed: u8) -> Mixer {
        let mut mixer = Mixer(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
        mixer.word(u64::from(seed));
        mixer
    }

    /// Takes a number in.
    pub fn word(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, 0x9e37_79b9_7f4a_7c15).wrapping_add(0xa409_3822_299f_31d0);
        self.1 =
            fold(self.1 ^ word.rotate_left(29), 0xd6e8_feb8_6659_fd93).wrapping_add(0x082e_fa98_ec4e_6c89);
    }

    /// Takes bytes in; their number counts.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    /// Takes a fingerprint in.
    pub fn print(&mut self, print: Print) {
        self.word(print.0);
        self.word(print.1);
    }

    /// The fingerprint of all that was taken in.
    pub fn finish(mut self) -> Print {
        self.word(0x4528_21e6_38d0_1377);
        Print(self.0, self.1)
    }
}
