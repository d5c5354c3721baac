//! Machine checks: what the consumption of poison does (architecture.md §6.2, §6.3).

use crate::Machine;
use crate::agent::{AgentId, AgentKind, Consumed};
use crate::journal::Mark;
use sim_core::event::EventKind;
use sim_core::mca::{
    MCACOD_DATA_LOAD, MCACOD_FETCH, McAccess, McConsequence, McContext, McMisc, McRecord, McStatus,
    McgStatus,
};
use sim_core::planted::Fault;
use sim_core::port::McHandler;
use sim_core::{Addr, Outcome};
use tdx_module::VmExit;

/// MCi_MISC of a recoverable error in a line of 64 bytes. Assumed: the sheets give no MISC value for these errors.
const MISC_PHYSICAL_LINE: McMisc = McMisc::pack(McMisc::PHYSICAL, 6);

impl Machine {
    /// A retired load or fetch of `agent` consumed poison.
    pub(crate) fn consume<H: McHandler>(
        &mut self,
        agent: AgentId,
        consumed: Consumed,
        os: &mut H,
    ) -> Outcome {
        let Consumed { birth, at, access, fatal } = consumed;
        let Some(spec) = self.agents.get(usize::from(agent.0)).map(|a| &a.spec) else {
            return Outcome::Done;
        };
        let (core, kind) = (spec.core, spec.kind);
        // The module's own accesses are its own, whoever called it.
        let in_module = self.is_in_module(core);
        let (mce, planted) = (&self.spec.mce, self.spec.planted);
        let msmi = mce.emca2;
        let context = match kind {
            _ if in_module => McContext::SeamRoot,
            AgentKind::User => McContext::User,
            AgentKind::Seam => McContext::SeamRoot,
            AgentKind::Td | AgentKind::Guest => McContext::SeamNonRoot,
            AgentKind::Kernel | AgentKind::Device | AgentKind::Hardware => McContext::Kernel,
        };
        let (bank, mcacod) = match access {
            McAccess::DataLoad => (mce.bank_dcu, MCACOD_DATA_LOAD),
            McAccess::Fetch => (mce.bank_ifu, MCACOD_FETCH),
        };
        let mut mcg = McgStatus::RIPV | McgStatus::EIPV | McgStatus::MCIP;
        let lmce = mce.lmce && !planted.is(Fault::LmceBroadcast);
        if lmce {
            mcg |= McgStatus::LMCES;
        }
        let told = mce.seam_nr && !planted.is(Fault::SeamNrForgotten);
        if context == McContext::SeamNonRoot && told {
            mcg |= McgStatus::SEAM_NR;
        }
        let line = Addr::new(at.hpa.line().hpa(), at.keyid);
        let other = u16::from(planted.is(Fault::OtherMscod));
        let mscod = mce.mscod_core ^ other;
        let record = McRecord {
            core,
            bank,
            status: McStatus::srar(mscod, mcacod),
            addr: self.spec.keyid.join(line),
            misc: MISC_PHYSICAL_LINE.0,
            mcg: McgStatus(mcg),
            access,
            context,
            at: line,
            birth,
        };
        let cause = self.trace.emit_cause(EventKind::MachineCheck(record));
        self.counts.machine_checks += 1;
        let consequence = match context {
            // Any machine check inside the module, and one that the core cannot go on from: this processor stops and TDX
            // is gone until a platform reset.
            McContext::SeamRoot => self.unbreakable_shutdown(core),
            McContext::SeamNonRoot if fatal => self.unbreakable_shutdown(core),
            McContext::SeamNonRoot => {
                if kind == AgentKind::Guest {
                    let exit = if msmi { VmExit::Smi { msmi } } else { VmExit::MachineCheck };
                    self.guest_leaves(core, exit);
                } else {
                    self.kill(agent);
                }
                match self.seam_mut(core).filter(|_| msmi && kind == AgentKind::Guest) {
                    // The SMI stays pending until SEAMRET; SMM injects the #MC into the host on RSM (architecture.md §6.3
                    // row 2).
                    Some(seam) => {
                        seam.msmi = Some(record);
                        McConsequence::TdFatal
                    }
                    None => match os.machine_check(&record) {
                        McConsequence::Panic => McConsequence::Panic,
                        _ => McConsequence::TdFatal,
                    },
                }
            }
            McContext::Kernel | McContext::User => os.machine_check(&record),
        };
        if !lmce {
            // Broadcast: the module does not look at banks, so every TD that was running dies (architecture.md §6.3).
            for other in &mut self.agents {
                other.dead |= other.spec.kind == AgentKind::Td;
            }
            let exit = if msmi { VmExit::Smi { msmi } } else { VmExit::MachineCheck };
            for other in (0..self.spec.cpu.cores).filter(|other| *other != core) {
                if self.is_in_module(other) {
                    // Any machine check inside the module.
                    self.unbreakable_shutdown(other);
                } else {
                    self.guest_leaves(other, exit);
                }
            }
        }
        match consequence {
            McConsequence::Panic => self.panicked = true,
            McConsequence::Sigbus => self.kill(agent),
            McConsequence::Survived | McConsequence::TdFatal | McConsequence::Shutdown => {}
        }
        self.trace.emit(EventKind::Consequence(consequence));
        // A machine check drains the write-combining buffers of every core that takes it (architecture.md §13 MC-28).
        let cores = if lmce { core..core + 1 } else { 0..self.spec.cpu.cores };
        self.traffic.clear();
        for core in cores {
            self.drain_core(core);
        }
        self.trace.cause = cause;
        Outcome::MachineCheck { record, consequence }
    }

    /// The host is back from SEAM: it takes the machine check that an MSMI stood for.
    pub(crate) fn take_msmi<H: McHandler>(&mut self, core: u16, os: &mut H) {
        let Some(record) = self.seam_mut(core).and_then(|seam| seam.msmi.take()) else { return };
        let consequence = os.machine_check(&record);
        self.panicked |= consequence == McConsequence::Panic;
        self.trace.emit(EventKind::Consequence(consequence));
    }

    /// Unbreakable shutdown of a logical processor, and the end of TDX (architecture.md §6.3).
    pub(crate) fn unbreakable_shutdown(&mut self, core: u16) -> McConsequence {
        if !self.spec.planted.is(Fault::DisableForgotten) {
            if !self.tdx_disabled {
                self.trace.emit(EventKind::TdxDisabled { core });
            }
            self.tdx_disabled = true;
            self.module.disable();
        }
        self.mark(|m| Mark::Gone { core, module: Box::new(m.module.clone()) });
        if let Some(lp) = self.lps.get_mut(usize::from(core)) {
            lp.shutdown = true;
            (lp.seam.guest, lp.seam.asking, lp.seam.inside) = (None, false, None);
            // A host whose call was under way here never gets it back.
            if let Some(host) = lp.seam.host.take() {
                self.resumed.push(host);
            }
        }
        McConsequence::Shutdown
    }

    fn kill(&mut self, agent: AgentId) {
        if let Some(agent) = self.agents.get_mut(usize::from(agent.0)) {
            agent.dead = true;
        }
    }
}
