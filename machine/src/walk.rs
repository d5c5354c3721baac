//! Page walks of a guest: its own tables, if it has set CR3, and the Secure-EPT or the VMM's EPT below them.
//!
//! A walk is plain data that asks for one 8-byte read after the other; whoever runs it reads through the caches. What an
//! entry says is what the read returns, not what the module believes (architecture.md §2.5, §7.6).

use crate::tlb::Translation;
use serde::{Deserialize, Serialize};
use sim_core::keyid::KeyIdLayout;
use sim_core::{Addr, Hpa, KeyId, Page};
use tdx_module::sept::Entry;
use tdx_module::{GuestEntry, VmExit};

/// Bits 2:0 of the exit qualification of an EPT violation.
pub(crate) mod access {
    /// A data read.
    pub(crate) const READ: u8 = 1;
    /// A data write.
    pub(crate) const WRITE: u8 = 2;
    /// An instruction fetch.
    pub(crate) const FETCH: u8 = 4;
}

/// Guest page-table bits.
const P: u64 = 1;
const RW: u64 = 1 << 1;
const PS: u64 = 1 << 7;
const XD: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// What a walk wants or has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Read 8 bytes there and come back.
    Read(Addr),
    /// The page is there.
    Found(Translation),
    /// The guest leaves.
    Exit(VmExit),
    /// #PF by the guest's own tables.
    PageFault,
    /// #PF with RSVD: a SHARED bit in a pointer of the guest's tables, or a fetch from a shared address.
    Reserved,
}

/// A walk under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Walk {
    linear: u64,
    access: u8,
    /// The guest's own tables: level of the entry that is being sought, 0 when the final address is.
    guest_level: u8,
    /// Rights of the guest's tables so far.
    write: bool,
    execute: bool,
    /// The guest-physical address that is being translated now.
    gpa: u64,
    /// Level of the EPT entry that is read next, counted from 1.
    ept_level: u8,
    ept_table: u64,
    ept_key: KeyId,
    /// Whether the EPT walk of `gpa` is over and the guest's entry itself is being read.
    reading_entry: bool,
    /// Root of the VMM's EPT, with the shared KeyID that its address carries; `None` where there is none.
    shared_root: Option<Addr>,
}

/// An EPT leaf in parts.
struct Leaf {
    page: Page,
    keyid: KeyId,
    write: bool,
    execute: bool,
}

impl Walk {
    /// A walk for one access to a guest-linear address.
    pub(crate) fn new(
        g: &GuestEntry,
        layout: &KeyIdLayout,
        cr3: Option<u64>,
        linear: u64,
        access: u8,
    ) -> Walk {
        // TDH.VP.WR lets no root under a private KeyID in.
        let shared_root =
            if g.shared_eptp == 0 { None } else { layout.split(g.shared_eptp & FRAME) };
        let (write, execute) = (true, true);
        let mut walk = Walk { linear, access, write, execute, shared_root, ..Walk::default() };
        match cr3 {
            None => walk.seek(g, linear),
            Some(cr3) => {
                walk.guest_level = 4;
                walk.seek_guest_entry(g, cr3 & FRAME);
            }
        }
        walk
    }

    /// The guest-linear address that is being translated.
    pub(crate) const fn linear(&self) -> u64 {
        self.linear
    }

    const fn shared_bit(g: &GuestEntry) -> u64 {
        1 << (g.gpaw - 1)
    }

    /// Begins the EPT walk of a guest-physical address.
    fn seek(&mut self, g: &GuestEntry, gpa: u64) {
        self.gpa = gpa;
        self.reading_entry = false;
        if gpa & Self::shared_bit(g) == 0 {
            (self.ept_level, self.ept_table, self.ept_key) = (g.levels, g.root.hpa().0, g.hkid);
        } else if let Some(root) = self.shared_root {
            // EPTP: levels less one in bits 5:3, the root above. The VMM's tables are its own memory.
            self.ept_level = (g.shared_eptp >> 3 & 7) as u8 + 1;
            (self.ept_table, self.ept_key) = (root.hpa.0, root.keyid);
        }
    }
    fn seek_guest_entry(&mut self, g: &GuestEntry, table: u64) {
        let index = self.linear >> (3 + 9 * u64::from(self.guest_level)) & 511;
        self.seek(g, table + 8 * index);
    }

    fn violation(&self) -> Need {
        // A read of the guest's tables is a read, whatever the access that needed it.
        let access = if self.guest_level > 0 { access::READ } else { self.access };
        Need::Exit(VmExit::EptViolation { gpa: self.gpa, access })
    }

