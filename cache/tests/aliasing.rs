//! The canonical aliasing scenarios of architecture.md §4.3, with a controller of its own (Li, KeyID 32 up private).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

mod common;

use cache::FenceKind;
use common::*;
use sim_core::event::BirthCause;
use sim_core::outcome::DataClass;
use sim_core::{ByteMask, Ps};

/// The host's and the TD's core, the line under KeyID 0 and under the TD's.
const HOST: u16 = 0;
const TD: u16 = 2;
const K0: sim_core::Tagged = at(5, 0);
const H: sim_core::Tagged = at(5, 33);

struct Scene {
    h: cache::Hierarchy,
    m: Memory,
}

impl Scene {
    fn new() -> Scene {
        Scene { h: build(&roomy()), m: Memory::new(false) }
    }
    fn store(&mut self, core: u16, tag: sim_core::Tagged, byte: u8, mask: ByteMask) {
        self.h.store(core, tag, &fill(byte), mask, &mut self.m);
    }
    fn load(&mut self, core: u16, tag: sim_core::Tagged) -> cache::CachedLine {
        let slot = self.h.load(core, tag, &mut self.m).slot;
        self.h.line(slot)
    }
    fn movdir64b(&mut self, core: u16, tag: sim_core::Tagged, byte: u8) {
        self.h.movdir64b(core, tag, &fill(byte), Ps::ZERO, &mut self.m);
        self.h.fence(core, FenceKind::Mfence, &mut self.m);
    }
    fn evict(&mut self, tag: sim_core::Tagged) {
        assert!(self.h.evict(tag, &mut self.m), "{tag} was not cached");
    }
    fn birth_causes(&self) -> Vec<BirthCause> {
        self.m.trace.births().iter().map(|b| b.cause).collect()
    }
    fn check(&self) {
        self.h.check_invariants().unwrap();
        assert_eq!(self.m.trace.poison_locations(), poison_places(&self.h, &self.m));
    }
}

#[test]
fn al_1_a_forgotten_dirty_host_line_written_back_later_makes_the_td_read_poison() {
    let mut s = Scene::new();
    s.store(HOST, K0, 1, ByteMask::FULL);
    s.movdir64b(TD, H, 2);
    assert!(s.m.line(K0.line()).td);
    s.evict(K0);
    assert!(!s.m.line(K0.line()).td);
    let line = s.load(TD, H);
    assert!(line.poison.is_some() && line.data.is_zero());
    assert_eq!(s.birth_causes(), [BirthCause::TdMismatch]);
    s.check();
}

#[test]
fn al_2_a_dirty_td_copy_repairs_the_line_that_a_host_write_back_clobbered() {
    let mut s = Scene::new();
    s.store(HOST, K0, 1, ByteMask::FULL);
    s.movdir64b(TD, H, 2);
    s.store(TD, H, 3, first(8));
    s.evict(K0);
    assert!(!s.m.line(K0.line()).td);
    let mut want = fill(2);
    want.merge(&fill(3), first(8));
    assert_eq!(s.load(TD, H).data, want);
    s.evict(H);
    assert!(s.m.line(K0.line()).td);
    assert_eq!((s.load(TD, H).data, s.load(TD, H).poison), (want, None));
    assert_eq!(s.birth_causes(), []);
    s.check();
}

#[test]
fn al_2_a_clean_td_copy_hides_the_damage_until_it_is_dropped() {
    let mut s = Scene::new();
    s.store(HOST, K0, 1, ByteMask::FULL);
    s.movdir64b(TD, H, 2);
    assert_eq!(s.load(TD, H).data, fill(2));
    s.evict(K0);
    assert_eq!((s.load(TD, H).data, s.load(TD, H).poison), (fill(2), None));
    s.evict(H);
    assert!(s.load(TD, H).poison.is_some());
    assert_eq!(s.birth_causes(), [BirthCause::TdMismatch]);
    s.check();
}

#[test]
fn al_3_a_dirty_private_line_written_back_after_reuse_loses_host_data_silently() {
    let mut s = Scene::new();
    s.movdir64b(TD, H, 2);
    s.store(TD, H, 3, ByteMask::FULL);
    s.movdir64b(HOST, K0, 0);
    s.store(HOST, K0, 7, ByteMask::FULL);
    s.h.clflush(HOST, K0, &mut s.m);
    assert_eq!(s.m.line(K0.line()).data, fill(7));
    s.evict(H);
    let line = s.load(HOST, K0);
    assert!(line.data.is_zero());
    assert_eq!((line.poison, line.class), (None, DataClass::Blocked));
    assert_eq!(s.birth_causes(), []);
    s.check();
}

#[test]
fn al_4_a_host_read_of_a_private_line_caches_zeros_and_harms_nobody() {
    let mut s = Scene::new();
    s.movdir64b(TD, H, 2);
    let before = s.m.line(K0.line());
    assert!(s.load(HOST, K0).data.is_zero());
    s.evict(K0);
    assert_eq!(s.m.line(K0.line()), before);
    assert_eq!((s.load(TD, H).data, s.load(TD, H).poison), (fill(2), None));
    s.check();
}

#[test]
fn al_5_a_host_store_into_the_cached_zeros_takes_the_line_away_from_the_td() {
    let mut s = Scene::new();
    s.movdir64b(TD, H, 2);
    s.store(HOST, K0, 9, first(8));
    s.evict(K0);
    let mut want = fill(0);
    want.merge(&fill(9), first(8));
    assert_eq!((s.m.line(K0.line()).data, s.m.line(K0.line()).td), (want, false));
    assert!(s.load(TD, H).poison.is_some());
    s.check();
}

#[test]
fn al_6_a_stale_clean_copy_of_a_dead_td_is_gone_before_the_next_td_of_its_keyid_reads() {
    let mut s = Scene::new();
    s.movdir64b(TD, H, 2);
    s.store(TD, H, 3, ByteMask::FULL);
    for block in 0..s.h.sub_blocks() {
        s.h.wbnoinvdp(s.h.package_of(TD), block, &mut s.m).unwrap();
    }
    let stale = s.h.inspect(H).unwrap();
    assert_eq!((stale.data, stale.dirty), (fill(3), false));
    // The KeyID is used again, for another TD whose page is added with MOVDIR64B, here from the other package.
    s.movdir64b(HOST, H, 4);
    assert_eq!(s.h.inspect(H), None);
    assert_eq!(s.load(TD, H).data, fill(4));
    s.check();
}

#[test]
fn al_7_of_two_dirty_aliases_the_last_written_back_wins() {
    for host_last in [false, true] {
        let mut s = Scene::new();
        s.store(HOST, K0, 1, ByteMask::FULL);
        s.h.store_line_no_rfo(TD, H, &fill(2), &mut s.m);
        assert!(s.h.inspect(K0).unwrap().dirty && s.h.inspect(H).unwrap().dirty);
        let order = if host_last { [H, K0] } else { [K0, H] };
        order.into_iter().for_each(|tag| s.evict(tag));
        let line = s.m.line(K0.line());
        assert_eq!(line.td, !host_last);
        assert_eq!(line.data, fill(if host_last { 1 } else { 2 }));
        s.check();
    }
}
