//! KeyIDs and where a platform puts them in a physical address (architecture.md §8).

use crate::addr::{Addr, Hpa};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// A memory-encryption KeyID. Private ones are called HKIDs in the TDX documents.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct KeyId(pub u16);

impl KeyId {
    /// KeyID 0: the TME key, the only one that Linux uses (architecture.md §1.3 1.3.5).
    pub const TME: KeyId = KeyId(0);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where the KeyID sits in a physical address, and which KeyIDs are private.
///
/// KeyID = PA bits \[m−1 : m−k\]; any of the top p bits set means private (architecture.md §8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyIdLayout {
    /// MAXPA, m: physical address bits including the KeyID. 32 to 52.
    pub maxpa: u8,
    /// MK_TME_KEYID_BITS, k: width of the KeyID field. 0 to 15.
    pub keyid_bits: u8,
    /// TDX_RESERVED_KEYID_BITS, p: how many of the field's top bits mark a private KeyID. 0 (no TDX) to k.
    pub private_bits: u8,
    /// NUM_MKTME_KIDS: shared KeyIDs are 0 to this.
    pub mktme_kids: u16,
    /// NUM_TDX_PRIV_KIDS: private KeyIDs follow the shared ones.
    pub tdx_priv_kids: u16,
}

/// Why a [`KeyIdLayout`] is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// MAXPA outside 32..=52.
    #[error("maxpa is {0}, expected 32 to 52")]
    Maxpa(u8),
    /// More than 15 KeyID bits, or no room for an address beside them.
    #[error("keyid_bits is {0}, expected 0 to 15 (MK_TME_KEYID_BITS is a 4-bit field)")]
    KeyIdBits(u8),
    /// More private bits than KeyID bits.
    #[error("private_bits is {private}, expected at most keyid_bits, which is {keyid}")]
    PrivateBits {
        /// p as given.
        private: u8,
        /// k as given.
        keyid: u8,
    },
    /// NUM_MKTME_KIDS does not fit the class rule "any of the top p bits set means private".
    #[error(
        "mktme_kids is {got}, expected {expected}: with {private} of {keyid} KeyID bits private, \
         the first private KeyID is {first}"
    )]
    MktmeKids {
        /// NUM_MKTME_KIDS as given.
        got: u16,
        /// What the bit rule asks for.
        expected: u16,
        /// p.
        private: u8,
        /// k.
        keyid: u8,
        /// First KeyID with one of the top p bits set.
        first: u16,
    },
    /// Without private bits there are no private KeyIDs; with them there are more than zero and they fit the field.
    #[error("tdx_priv_kids is {got}, expected {lo} to {hi}")]
    PrivKids {
        /// NUM_TDX_PRIV_KIDS as given.
        got: u16,
        /// Smallest possible.
        lo: u16,
        /// Largest possible.
        hi: u16,
    },
}

/// Why an address cannot exist on this platform, whoever forms it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AddrError {
    /// The address has bits where the KeyID field or the end of the physical address space is.
    #[error(
        "address {hpa} is beyond the {bits} address bits below the KeyID field (MAXPA {maxpa}, {keyid_bits} KeyID bits)"
    )]
    BeyondMaxpa {
        /// The address.
        hpa: Hpa,
        /// m − k.
        bits: u8,
        /// m.
        maxpa: u8,
        /// k.
        keyid_bits: u8,
    },
    /// The KeyID does not fit the field.
    #[error(
        "KeyID {keyid} is out of range: this platform has {keyid_bits} KeyID bits (0 to {max})"
    )]
    KeyIdTooWide {
        /// The KeyID.
        keyid: u32,
        /// k.
        keyid_bits: u8,
        /// 2^k − 1.
        max: u32,
    },
}