    /// What is needed first.
    pub(crate) fn start(&mut self, g: &GuestEntry) -> Need {
        let shared = self.gpa & Self::shared_bit(g) != 0;
        if shared && self.guest_level > 0 {
            return Need::Reserved;
        }
        if shared && self.access == access::FETCH {
            return Need::Reserved;
        }
        if self.gpa >> g.gpaw != 0 || shared && self.shared_root.is_none() {
            return self.violation();
        }
        self.read_ept()
    }

    fn read_ept(&self) -> Need {
        let shift = 3 + 9 * u64::from(self.ept_level);
        // Above the SHARED bit there is nothing: the index takes what the levels have.
        let index = self.gpa >> shift & 511;
        Need::Read(Addr::new(Hpa(self.ept_table + 8 * index), self.ept_key))
    }

    /// Goes on with what a read returned.
    pub(crate) fn take(&mut self, g: &GuestEntry, layout: &KeyIdLayout, word: u64) -> Need {
        if self.reading_entry {
            return self.take_guest_entry(g, word);
        }
        let shared = self.gpa & Self::shared_bit(g) != 0;
        let leaf =
            if shared { self.take_shared(layout, word) } else { self.take_secure(g, layout, word) };
        match leaf {
            Err(need) => need,
            Ok(leaf) if self.guest_level > 0 => {
                // Where the guest's entry lies is known: read it under the key of its page.
                self.reading_entry = true;
                let hpa = leaf.page.hpa().0 + (self.gpa & 4095);
                Need::Read(Addr::new(Hpa(hpa), leaf.keyid))
            }
            Ok(leaf) => {
                let (write, execute) = (leaf.write && self.write, leaf.execute && self.execute);
                let refused = match self.access {
                    access::WRITE => !leaf.write,
                    access::FETCH => !leaf.execute,
                    _ => false,
                };
                if refused {
                    return self.violation();
                }
                let (page, keyid) = (leaf.page, leaf.keyid);
                Need::Found(Translation { page, keyid, write, execute, shared })
            }
        }
    }

    /// One entry of the Secure-EPT. A misconfigured one, and an address that already carries KeyID bits (the processor adds
    /// the TD's, architecture.md §2.5), are an EPT misconfiguration.
    fn take_secure(
        &mut self,
        g: &GuestEntry,
        layout: &KeyIdLayout,
        word: u64,
    ) -> Result<Leaf, Need> {
        let entry = Entry(word);
        let level = self.ept_level - 1;
        if word & Entry::RWX == 0 {
            return Err(self.violation());
        }
        if word & Entry::RWX == Entry::W || entry.hpa().0 >> layout.address_bits() != 0 {
            return Err(Need::Exit(VmExit::EptMisconfiguration { gpa: self.gpa }));
        }
        if level > 0 && !entry.is_leaf() {
            self.ept_table = entry.hpa().0;
            self.ept_level = level;
            return Err(self.read_ept());
        }
        let mask = (1u64 << (12 + 9 * u64::from(level))) - 1;
        let hpa = entry.hpa().0 & !mask | self.gpa & mask;
        Ok(Leaf {
            page: Hpa(hpa).page(),
            keyid: g.hkid,
            write: word & Entry::W != 0,
            execute: word & Entry::X != 0,
        })
    }

    /// One entry of the VMM's EPT: its address carries the KeyID.
    fn take_shared(&mut self, layout: &KeyIdLayout, word: u64) -> Result<Leaf, Need> {
        let level = self.ept_level - 1;
        if word & Entry::RWX == 0 {
            return Err(self.violation());
        }
        let misconfigured = Need::Exit(VmExit::EptMisconfiguration { gpa: self.gpa });
        let Some(at) = layout.split(word & FRAME) else { return Err(misconfigured) };
        // Writable but not readable, and a page at a level that has none, are misconfigurations as well.
        let malformed = word & (Entry::R | Entry::W) == Entry::W || level > 2 && word & PS != 0;
        if layout.is_private(at.keyid) || malformed {
            return Err(misconfigured);
        }
        if level > 0 && word & PS == 0 {
            (self.ept_table, self.ept_key) = (at.hpa.0, at.keyid);
            self.ept_level = level;
            return Err(self.read_ept());
        }
        let mask = (1u64 << (12 + 9 * u64::from(level))) - 1;
        let hpa = at.hpa.0 & !mask | self.gpa & mask;
        Ok(Leaf {
            page: Hpa(hpa).page(),
            keyid: at.keyid,
            write: word & Entry::W != 0,
            execute: word & Entry::X != 0,
        })
    }

