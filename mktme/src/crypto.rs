//! Encryption and MAC, in two kinds.
//!
//! *Real* computes: AES-XTS per key, and a MAC from SHA3-256. *Symbolic* knows: a stored line is its plaintext with the
//! key and place it was encrypted for, decryption with anything else is garbage, and a MAC matches exactly when it was
//! made for this ciphertext, address, key and TD bit. Symbolic has no collisions; both otherwise agree.

use crate::keys::{KeyOrigin, KeyRing, Material, MaterialId};
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use serde::{Deserialize, Serialize};
use sha3::{Digest, Sha3_256};
use sim_core::addr::Line;
use sim_core::data::LineData;
use sim_core::platform::XtsWidth;
use sim_core::prng::mix;
pub use sim_core::setting::CryptoKind;
use std::fmt;
use xts_mode::Xts128;

/// The MAC field of a stored line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct MacField {
    /// The stored bits; real crypto only.
    pub(crate) bits: u32,
    /// The TD bit it was made for. Everything else that it was made for travels with the ciphertext.
    pub(crate) made_td: bool,
}

/// What DRAM stores for a line, apart from poison: ciphertext, TD bit and MAC field. What an attacker on the bus can copy
/// and put back (verification.md §1.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Image {
    /// Real: the ciphertext. Symbolic: the plaintext that was encrypted, or the stored bits themselves where they are raw.
    pub(crate) data: LineData,
    /// With which key.
    pub(crate) material: MaterialId,
    /// For which line.
    pub(crate) home: Line,
    /// Which ciphertext bits differ from what was written.
    pub(crate) flips: LineData,
    /// TD-owner bit.
    pub(crate) td: bool,
    /// MAC field, if it holds a MAC.
    pub(crate) mac: Option<MacField>,
}

impl Image {
    /// Whether decrypting it at `line` with `reader` gives what was written there with that key.
    pub(crate) fn is_plain(&self, line: Line, reader: MaterialId) -> bool {
        self.material == reader && self.home == line && self.flips.is_zero()
    }
    /// Flips a ciphertext bit (0 to 511).
    pub(crate) fn flip(&mut self, kind: CryptoKind, bit: u16) {
        let (word, mask) = (usize::from(bit / 64) & 7, 1u64 << (bit % 64));
        self.flips.0[word] ^= mask;
        if kind == CryptoKind::Real || self.material.is_raw() {
            self.data.0[word] ^= mask;
        }
    }
}

/// The content of a line nobody has written since power-on (architecture.md §13 MC-10).
pub(crate) fn power_on(seed: u64, line: Line) -> LineData {
    let mut words = [0u64; 8];
    for (i, word) in words.iter_mut().enumerate() {
        *word = mix(seed, line.0, i as u64);
    }
    LineData(words)
}

/// Symbolic decryption with a key, or at a place, other than those of the encryption.
fn garbage(seed: u64, image: &Image, line: Line, reader: MaterialId) -> LineData {
    let mut h = mix(seed ^ 0x0067_6172_6261_6765, image.home.0, u64::from(image.material.raw()));
    for (word, flip) in image.data.0.iter().zip(image.flips.0) {
        h = mix(h, *word, flip);
    }
    h = mix(h, line.0, u64::from(reader.raw()));
    let mut words = [0u64; 8];
    for (i, word) in words.iter_mut().enumerate() {
        *word = mix(h, line.0, i as u64);
    }
    LineData(words)
}

/// What symbolic decryption at `line` with `reader` gives.
pub(crate) fn symbolic_decrypt(
    seed: u64,
    image: &Image,
    line: Line,
    reader: MaterialId,
) -> LineData {
    let bits_as_they_are = reader == MaterialId::PLAIN && image.material.is_raw();
    if bits_as_they_are || image.is_plain(line, reader) {
        return image.data;
    }
    garbage(seed, image, line, reader)
}