impl KeyIdLayout {
    /// Checks the layout against the rules of architecture.md §8.
    ///
    /// # Errors
    /// The first rule broken, with the value found and the one expected.
    pub fn validate(&self) -> Result<(), LayoutError> {
        if !(32..=52).contains(&self.maxpa) {
            return Err(LayoutError::Maxpa(self.maxpa));
        }
        if self.keyid_bits > 15 {
            return Err(LayoutError::KeyIdBits(self.keyid_bits));
        }
        if self.private_bits > self.keyid_bits {
            return Err(LayoutError::PrivateBits {
                private: self.private_bits,
                keyid: self.keyid_bits,
            });
        }
        let all = (1u32 << self.keyid_bits) as u16;
        if self.private_bits == 0 {
            if self.tdx_priv_kids != 0 {
                return Err(LayoutError::PrivKids { got: self.tdx_priv_kids, lo: 0, hi: 0 });
            }
            if self.mktme_kids >= all {
                return Err(LayoutError::MktmeKids {
                    got: self.mktme_kids,
                    expected: all - 1,
                    private: 0,
                    keyid: self.keyid_bits,
                    first: all,
                });
            }
            return Ok(());
        }
        let first = 1u16 << (self.keyid_bits - self.private_bits);
        if self.mktme_kids != first - 1 {
            return Err(LayoutError::MktmeKids {
                got: self.mktme_kids,
                expected: first - 1,
                private: self.private_bits,
                keyid: self.keyid_bits,
                first,
            });
        }
        let hi = all - first;
        if !(1..=hi).contains(&self.tdx_priv_kids) {
            return Err(LayoutError::PrivKids { got: self.tdx_priv_kids, lo: 1, hi });
        }
        Ok(())
    }

    /// Address bits below the KeyID field: m − k.
    pub const fn address_bits(&self) -> u8 {
        self.maxpa - self.keyid_bits
    }

    /// The largest KeyID that fits the field.
    pub const fn keyid_max(&self) -> u16 {
        ((1u32 << self.keyid_bits) - 1) as u16
    }

    /// Whether any of the KeyID's top p bits is set: the class test of the memory controller and of the reserved-bit
    /// check outside SEAM (architecture.md §8).
    pub const fn is_private(&self, keyid: KeyId) -> bool {
        self.private_bits != 0 && keyid.0 >> (self.keyid_bits - self.private_bits) != 0
    }

    /// Whether the platform has this KeyID in one of its two ranges (0..=N shared, N+1..=N+P private).
    pub const fn is_configured(&self, keyid: KeyId) -> bool {
        (keyid.0 as u32) <= self.mktme_kids as u32 + self.tdx_priv_kids as u32
    }

    /// The `index`-th private KeyID, the first being what Linux takes as global HKID (architecture.md §8), or `None`
    /// where the platform has fewer.
    pub fn private(&self, index: u16) -> Option<KeyId> {
        (index < self.tdx_priv_kids).then(|| KeyId(self.mktme_kids + 1 + index))
    }

    /// The `index`-th shared KeyID above KeyID 0 (so `shared(0)` is KeyID 1), or `None` where the platform has fewer.
    pub fn shared(&self, index: u16) -> Option<KeyId> {
        (index < self.mktme_kids).then(|| KeyId(1 + index))
    }

    /// The physical address as it travels inside the SoC and appears in MCi_ADDR: KeyID bits included
    /// (architecture.md §13 MC-24).
    pub const fn join(&self, addr: Addr) -> u64 {
        addr.hpa.0 | ((addr.keyid.0 as u64) << self.address_bits())
    }

    /// Splits a physical address with KeyID bits; `None` when it has bits at or above MAXPA.
    pub fn split(&self, full: u64) -> Option<Addr> {
        if full >> self.maxpa != 0 {
            return None;
        }
        let bits = self.address_bits();
        Some(Addr::new(Hpa(full & ((1 << bits) - 1)), KeyId((full >> bits) as u16)))
    }