    /// One entry of the guest's own tables.
    fn take_guest_entry(&mut self, g: &GuestEntry, word: u64) -> Need {
        if word & P == 0 {
            return Need::PageFault;
        }
        if self.guest_level == 4 && word & PS != 0 {
            // There is no page of 512 GiB: the bit is reserved.
            return Need::Reserved;
        }
        self.write &= word & RW != 0;
        self.execute &= word & XD == 0;
        if self.access == access::WRITE && !self.write
            || self.access == access::FETCH && !self.execute
        {
            return Need::PageFault;
        }
        let level = self.guest_level - 1;
        let leaf = level == 0 || word & PS != 0;
        let frame = word & FRAME;
        if leaf {
            let mask = (1u64 << (12 + 9 * u64::from(level))) - 1;
            self.guest_level = 0;
            self.seek(g, frame & !mask | self.linear & mask);
        } else {
            self.guest_level = level;
            self.seek_guest_entry(g, frame);
        }
        self.start(g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_module::Inject;

    const LAYOUT: KeyIdLayout = KeyIdLayout {
        maxpa: 46,
        keyid_bits: 6,
        private_bits: 1,
        mktme_kids: 31,
        tdx_priv_kids: 32,
    };

    fn guest(levels: u8) -> GuestEntry {
        GuestEntry {
            tdr: Page(1),
            tdvpr: Page(2),
            hkid: KeyId(33),
            root: Page(3),
            levels,
            gpaw: 48,
            shared_eptp: 0,
            inject: Inject::Nothing,
        }
    }

    /// What the first entry that is read leads to.
    fn first(word: u64) -> Need {
        let g = guest(4);
        let mut walk = Walk::new(&g, &LAYOUT, None, 0x1234_5678, access::READ);
        assert_eq!(walk.start(&g), Need::Read(Addr::new(Hpa(0x3000), KeyId(33))));
        walk.take(&g, &LAYOUT, word)
    }

    #[test]
    fn an_entry_of_the_secure_ept_that_carries_keyid_bits_is_misconfigured() {
        // architecture.md §2.5: the processor adds the TD's HKID to what the entry says.
        assert_eq!(first(0x5000 | 7), Need::Read(Addr::new(Hpa(0x5000), KeyId(33))));
        let misconfigured = Need::Exit(VmExit::EptMisconfiguration { gpa: 0x1234_5678 });
        for bit in LAYOUT.address_bits()..52 {
            assert_eq!(first(1 << bit | 0x5000 | 7), misconfigured, "bit {bit}");
        }
        assert_eq!(first(0x5000 | 2), misconfigured);
    }

    #[test]
    fn a_leaf_of_every_size_adds_the_rest_of_the_address() {
        let g = guest(4);
        let gpa = 0x1_2345_6789;
        for level in 0..3u8 {
            let mut walk = Walk::new(&g, &LAYOUT, None, gpa, access::WRITE);
            let mut need = walk.start(&g);
            for _ in 0..3 - level {
                assert!(matches!(need, Need::Read(_)), "{need:?}");
                need = walk.take(&g, &LAYOUT, 0x5000 | 7);
            }
            let base = 0xc_0000_0000u64;
            need = walk.take(&g, &LAYOUT, base | 0x80 | 7);
            let rest = gpa & ((1 << (12 + 9 * u64::from(level))) - 1);
            let Need::Found(found) = need else { panic!("{need:?}") };
            assert_eq!((found.page, found.keyid), (Hpa(base | rest).page(), KeyId(33)));
        }
    }

    #[test]
    fn an_access_that_the_entry_does_not_allow_is_a_violation_that_says_which() {
        let g = guest(4);
        for (access, rights, allowed) in
            [(access::READ, 1, true), (access::WRITE, 5, false), (access::FETCH, 3, false)]
        {
            let mut walk = Walk::new(&g, &LAYOUT, None, 0, access);
            walk.start(&g);
            for _ in 0..3 {
                walk.take(&g, &LAYOUT, 0x5000 | 7);
            }
            let need = walk.take(&g, &LAYOUT, 0x7000 | 0x80 | rights);
            let violation = Need::Exit(VmExit::EptViolation { gpa: 0, access });
            assert_eq!(need != violation, allowed, "{need:?}");
        }
    }
}
