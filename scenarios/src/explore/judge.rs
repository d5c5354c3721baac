//! Final checks on a world.

use super::world::{Explorer, Word, World};
use crate::format::{BoundCheck, FinalCheck};
use crate::run::judge_module;
use sim_core::outcome::{DataClass, Loaded};
use sim_core::{LineData, Outcome};
use verify::reference::Bytes;
use verify::reference::tables::read_row;

impl Explorer {
    /// Whether a final check holds in a world, and what is there instead.
    pub(super) fn judge(&self, w: &World, check: &BoundCheck) -> (bool, String) {
        let flag = |real: bool, holds: bool| {
            (real == holds, if real { "it is" } else { "it is not" }.to_owned())
        };
        let number = |real: u64, want: u64| (real == want, real.to_string());
        let memory = &w.memory;
        match check {
            FinalCheck::Poisoned { at, holds } => flag(memory.line(*at).poison.is_some(), *holds),
            FinalCheck::Td { at, holds } => flag(memory.line(*at).td, *holds),
            FinalCheck::Mac { at, holds } => flag(memory.line(*at).mac, *holds),
            FinalCheck::Cached { at, holds } => flag(memory.copies(*at).next().is_some(), *holds),
            FinalCheck::Dirty { at, holds } => {
                flag(memory.copies(*at).any(|(_, c)| c.state.is_dirty()), *holds)
            }
            FinalCheck::Writer { at, keyid } => {
                let writer = memory.line(*at).writer;
                let seen =
                    writer.map_or_else(|| "never written".to_owned(), |k| format!("KeyID {k}"));
                (writer == Some(*keyid), seen)
            }
            FinalCheck::Reads { at, pattern } => {
                let line = memory.dram(at.line());
                let mode = memory.spec.memory.integrity;
                let poisoned = line.poison.is_some();
                let row =
                    read_row(mode, memory.class(*at), line.td, memory.mac_valid(*at), poisoned);
                let (bytes, class) = if row.plaintext {
                    line.decrypt(at.line(), memory.key(*at).key)
                } else {
                    (Bytes::ZERO, DataClass::Blocked)
                };
                if row.poison {
                    let nothing = Loaded { data: LineData::ZERO, bytes: 64, class };
                    return (pattern.matches(true, &nothing), "poison".to_owned());
                }
                let loaded = Loaded { data: bytes.data(), bytes: 64, class };
                let word = Word::of((Outcome::Data(loaded), bytes.unknown()));
                let fits = |outcome: &Outcome| match outcome {
                    Outcome::Data(loaded) => pattern.matches(false, loaded),
                    _ => false,
                };
                (word.fits(fits), word.text)
            }
            FinalCheck::Panic { holds } => flag(w.fate.panicked, *holds),
            FinalCheck::TdxDisabled { holds } => flag(w.fate.tdx_disabled, *holds),
            FinalCheck::Ucna(n) => number(w.counts.ucna.into(), *n),
            FinalCheck::Births(n) => number(w.counts.births.into(), *n),
            FinalCheck::LivePoison(n) => number(memory.state().births.len() as u64, *n),
            FinalCheck::PartialWrites(n) => number(w.counts.partial_writes.into(), *n),
            _ => match &w.seam {
                Some(seam) => judge_module(check, &seam.module, |core, tdr, page| {
                    seam.translation(core, tdr, page)
                }),
                None => (false, "no module".to_owned()),
            },
        }
    }
}
