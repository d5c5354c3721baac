//! Devices: they snoop by the full address, KeyID included, and allocate nothing (architecture.md §13 MC-13, §4.1 4.1.4).

use crate::hierarchy::Hierarchy;
use crate::stats::count;
use crate::transaction::Transaction;
use crate::weak::write_through;
use sim_core::event::Why;
use sim_core::port::{Fill, LinePort};
use sim_core::{ByteMask, LineData, Tagged};

impl Hierarchy {
    /// A device reads a line: a cached copy of the same (line, KeyID) supplies data and poison and stays as it is,
    /// else the controller does.
    pub fn dma_read<P: LinePort>(&mut self, at: Tagged, port: &mut P) -> Fill {
        count(&mut self.stats.dma_reads);
        self.stats.transaction(Transaction::PCIRdCur);
        match self.slab.find(at) {
            Some(slot) => {
                let line = self.slab.get(slot);
                Fill { data: *self.slab.data(slot), poison: line.poison, class: line.class }
            }
            None => port.read(at),
        }
    }

    /// A device writes the bytes in `mask`: copies of the same (line, KeyID) are invalidated (written back first unless
    /// the whole line is overwritten), then the controller is written, partially unless `mask` is full.
    pub fn dma_write<P: LinePort>(
        &mut self,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        port: &mut P,
    ) {
        if mask.is_empty() {
            return;
        }
        count(&mut self.stats.dma_writes);
        let whole = mask.is_full();
        self.stats.transaction(if whole {
            Transaction::IoItoM
        } else {
            Transaction::ItoMCacheNear
        });
        self.expel(at, Why::Dma, !mask.is_full(), port);
        write_through(at, data, mask, port);
    }
}
