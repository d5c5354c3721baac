//! Keys: what each KeyID is programmed with, and PCONFIG.

use crate::tables::{KeyClass, pconfig_accepts, pconfig_default_integrity};
use serde::{Deserialize, Serialize};
use sim_core::Tagged;
use sim_core::keyid::{KeyId, KeyIdLayout};
use sim_core::op::{KeyAlg, PconfigCmd};
use sim_core::outcome::PconfigStatus;
use sim_core::platform::{IntegrityMode, MemorySpec, XtsWidth, home_of};

/// Names a piece of key material. Two KeyIDs with the same material encrypt alike: after "clear key" both hold the TME
/// key, and two direct keys of the same number and width are one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MaterialId(u32);

impl MaterialId {
    /// No key ever: the random content at power-on (architecture.md §13 MC-10).
    pub const POWER_ON: MaterialId = MaterialId(0);
    /// No encryption: KeyID 0 in bypass (MC-09), or PCONFIG "no encryption".
    pub const PLAIN: MaterialId = MaterialId(1);
    /// The TME key (architecture.md §1.3 1.3.6).
    pub const TME: MaterialId = MaterialId(2);

    /// The number, for hashing.
    pub(crate) const fn raw(self) -> u32 {
        self.0
    }
    /// The material of that number.
    pub(crate) const fn of_raw(raw: u32) -> MaterialId {
        MaterialId(raw)
    }
    /// Whether the stored bits are the data itself.
    pub(crate) const fn is_raw(self) -> bool {
        self.0 <= MaterialId::PLAIN.0
    }
}

/// Where a key comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum KeyOrigin {
    /// Made by hardware at TME_ACTIVATE.
    Tme,
    /// Drawn by PCONFIG for a KeyID; `generation` counts the programmings of that KeyID.
    Random { keyid: KeyId, generation: u32 },
    /// Given by software.
    Direct(u64),
}

/// Key material: where it comes from and how wide it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Material {
    pub(crate) origin: KeyOrigin,
    pub(crate) width: XtsWidth,
}

/// What a KeyID is programmed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Slot {
    material: MaterialId,
    integrity: bool,
    generation: u32,
}

/// A KeyID as a request meets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) keyid: KeyId,
    pub(crate) material: MaterialId,
    pub(crate) class: KeyClass,
}

/// The key tables of all packages: PCONFIG programs that of its own package (architecture.md §8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeyRing {
    layout: KeyIdLayout,
    memory: MemorySpec,
    /// At least 1.
    packages: u8,
    /// By KeyID, then package, as far as programmed; beyond that [`KeyRing::unprogrammed`].
    slots: Vec<Slot>,
    /// By material id, from 2.
    materials: Vec<Material>,
    /// The direct keys among them, sorted.
    direct: Vec<(Material, MaterialId)>,
}

impl KeyRing {
    /// Before any PCONFIG every KeyID has the TME key (MC-27); KeyID 0 none in bypass (MC-09).
    pub(crate) fn new(layout: KeyIdLayout, memory: MemorySpec, packages: u8) -> KeyRing {
        let packages = packages.max(1);
        let zero = if memory.tme_bypass { MaterialId::PLAIN } else { MaterialId::TME };
        KeyRing {
            layout,
            memory,
            packages,
            slots: vec![Slot { material: zero, integrity: false, generation: 0 }; packages.into()],
            materials: vec![Material { origin: KeyOrigin::Tme, width: memory.xts }],
            direct: Vec::new(),
        }
    }

    const fn unprogrammed() -> Slot {
        Slot { material: MaterialId::TME, integrity: false, generation: 0 }
    }

    const fn index(&self, package: u8, keyid: KeyId) -> usize {
        keyid.0 as usize * self.packages as usize + package as usize
    }

