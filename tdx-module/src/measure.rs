//! MRTD: a real SHA-384 over what a TD was built from (architecture.md §7.9 "TDH.MEM.PAGE.ADD", "TDH.MR.EXTEND").

use serde::{Deserialize, Serialize};
use sha2::block_api::compress512;

/// Bytes of a SHA-384 block, and of every record that is measured.
pub const BLOCK_BYTES: usize = 128;

const INITIAL: [u64; 8] = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];

/// A SHA-384 in progress. Everything that is measured is a whole number of blocks, so no bytes wait between two leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mrtd {
    state: [u64; 8],
    blocks: u64,
    /// Whether TDH.MR.FINALIZE has closed it.
    closed: bool,
}

impl Default for Mrtd {
    fn default() -> Self {
        Mrtd::new()
    }
}

impl Mrtd {
    /// Nothing measured.
    pub const fn new() -> Mrtd {
        Mrtd { state: INITIAL, blocks: 0, closed: false }
    }
    /// How many blocks of [`BLOCK_BYTES`] were measured.
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }
    /// Measures one block.
    pub fn block(&mut self, block: &[u8; BLOCK_BYTES]) {
        compress512(&mut self.state, std::slice::from_ref(block));
        self.blocks += 1;
    }
    /// Measures the record of an operation on a guest-physical address: its name in the first 16 bytes, the address in
    /// the next 8, the rest zero.
    pub fn record(&mut self, name: &str, gpa: u64) {
        let mut block = [0; BLOCK_BYTES];
        for (to, from) in block.iter_mut().zip(name.bytes().take(16)) {
            *to = from;
        }
        for (to, from) in block.iter_mut().skip(16).zip(gpa.to_le_bytes()) {
            *to = from;
        }
        self.block(&block);
    }
    /// Ends the measurement.
    pub fn close(&mut self) {
        if self.closed {
            return;
        }
        let mut last = [0; BLOCK_BYTES];
        last[0] = 0x80;
        let bits = u128::from(self.blocks) * (8 * BLOCK_BYTES as u128);
        for (to, from) in last.iter_mut().skip(BLOCK_BYTES - 16).zip(bits.to_be_bytes()) {
            *to = from;
        }
        compress512(&mut self.state, std::slice::from_ref(&last));
        self.closed = true;
    }
    /// The 48 bytes of the digest; `None` before [`Mrtd::close`].
    pub fn digest(&self) -> Option<[u8; 48]> {
        if !self.closed {
            return None;
        }
        let mut out = [0; 48];
        let bytes = self.state.iter().flat_map(|word| word.to_be_bytes());
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha384};

    proptest! {
        #[test]
        fn blocks_hash_to_what_sha_384_says(data in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut mrtd = Mrtd::new();
            let mut reference = Sha384::new();
            for byte in data {
                let block = [byte; BLOCK_BYTES];
                mrtd.block(&block);
                reference.update(block);
            }
            prop_assert_eq!(mrtd.digest(), None);
            mrtd.close();
            mrtd.close();
            prop_assert_eq!(mrtd.digest().map(Vec::from), Some(reference.finalize().to_vec()));
        }
    }

    #[test]
    fn a_record_is_name_and_address_in_one_block() {
        let mut mrtd = Mrtd::new();
        mrtd.record("MEM.PAGE.ADD", 0x1234_5000);
        let mut block = [0u8; BLOCK_BYTES];
        block[..12].copy_from_slice(b"MEM.PAGE.ADD");
        block[16..24].copy_from_slice(&0x1234_5000u64.to_le_bytes());
        let mut reference = Mrtd::new();
        reference.block(&block);
        assert_eq!(mrtd, reference);
    }
}
