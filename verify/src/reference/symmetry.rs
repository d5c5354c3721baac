//! Renamings under which nothing that can be seen changes: of the cores of a package, and of private KeyIDs together with
//! their keys.
//!
//! Cores of a package differ in nothing but their number (architecture.md §4.1: flushes reach the whole coherence domain or
//! the whole package). Private KeyIDs are one class to the controller (§2.1 2.1.2), and a random key is known by its identity only.

use super::{DramLine, Key, Place, Reference, State};
use arrayvec::ArrayVec;
use sim_core::event::BirthCause;
use sim_core::{BirthId, KeyId, Tagged};
use std::cmp::Ordering;

/// Cores that are sorted, at most.
const CORES: usize = 16;

impl Reference {
    /// Numbers the first `cores` cores anew, in the order of what they hold. States that differ only in the numbers of these
    /// cores become equal, unless births of the same cause on the same line tell them apart. For a platform of one
    /// package; with more than 16 cores nothing is done.
    pub fn sort_cores(&mut self, cores: u16) {
        let mut order: ArrayVec<u16, CORES> = ArrayVec::new();
        for core in 0..cores {
            if order.try_push(core).is_err() {
                return;
            }
        }
        let state = &self.state;
        order.sort_by(|a, b| compare_cores(state, *a, *b));
        if order.iter().copied().eq(0..cores) {
            return;
        }
        let renamed = |core: u16| {
            order.iter().position(|old| *old == core).map_or(core, |place| place as u16)
        };
        self.state.caches.rename(|(at, place)| match place {
            Place::Core(core) => (at, Place::Core(renamed(core))),
            Place::Llc(_) => (at, place),
        });
        self.state.pending.rename(renamed);
        self.forget_history();
    }

    /// Puts private KeyIDs, given in ascending order, in the order of what is theirs, with their keys: states that differ
    /// only in the names of these KeyIDs mostly become equal. Nothing is done where [`Reference::rename_keyids`] says so.
    pub fn sort_keyids(&mut self, keyids: &[KeyId]) {
        let mut order: ArrayVec<KeyId, CORES> = ArrayVec::new();
        for keyid in keyids {
            if order.try_push(*keyid).is_err() {
                return;
            }
        }
        order.sort_by(|a, b| compare_keyids(self, *a, *b));
        self.rename_keyids(&order, keyids);
    }

    /// Renames private KeyIDs, `from[i]` to `to[i]`, and their keys with them, so that every KeyID keeps its key. `to` must
    /// be `from` in another order. `false`, and nothing done, when it is the same order or not every one of them has a random key
    /// of its own in every package.
    pub fn rename_keyids(&mut self, from: &[KeyId], to: &[KeyId]) -> bool {
        if from == to {
            return false;
        }
        let mut keys: ArrayVec<(Key, Key), 64> = ArrayVec::new();
        for package in 0..self.spec.packages {
            for (old, new) in from.iter().zip(to) {
                let slot = |k: &KeyId| self.state.keys.get(&(package, *k)).copied();
                let (Some(old), Some(new)) = (slot(old), slot(new)) else { return false };
                let random = matches!((old.key, new.key), (Key::Random(_), Key::Random(_)));
                if !random || old.integrity != new.integrity {
                    return false;
                }
                if keys.iter().any(|(key, _)| *key == old.key) {
                    return false;
                }
                if keys.try_push((old.key, new.key)).is_err() {
                    return false;
                }
            }
        }
        let keyid = |k: KeyId| {
            let pair = from.iter().zip(to).find(|(old, _)| **old == k);
            pair.map_or(k, |(_, new)| *new)
        };
        let key = |k: Key| keys.iter().find(|(old, _)| *old == k).map_or(k, |(_, new)| *new);
        let tag = |at: Tagged| Tagged::new(at.line(), keyid(at.keyid()));
        let rename = |line: &mut DramLine| {
            if let Some(ct) = &mut line.ct {
                ct.key = key(ct.key);
            }
            line.writer = line.writer.map(|(k, of)| (keyid(k), key(of)));
        };
        let State { dram, caches, pending, saved, births, .. } = &mut self.state;
        dram.values_mut().chain(saved.values_mut()).for_each(rename);
        caches.rename(|(at, place)| (tag(at), place));
        for held in pending.values_mut() {
            held.wc.iter_mut().for_each(|b| b.at = tag(b.at));
            held.weak.iter_mut().for_each(|w| w.at = tag(w.at));
            held.stores.iter_mut().for_each(|s| s.at = tag(s.at));
        }
        births.values_mut().for_each(|b| b.at = tag(b.at));
        true
    }
}

/// By what the cores hold, poison by its birth certificate and not by its name.
fn compare_cores(state: &State, a: u16, b: u16) -> Ordering {
    let held = |core: u16| {
        let own = state.caches.iter().filter(move |((_, place), _)| *place == Place::Core(core));
        own.map(|((at, _), copy)| {
            let birth = copy.poison.and_then(|id| state.births.get(&id));
            let birth: Option<(Tagged, BirthCause)> = birth.map(|b| (b.at, b.cause));
            (*at, copy.state, copy.class, birth, copy.data)
        })
    };
    held(a).cmp(held(b)).then_with(|| state.pending.get(&a).cmp(&state.pending.get(&b)))
}

/// By what is under the KeyIDs: lines that they wrote and that their keys encrypted, and copies.
fn compare_keyids(model: &Reference, a: KeyId, b: KeyId) -> Ordering {
    let lines = |keyid: KeyId| {
        model.state.dram.iter().map(move |(at, line)| {
            let key = model.key(Tagged::new(*at, keyid)).key;
            let wrote = line.writer.is_some_and(|(k, _)| k == keyid);
            (wrote, line.ct.as_ref().is_some_and(|ct| ct.key == key))
        })
    };
    let saved = |keyid: KeyId| {
        model.state.saved.values().map(move |line| {
            let ct = line.ct.as_ref();
            ct.is_some_and(|ct| ct.key == model.key(Tagged::new(ct.line, keyid)).key)
        })
    };
    // By whom a birth's own KeyID is, where it is one of the two.
    let birth = |keyid: KeyId, poison: Option<BirthId>| {
        let found = poison.and_then(|id| model.state.births.get(&id));
        found.map(|b| (b.at.keyid() == keyid, b.cause))
    };
    let poisons = |keyid: KeyId| model.state.dram.values().map(move |l| birth(keyid, l.poison));
    let copies = |keyid: KeyId| {
        let all = model.state.caches.iter().filter(move |((at, _), _)| at.keyid() == keyid);
        all.map(move |((at, _), copy)| {
            (at.line(), copy.state, copy.class, birth(keyid, copy.poison), copy.data)
        })
    };
    let foreign = |keyid: KeyId| {
        let all =
            model.state.caches.iter().filter(|((at, _), _)| !(at.keyid() == a || at.keyid() == b));
        all.map(move |(_, copy)| birth(keyid, copy.poison))
    };
    lines(a)
        .cmp(lines(b))
        .then_with(|| saved(a).cmp(saved(b)))
        .then_with(|| copies(a).cmp(copies(b)))
        .then_with(|| poisons(a).cmp(poisons(b)))
        .then_with(|| foreign(a).cmp(foreign(b)))
}