    /// What a request with this KeyID for this line meets: the key table of the package whose controllers serve the line.
    #[inline]
    pub(crate) fn key(&self, at: Tagged) -> Key {
        let keyid = at.keyid();
        let home = if self.packages == 1 { 0 } else { home_of(at.line(), self.packages) };
        let slot = match self.slots.get(self.index(home, keyid)) {
            Some(slot) => *slot,
            None => KeyRing::unprogrammed(),
        };
        let class = if self.layout.is_private(keyid) {
            KeyClass::Private
        } else if slot.integrity {
            KeyClass::SharedIntegrity
        } else {
            KeyClass::Shared
        };
        Key { keyid, material: slot.material, class }
    }

    /// The material of that id; `None` for the two ids without a key.
    pub(crate) fn material(&self, id: MaterialId) -> Option<Material> {
        self.materials.get((id.0 as usize).checked_sub(2)?).copied()
    }

    /// How many bytes the table holds on the heap.
    pub(crate) fn memory_use(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.materials.capacity() * size_of::<Material>()
            + self.direct.capacity() * size_of::<(Material, MaterialId)>()
    }

    /// Programs a KeyID (architecture.md §8). The KeyID is checked first, then the algorithm; an algorithm given to a
    /// command that needs none is checked all the same.
    pub(crate) fn pconfig(
        &mut self,
        package: u8,
        keyid: KeyId,
        cmd: PconfigCmd,
        alg: Option<KeyAlg>,
        seam: bool,
    ) -> PconfigStatus {
        let private = self.layout.is_private(keyid);
        if keyid == KeyId::TME || !self.layout.is_configured(keyid) || private && !seam {
            return PconfigStatus::InvalidKeyId;
        }
        let mode = self.memory.integrity;
        let (width, integrity) = match alg {
            None => (self.memory.xts, pconfig_default_integrity(mode, private)),
            Some(alg) => {
                let width = width_of(alg);
                if width > self.memory.xts || !pconfig_accepts(mode, private, alg) {
                    return PconfigStatus::InvalidAlgorithm;
                }
                (width, alg.has_integrity())
            }
        };
        let index = self.index(package.min(self.packages - 1), keyid);
        // Counted over all packages, so that no two draw the same key.
        let first = self.index(0, keyid);
        let of_keyid = self.slots.iter().skip(first).take(self.packages.into());
        let generation = of_keyid.map(|s| s.generation).max().unwrap_or(0).saturating_add(1);
        let (material, integrity) = match cmd {
            PconfigCmd::ClearKey => (Some(MaterialId::TME), false),
            PconfigCmd::NoEncrypt => (Some(MaterialId::PLAIN), false),
            PconfigCmd::SetDirect(number) => {
                let material = Material { origin: KeyOrigin::Direct(number), width };
                let id = match self.direct.binary_search_by_key(&material, |(m, _)| *m) {
                    Ok(at) => self.direct.get(at).map(|(_, id)| *id),
                    Err(at) => {
                        let id = self.add(material);
                        if let Some(id) = id {
                            self.direct.insert(at, (material, id));
                        }
                        id
                    }
                };
                (id, integrity)
            }
            PconfigCmd::SetRandom => {
                let origin = KeyOrigin::Random { keyid, generation };
                (self.add(Material { origin, width }), integrity)
            }
        };
        // 2^32 keys are more than the model can name: the generator's well is dry.
        let Some(material) = material else { return PconfigStatus::NoEntropy };
        if self.slots.len() <= index {
            self.slots.resize(index + 1, KeyRing::unprogrammed());
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot =
                Slot { material, integrity: integrity && mode == IntegrityMode::Ci, generation };
        }
        PconfigStatus::Ok
    }

    fn add(&mut self, material: Material) -> Option<MaterialId> {
        let id = u32::try_from(self.materials.len()).ok()?.checked_add(2)?;
        self.materials.push(material);
        Some(MaterialId(id))
    }
}

const fn width_of(alg: KeyAlg) -> XtsWidth {
    match alg {
        KeyAlg::Xts128 | KeyAlg::Xts128Integrity => XtsWidth::Xts128,
        KeyAlg::Xts256 | KeyAlg::Xts256Integrity => XtsWidth::Xts256,
    }
}
