//! Machine and reference side by side: DRAM lines, cached copies, buffers, poison.

use super::{Checked, Difference, same};
use machine::Machine;
use sim_core::outcome::DataClass;
use sim_core::{ByteMask, KeyId, Line, LineData, Tagged};
use std::collections::BTreeSet;
use verify::reference::tables::read_row;
use verify::reference::{Bytes, Coherence, Place, Reference, Spec};

/// Both sides.
pub(super) struct Sides<'a> {
    pub(super) machine: &'a Machine,
    pub(super) reference: &'a Reference,
    /// KeyIDs in use.
    pub(super) keyids: &'a BTreeSet<KeyId>,
}

impl Sides<'_> {
    /// Poison: how much was born and has died, and of what is alive where and why it was born.
    pub(super) fn births(&self) -> Checked {
        let (trace, model) = (self.machine.trace(), self.reference);
        let births = (trace.births().len() as u32, trace.deaths());
        same(|| "births and deaths".to_owned(), &births, &model.births_and_deaths())?;
        for (id, birth) in &model.state().births {
            let ours = trace.birth(*id).map(|b| (b.at, b.cause));
            same(|| format!("birth {}", id.0), &ours, &Some((birth.at, birth.cause)))?;
        }
        Ok(())
    }

    /// A line of DRAM, and what a read of it would return under every KeyID in use.
    pub(super) fn line(&self, line: Line) -> Checked {
        let ours = self.machine.memory().line(line);
        same(|| format!("line {line}"), &ours, &self.reference.line(line))?;
        self.keyids.iter().try_for_each(|keyid| self.read(Tagged::new(line, *keyid)))
    }

    fn read(&self, at: Tagged) -> Checked {
        let model = self.reference;
        let line = model.dram(at.line());
        let mode = model.spec.memory.integrity;
        let row =
            read_row(mode, model.class(at), line.td, model.mac_valid(at), line.poison.is_some());
        let (bytes, class) = if row.plaintext {
            line.decrypt(at.line(), model.key(at).key)
        } else {
            (Bytes::ZERO, DataClass::Blocked)
        };
        let probe = self.machine.memory().probe(at);
        let ours = (probe.rule, probe.class, probe.poisoned, probe.birth);
        let what = || format!("a read of {at}");
        same(what, &ours, &(row.rule, class, row.poison, row.birth))?;
        same_bytes(what, &probe.data, &bytes)
    }

    /// Every (line, KeyID) that either side has in a cache.
    pub(super) fn cached(&self) -> BTreeSet<Tagged> {
        let ours = self.machine.caches().resident_lines().map(|l| l.tag);
        let theirs = self.reference.state().caches.keys().map(|(at, _)| *at);
        ours.chain(theirs).collect()
    }

    /// The cached copies of a line under a KeyID.
    pub(super) fn copies(&self, at: Tagged) -> Checked {
        let spec = &self.reference.spec;
        let mut cores = 0u128;
        let mut packages = BTreeSet::new();
        let mut dirty = BTreeSet::new();
        for (place, copy) in self.reference.copies(at) {
            let package = match place {
                Place::Core(c) => {
                    cores |= 1 << (c & 127);
                    spec.package_of(c)
                }
                Place::Llc(p) => p,
            };
            packages.insert(package);
            if matches!(copy.state, Coherence::Modified | Coherence::Owned) {
                dirty.insert(package);
            }
        }
        let view = self.machine.caches().inspect(at);
        let here = view.map(|v| holders(v.cores, v.llc, spec)).unwrap_or_default();
        same(|| format!("packages that hold {at}"), &here, &packages)?;
        let Some(view) = view else { return Ok(()) };
        same(|| format!("cores that hold {at}"), &view.cores, &cores)?;
        // A dirty line of the machine has all its holders in one package.
        let duty = if view.dirty { here } else { BTreeSet::new() };
        same(|| format!("packages where {at} is dirty"), &duty, &dirty)?;
        for (place, copy) in self.reference.copies(at) {
            let what = || format!("copy of {at} in {place:?}");
            same(what, &(view.class, view.poison), &(copy.class, copy.poison))?;
            same_bytes(what, &view.data, &copy.data)?;
        }
        Ok(())
    }

    /// What waits in a core.
    pub(super) fn pending(&self, core: u16) -> Checked {
        let caches = self.machine.caches();
        let theirs = self.reference.state().pending.get(&core);
        let (wc, weak) = theirs.map_or((&[][..], &[][..]), |p| (&p.wc, &p.weak));
        let ours: Vec<_> = caches.wc_buffers(core).map(|b| (b.at, b.mask)).collect();
        let model: Vec<_> = wc.iter().map(|b| (b.at, ByteMask(b.mask))).collect();
        let what = || format!("write-combining buffers of core {core}");
        same(what, &ours, &model)?;
        for (ours, theirs) in caches.wc_buffers(core).zip(wc) {
            same_masked(what, &ours.data, &theirs.data, ours.mask)?;
        }
        let ours: Vec<_> = caches.weak_ops(core).map(|w| (w.at, w.kind, w.mask)).collect();
        let model: Vec<_> = weak.iter().map(|w| (w.at, w.kind, ByteMask(w.mask))).collect();
        let what = || format!("weakly ordered operations of core {core}");
        same(what, &ours, &model)?;
        for (ours, theirs) in caches.weak_ops(core).zip(weak) {
            same_masked(what, &ours.data, &theirs.data, ours.mask)?;
        }
        Ok(())
    }
}

/// The packages with a copy.
pub(super) fn holders(cores: u128, llc: u8, spec: &Spec) -> BTreeSet<u8> {
    let of_cores = (0..spec.cores.min(128)).filter(|c| cores >> c & 1 != 0);
    let of_llcs = (0..8).filter(|p| llc >> p & 1 != 0);
    of_cores.map(|c| spec.package_of(c)).chain(of_llcs).collect()
}

fn same_bytes(what: impl FnOnce() -> String, machine: &LineData, reference: &Bytes) -> Checked {
    if reference.admits(machine) {
        return Ok(());
    }
    let (machine, reference) = (format!("{machine:?}"), format!("{reference:?}"));
    Err(Difference::State { what: what(), machine, reference })
}

/// Only the bytes that will be written count.
fn same_masked(
    what: impl FnOnce() -> String,
    machine: &LineData,
    reference: &Bytes,
    mask: ByteMask,
) -> Checked {
    let mut ours = LineData::ZERO;
    ours.merge(machine, mask);
    let mut theirs = Bytes::ZERO;
    theirs.merge(reference, mask);
    same_bytes(what, &ours, &theirs)
}