    /// Checks that an address and a KeyID can exist on this platform at all.
    ///
    /// # Errors
    /// Which of the two does not fit, and why.
    pub fn check(&self, hpa: Hpa, keyid: u32) -> Result<Addr, AddrError> {
        if keyid > u32::from(self.keyid_max()) {
            return Err(AddrError::KeyIdTooWide {
                keyid,
                keyid_bits: self.keyid_bits,
                max: u32::from(self.keyid_max()),
            });
        }
        if hpa.0 >> self.address_bits() != 0 {
            return Err(AddrError::BeyondMaxpa {
                hpa,
                bits: self.address_bits(),
                maxpa: self.maxpa,
                keyid_bits: self.keyid_bits,
            });
        }
        Ok(Addr::new(hpa, KeyId(keyid as u16)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The layouts of real machines (architecture.md §9 "KeyIDs seen").
    const SEEN: &[(u8, u8, u16, u16)] = &[(7, 1, 63, 64), (6, 1, 31, 32), (6, 2, 15, 48)];

    #[test]
    fn layouts_of_real_machines_are_accepted() {
        for &(keyid_bits, private_bits, mktme_kids, tdx_priv_kids) in SEEN {
            let layout =
                KeyIdLayout { maxpa: 52, keyid_bits, private_bits, mktme_kids, tdx_priv_kids };
            layout.validate().unwrap();
            assert_eq!(layout.private(0), Some(KeyId(mktme_kids + 1)));
            assert_eq!(layout.private(tdx_priv_kids), None);
        }
    }

    #[test]
    fn the_measured_mci_addr_is_reproduced() {
        // architecture.md §6.2: PA 0x80A5669610 with HKID 0x41 was reported as 0x82080A5669600.
        let layout = KeyIdLayout {
            maxpa: 52,
            keyid_bits: 7,
            private_bits: 1,
            mktme_kids: 63,
            tdx_priv_kids: 64,
        };
        let line = Hpa(0x80_A566_9610).line().hpa();
        assert_eq!(layout.join(Addr::new(line, KeyId(0x41))), 0x8_2080_A566_9600);
    }

    fn any_layout() -> impl Strategy<Value = KeyIdLayout> {
        (32u8..=52, 0u8..=15).prop_flat_map(|(maxpa, keyid_bits)| {
            (0..=keyid_bits).prop_flat_map(move |private_bits| {
                let all = 1u32 << keyid_bits;
                let first = if private_bits == 0 { all } else { 1 << (keyid_bits - private_bits) };
                let priv_range = if private_bits == 0 { 0..=0 } else { 1..=(all - first) };
                priv_range.prop_map(move |p| KeyIdLayout {
                    maxpa,
                    keyid_bits,
                    private_bits,
                    mktme_kids: (first - 1) as u16,
                    tdx_priv_kids: p as u16,
                })
            })
        })
    }

    proptest! {
        #[test]
        fn every_width_splits_what_it_joins(layout in any_layout(), hpa: u64, key: u16) {
            layout.validate().unwrap();
            let hpa = Hpa(hpa & ((1 << layout.address_bits()) - 1));
            let keyid = KeyId(key & layout.keyid_max());
            let full = layout.join(Addr::new(hpa, keyid));
            prop_assert!(full >> layout.maxpa == 0);
            prop_assert_eq!(layout.split(full), Some(Addr::new(hpa, keyid)));
        }

        #[test]
        fn the_bit_rule_and_the_number_rule_agree_on_configured_keyids(
            layout in any_layout(), key: u16,
        ) {
            let keyid = KeyId(key & layout.keyid_max());
            if layout.is_configured(keyid) {
                prop_assert_eq!(layout.is_private(keyid), keyid.0 > layout.mktme_kids);
            }
        }

        #[test]
        fn validation_never_panics_and_refuses_overlaps(
            maxpa: u8, keyid_bits: u8, private_bits: u8, mktme_kids: u16, tdx_priv_kids: u16,
        ) {
            let layout =
                KeyIdLayout { maxpa, keyid_bits, private_bits, mktme_kids, tdx_priv_kids };
            if layout.validate().is_ok() {
                prop_assert!(
                    u32::from(mktme_kids) + u32::from(tdx_priv_kids) < 1 << keyid_bits
                );
            }
        }
    }
}