/// Whether a symbolic MAC matches: same ciphertext, address, tweak key and TD bit as it was made for
/// (architecture.md §1.2 1.2.2).
pub(crate) fn symbolic_mac_matches(image: &Image, line: Line, reader: MaterialId) -> bool {
    image.mac.is_some_and(|mac| mac.made_td == image.td) && image.is_plain(line, reader)
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha3_256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The platform's MAC key: one, made at power-on, not per KeyID (architecture.md §1.2 1.2.3).
pub(crate) fn mac_key(seed: u64) -> [u8; 16] {
    let mut key = [0u8; 16];
    for (k, h) in key.iter_mut().zip(hash(&[b"tdxsim mac key", &seed.to_le_bytes()])) {
        *k = h;
    }
    key
}

/// AES-XTS under one key, and the encrypted tweak that the MAC takes in.
///
/// XTS-AES-256 here has a tweak key of 256 bits as IEEE 1619 has it; BASE Table 16.1 speaks of 128 bits. Nothing observable
/// depends on it.
#[expect(clippy::large_enum_variant, reason = "always boxed, and few")]
enum Cipher {
    Aes128(Xts128<Aes128>, Aes128),
    Aes256(Xts128<Aes256>, Aes256),
}

impl Cipher {
    /// Derives both keys from the seed (random keys) or from the number alone (direct keys).
    fn new(seed: u64, material: Material) -> Cipher {
        let (tag, a, b): (&[u8], u64, u64) = match material.origin {
            KeyOrigin::Tme => (b"tme", seed, 0),
            KeyOrigin::Random { keyid, generation } => {
                (b"random", seed, u64::from(keyid.0) << 32 | u64::from(generation))
            }
            KeyOrigin::Direct(number) => (b"direct", number, 0),
        };
        let derive =
            |label: &[u8]| hash(&[b"tdxsim ", label, tag, &a.to_le_bytes(), &b.to_le_bytes()]);
        let (data, tweak) = (derive(b"data key "), derive(b"tweak key "));
        match material.width {
            XtsWidth::Xts128 => {
                let cut = |key: [u8; 32]| {
                    let mut half = [0u8; 16];
                    for (h, k) in half.iter_mut().zip(key) {
                        *h = k;
                    }
                    Aes128::new(&Array(half))
                };
                Cipher::Aes128(Xts128::new(cut(data), cut(tweak)), cut(tweak))
            }
            XtsWidth::Xts256 => {
                let key = |key: [u8; 32]| Aes256::new(&Array(key));
                Cipher::Aes256(Xts128::new(key(data), key(tweak)), key(tweak))
            }
        }
    }
}

/// The tweak before encryption: the line's address without KeyID bits (architecture.md §1.1 1.1.6).
fn sector(line: Line) -> [u8; 16] {
    u128::from(line.hpa().0).to_le_bytes()
}

/// Expanded keys, kept for speed. Not state: derived anew where missing, empty in a clone, equal to any other.
#[derive(Default)]
pub(crate) struct Ciphers {
    known: Vec<(MaterialId, Box<Cipher>)>,
    next: usize,
}

impl Clone for Ciphers {
    fn clone(&self) -> Self {
        Ciphers::default()
    }
}
impl PartialEq for Ciphers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Ciphers {}
impl fmt::Debug for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphers({} expanded)", self.known.len())
    }
}

/// Real crypto: everything it needs to compute.
pub(crate) struct Real<'a> {
    pub(crate) seed: u64,
    pub(crate) mac_key: &'a [u8; 16],
    pub(crate) mac_bits: u8,
    pub(crate) keys: &'a KeyRing,
    pub(crate) ciphers: &'a Ciphers,
}

impl Ciphers {
    const KEPT: usize = 16;

    /// Expands a key unless it is known.
    pub(crate) fn warm(&mut self, seed: u64, keys: &KeyRing, id: MaterialId) {
        if self.known.iter().any(|(known, _)| *known == id) {
            return;
        }
        let Some(material) = keys.material(id) else { return };
        let new = (id, Box::new(Cipher::new(seed, material)));
        if self.known.len() < Self::KEPT {
            self.known.push(new);
        } else if let Some(place) = self.known.get_mut(self.next) {
            *place = new;
            self.next = (self.next + 1) % Self::KEPT;
        }
    }
}

impl Real<'_> {
    fn with<R>(&self, id: MaterialId, f: impl FnOnce(Option<&Cipher>) -> R) -> R {
        if let Some((_, cipher)) = self.ciphers.known.iter().find(|(known, _)| *known == id) {
            return f(Some(cipher));
        }
        match self.keys.material(id) {
            Some(material) => f(Some(&Cipher::new(self.seed, material))),
            None => f(None),
        }
    }

    /// Encrypts a line; unchanged where the material has no key.
    pub(crate) fn encrypt(&self, id: MaterialId, line: Line, data: &LineData) -> LineData {
        let mut bytes = data.to_bytes();
        self.with(id, |cipher| match cipher {
            None => {}
            Some(Cipher::Aes128(xts, _)) => xts.encrypt_sector(&mut bytes, Array(sector(line))),
            Some(Cipher::Aes256(xts, _)) => xts.encrypt_sector(&mut bytes, Array(sector(line))),
        });
        LineData::from_bytes(&bytes)
    }

    /// Decrypts a line; unchanged where the material has no key.
    pub(crate) fn decrypt(&self, id: MaterialId, line: Line, data: &LineData) -> LineData {
        let mut bytes = data.to_bytes();
        self.with(id, |cipher| match cipher {
            None => {}
            Some(Cipher::Aes128(xts, _)) => xts.decrypt_sector(&mut bytes, Array(sector(line))),
            Some(Cipher::Aes256(xts, _)) => xts.decrypt_sector(&mut bytes, Array(sector(line))),
        });
        LineData::from_bytes(&bytes)
    }

    /// The MAC over ciphertext, encrypted tweak and TD bit under the platform's MAC key, truncated (architecture.md §1.2).
    /// The message layout, MAC key first, and which bits are kept, the lowest, are ours (MC-17).
    pub(crate) fn mac(&self, id: MaterialId, line: Line, ciphertext: &LineData, td: bool) -> u32 {
        let mut tweak = Array(sector(line));
        self.with(id, |cipher| match cipher {
            None => {}
            Some(Cipher::Aes128(_, aes)) => aes.encrypt_block(&mut tweak),
            Some(Cipher::Aes256(_, aes)) => aes.encrypt_block(&mut tweak),
        });
        let digest = hash(&[self.mac_key, &tweak, &[u8::from(td)], &ciphertext.to_bytes()]);
        let mut low = [0u8; 4];
        for (l, d) in low.iter_mut().zip(digest) {
            *l = d;
        }
        u32::from_le_bytes(low) & ((1u32 << self.mac_bits.min(31)) - 1)
    }
}
