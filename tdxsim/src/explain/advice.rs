//! What usually makes the module return a status, and what to do about it.

use sim_core::tdx::Status;

/// A row of [`ADVICE`].
pub(super) struct AdviceRow {
    /// With a low half of zero, but for software's own values.
    pub(super) status: Status,
    /// The usual cause.
    pub(super) cause: &'static str,
    /// What to do.
    pub(super) remedy: &'static str,
    /// Source.
    pub(super) cite: &'static str,
}

const fn a(
    status: Status,
    cause: &'static str,
    remedy: &'static str,
    cite: &'static str,
) -> AdviceRow {
    AdviceRow { status, cause, remedy, cite }
}

/// One row for each status of architecture.md §7.3, in its order, then software's own values.
#[rustfmt::skip]
pub(super) const ADVICE: &[AdviceRow] = &[
    a(Status::SUCCESS, "the leaf did what was asked, or the TD left for the reason given", "for TDH.VP.ENTER handle the exit; otherwise nothing", "architecture.md §7.9"),
    a(Status::NON_RECOVERABLE_VCPU, "the VCPU cannot be entered again, for example after a triple fault", "stop the VCPU; tear the TD down", "architecture.md §7.9"),
    a(Status::NON_RECOVERABLE_TD, "the TD was left in a way it cannot be entered again", "tear the TD down", "architecture.md §7.9"),
    a(Status::INTERRUPTED_RESUMABLE, "an interrupt was pending on this LP", "call again; TDH.PHYMEM.CACHE.WB with RCX = 1", "architecture.md §7.11"),
    a(Status::INTERRUPTED_RESTARTABLE, "an interrupt was pending on this LP; nothing was committed", "call again with the same operands; the offered page is already overwritten", "architecture.md §7.11"),
    a(Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE, "a machine check in the TD: it read a poisoned line. Often a host write to its private memory", "look for the #MC in the log; tear the TD down (VP.FLUSH, VPFLUSHDONE, CACHE.WB, KEY.FREEID, RECLAIM work); clear its pages with MOVDIR64B", "architecture.md §6.3"),
    a(Status::NON_RECOVERABLE_TD_WRONG_APIC_MODE, "an APIC mode that TDX does not allow; the sources give only the name", "tear the TD down; check the host's APIC mode", "architecture.md §7.3"),
    a(Status::CROSS_TD_FAULT, "another TD stood in the way; the sources give only the name", "retry later", "architecture.md §7.3"),
    a(Status::CROSS_TD_TRAP, "another TD stood in the way; the sources give only the name", "retry later", "architecture.md §7.3"),
    a(Status::NON_RECOVERABLE_TD_CORRUPTED_MD, "the TD's metadata cannot be trusted", "tear the TD down", "architecture.md §7.3"),
    a(Status::OPERAND_INVALID, "a value, an alignment, a reserved bit, a KeyID in an address, or a leaf that this module does not have", "correct the operand named above; check the module version", "architecture.md §7.7"),
    a(Status::OPERAND_ADDR_RANGE_ERROR, "the page is in no TDMR, or TDH.SYS.TDMR.INIT has not reached its GiB", "use TDX memory; finish TDMR.INIT", "architecture.md §7.7"),
    a(Status::OPERAND_BUSY, "another LP holds the lock; all locks are try-once", "retry; if it persists find who runs concurrently (VP.ENTER holds TDR and TDVPR shared all the time)", "architecture.md §7.2"),
    a(Status::PREVIOUS_TLB_EPOCH_BUSY, "a VCPU that was entered before the last TDH.MEM.TRACK has not left", "kick the TD's VCPUs out (IPI), then retry once", "architecture.md §7.8"),
    a(Status::SYS_BUSY, "another LP is in a leaf that needs the whole module", "retry", "architecture.md §7.9"),
    a(Status::RND_NO_ENTROPY, "RDRAND or RDSEED had nothing", "retry (Linux does, 10 times); the offered page may be overwritten already", "architecture.md §7.10 7.10.1"),
    a(Status::OPERAND_BUSY_HOST_PRIORITY, "the host asked for the lock first", "the TDCALL dispatcher turns it into OPERAND_BUSY; retry", "architecture.md §7.2"),
    a(Status::HOST_PRIORITY_BUSY_TIMEOUT, "the guest retried longer than HP_LOCK_TIMEOUT against locks kept for the host", "let the host finish its operation on that page, then enter again", "architecture.md §7.2"),
    a(Status::PAGE_METADATA_INCORRECT, "the page is not what the leaf takes: not free when it must be free, not the TDR it should be, reclaimed twice, or mapped at another size", "ask TDH.PHYMEM.PAGE.RDMD for its type and owner; look for a double reclaim or a page given away twice", "architecture.md §7.7"),
    a(Status::PAGE_NOT_FREE, "the page is in use", "ask TDH.PHYMEM.PAGE.RDMD for its owner", "architecture.md §7.4"),
    a(Status::TD_ASSOCIATED_PAGES_EXIST, "the TDR was reclaimed before the TD's other pages", "reclaim every other page first, the TDR last", "architecture.md §7.5"),
    a(Status::SYS_INIT_NOT_PENDING, "TDH.SYS.INIT was called twice, or the module ran before a kexec", "nothing if the module is ready; after a kexec it cannot be initialised again", "architecture.md §7.1"),
    a(Status::SYS_LP_INIT_NOT_DONE, "the LP came online later", "call TDH.SYS.LP.INIT on it", "architecture.md §7.9"),
    a(Status::SYS_LP_INIT_DONE, "TDH.SYS.LP.INIT was called twice on the LP", "nothing", "architecture.md §7.9"),
    a(Status::SYS_NOT_READY, "the initialisation sequence has not ended", "finish SYS.CONFIG, KEY.CONFIG on every package", "architecture.md §7.1"),
    a(Status::SYS_SHUTDOWN, "TDH.SYS.SHUTDOWN was called", "load the new module, then TDH.SYS.UPDATE", "architecture.md §7.1"),
    a(Status::SYS_KEY_CONFIG_NOT_PENDING, "called before TDH.SYS.CONFIG, or after the last package", "keep the order of initialisation", "architecture.md §7.1"),
    a(Status::SYS_STATE_INCORRECT, "the leaf is for another state of the module", "keep the order of initialisation", "architecture.md §7.1"),
    a(Status::SYS_INVALID_HANDOFF, "the old module's data is missing or of a version that the new one cannot read", "load a compatible module", "architecture.md §7.9"),
    a(Status::SYS_LP_INIT_NOT_PENDING, "TDH.SYS.INIT has not run, or initialisation went past this step", "keep the order of initialisation", "architecture.md §7.9"),
    a(Status::SYS_CONFIG_NOT_PENDING, "an LP (also an offline one) has not done TDH.SYS.LP.INIT", "bring every LP online and initialise it, then retry", "architecture.md §7.9"),
    a(Status::INCOMPATIBLE_SEAM_CAPABILITIES, "module and processor do not fit", "update module or microcode", "architecture.md §7.3"),
    a(Status::TD_FATAL, "a machine check made the TD fatal earlier", "tear the TD down; the teardown leaves do not test this", "architecture.md §6.3"),
    a(Status::TD_NON_DEBUG, "memory of a production TD cannot be read or written", "use a debug TD", "architecture.md §7.9"),
    a(Status::TDCS_NOT_ALLOCATED, "fewer than 6 TDH.MNG.ADDCX were done", "add the missing pages", "architecture.md §7.7"),
    a(Status::LIFECYCLE_STATE_INCORRECT, "a step of the TD's life cycle is missing or done twice", "order: CREATE, KEY.CONFIG, …, VPFLUSHDONE, CACHE.WB, KEY.FREEID, RECLAIM", "architecture.md §7.5"),
    a(Status::OP_STATE_INCORRECT, "the leaf is not allowed in the TD's OP_STATE, for example PAGE.ADD after MR.FINALIZE", "compare with the table of OP_STATEs", "architecture.md §7.5"),
    a(Status::NO_VCPUS, "TDH.MR.FINALIZE came before any VCPU", "create a VCPU first", "architecture.md §7.9"),
    a(Status::TDCX_NUM_INCORRECT, "a control page too many or too few (TDCS 6 to 9, TDVPS 6 to 15)", "count the ADDCX calls", "architecture.md §7.5"),
    a(Status::VCPU_STATE_INCORRECT, "the VCPU is not initialised, or is already", "check the order VP.CREATE, VP.ADDCX, VP.INIT", "architecture.md §7.9"),
    a(Status::VCPU_ASSOCIATED, "the VCPU last ran on another LP", "call TDH.VP.FLUSH there, then retry here", "architecture.md §7.9"),
    a(Status::VCPU_NOT_ASSOCIATED, "the VCPU is not on this LP", "harmless in a teardown; otherwise flush on the right LP", "architecture.md §7.9"),
    a(Status::MAX_VCPUS_EXCEEDED, "TD_PARAMS allow no more VCPUs", "raise MAX_VCPUS when the TD is made", "architecture.md §7.9"),
    a(Status::TSC_ROLLBACK, "the TSC was written, or differs between LPs", "synchronise the TSCs", "architecture.md §7.9"),
    a(Status::KEY_GENERATION_FAILED, "PCONFIG found no entropy", "retry", "architecture.md §7.9"),
    a(Status::TD_KEYS_NOT_CONFIGURED, "TDH.MNG.KEY.CONFIG did not run on every package, or the TD is being torn down", "configure the key, or stop using the TD", "architecture.md §7.7"),
    a(Status::KEY_STATE_INCORRECT, "the key is in another state", "keep the order of the life cycle", "architecture.md §7.5"),
    a(Status::KEY_CONFIGURED, "the package was done by an earlier call", "nothing", "architecture.md §7.9"),
    a(Status::WBCACHE_NOT_COMPLETE, "a package has not run TDH.PHYMEM.CACHE.WB to its end since TDH.MNG.VPFLUSHDONE", "run it on one LP of every package, resuming until success", "architecture.md §7.5"),
    a(Status::HKID_NOT_FREE, "another TD has the HKID, or it is the global one", "take a free HKID", "architecture.md §7.5"),
    a(Status::NO_HKID_READY_TO_WBCACHE, "no TD waits for it", "nothing", "architecture.md §7.9"),
    a(Status::WBCACHE_RESUME_ERROR, "RCX = 1 without an interrupted call on this package", "start with RCX = 0", "architecture.md §7.9"),
    a(Status::FLUSHVP_NOT_DONE, "a VCPU of the TD is still associated with an LP", "call TDH.VP.FLUSH for each VCPU on its LP", "architecture.md §7.9"),
    a(Status::NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, "firmware gave TDX too many KeyIDs", "set fewer private KeyIDs in the firmware", "architecture.md §7.9"),
    a(Status::INCORRECT_CPUID_VALUE, "the processor, or a hypervisor below, shows a CPUID that the module refuses", "see RCX to R10; check firmware settings", "architecture.md §7.9"),
    a(Status::SMRR_OVERLAPS_CMR, "firmware error", "update the firmware", "architecture.md §7.9"),
    a(Status::INCONSISTENT_MSR, "the MSR named above differs between LPs, or IA32_TSC_ADJUST was written", "set it alike everywhere", "architecture.md §7.9"),
    a(Status::INCORRECT_MSR_VALUE, "the MSR named above is not set up for TDX; 0x981 and 0x982 are TME's", "correct the firmware's TME and TDX settings", "architecture.md §1.3 1.3.4"),
    a(Status::INVALID_TDMR, "base or size is not a multiple of 1 GiB, size 0, or KeyID bits", "correct the TDMR named above", "architecture.md §7.4"),
    a(Status::NON_ORDERED_TDMR, "TDMRs overlap or do not ascend", "sort them", "architecture.md §7.4"),
    a(Status::TDMR_OUTSIDE_CMRS, "a hole of the memory map is not covered by a reserved area", "add a reserved area", "architecture.md §7.4"),
    a(Status::TDMR_ALREADY_INITIALIZED, "the last call had finished it", "nothing", "architecture.md §7.9"),
    a(Status::INVALID_PAMT, "base or size is not 4 KiB aligned, or too small (16 bytes per entry)", "correct the PAMT", "architecture.md §7.4"),
    a(Status::PAMT_OUTSIDE_CMRS, "the PAMT is not in convertible memory", "allocate it elsewhere", "architecture.md §7.4"),
    a(Status::PAMT_OVERLAP, "the PAMT is in TDMR memory that is not reserved, or in another PAMT", "reserve it", "architecture.md §7.4"),
    a(Status::INVALID_RESERVED_IN_TDMR, "a reserved area is not 4 KiB granular or leaves its TDMR", "correct it", "architecture.md §7.4"),
    a(Status::NON_ORDERED_RESERVED_IN_TDMR, "reserved areas overlap or do not ascend", "sort them", "architecture.md §7.4"),
    a(Status::CMR_LIST_INVALID, "firmware error", "update the firmware", "architecture.md §7.9"),
    a(Status::EPT_WALK_FAILED, "no Secure-EPT page down to that level, a blocked entry above, or a larger page", "add the missing level (SEPT.ADD), unblock, or use the level that RDX shows", "architecture.md §7.7"),
    a(Status::EPT_ENTRY_NOT_PRESENT, "no page is mapped at that GPA", "check the GPA", "architecture.md §7.9"),
    a(Status::GPA_RANGE_NOT_BLOCKED, "TDH.MEM.RANGE.BLOCK was left out", "block, track, kick the VCPUs, then retry", "architecture.md §7.7"),
    a(Status::GPA_RANGE_ALREADY_BLOCKED, "the range was blocked before; its epoch did not change", "nothing", "architecture.md §11 Q-15"),
    a(Status::TLB_TRACKING_NOT_DONE, "no TDH.MEM.TRACK since the block, or a VCPU has not left since", "track, then kick every VCPU out, then retry", "architecture.md §7.8"),
    a(Status::EPT_INVALID_PROMOTE_CONDITIONS, "the 512 pages are not of one state, not consecutive, or not aligned", "keep the small pages", "architecture.md §7.9"),
    a(Status::PAGE_ALREADY_ACCEPTED, "the guest accepted it before", "harmless, unless the guest expected zeros", "architecture.md §7.9"),
    a(Status::PAGE_SIZE_MISMATCH, "the VMM mapped smaller pages than the guest accepts", "accept at the smaller size", "architecture.md §7.9"),
    a(Status::EPT_ENTRY_STATE_INCORRECT, "the entry is in a state that the leaf does not take: already mapped, already removed, or blocked", "compare the state in RDX with the leaf's list; often two CPUs acted on one GPA", "architecture.md §7.6"),
    a(Status::EPT_PAGE_NOT_FREE, "the Secure-EPT page has entries other than FREE", "remove the entries below first", "architecture.md §7.9"),
    a(Status::L2_SEPT_WALK_FAILED, "an L2 Secure-EPT level is missing", "add it", "architecture.md §7.3"),
    a(Status::L2_SEPT_ENTRY_NOT_FREE, "an L2 alias exists", "remove it first", "architecture.md §7.3"),
    a(Status::L2_SEPT_PAGE_NOT_PROVIDED, "an L2 alias needs a page of its own", "give one in R9 to R11", "architecture.md §7.9"),
    a(Status::SEAMCALL_VMFAILINVALID, "no module is loaded; or a machine check in the module (SEAM root) or one of its sanity checks shut TDX down for the whole platform", "look for an earlier machine check; only a platform reset brings TDX back", "architecture.md §6.3"),
    a(Status::SEAMCALL_GP, "the firmware has not enabled TDX (SEAMRR, or TDX in the setup)", "enable TDX in the firmware setup", "Linux arch/x86/include/asm/tdx.h"),
    a(Status::SEAMCALL_UD, "SEAMCALL needs VMX operation (VMXON) and this CPU was not in it", "load KVM, or see why VMXON was undone", "Linux arch/x86/include/asm/tdx.h"),
];

/// The row of a status, under the module's number or Linux's.
pub(super) fn advice(status: Status) -> Option<&'static AdviceRow> {
    use sim_core::tdx::Reading;
    let key = match status.reading() {
        Reading::Module(row) => row.status,
        Reading::Software(row) => row.status,
        Reading::Variant(row) => row.module,
        Reading::Unknown => return None,
    };
    ADVICE.iter().find(|row| row.status == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_core::tdx::{SOFTWARE, STATUSES};
    use std::collections::BTreeSet;

    #[test]
    fn every_status_of_the_sheet_and_of_linux_has_one_row_of_advice_and_no_other_has() {
        let sheet = STATUSES.iter().filter(|r| r.cite == "architecture.md §7.3").map(|r| r.status);
        let expected: BTreeSet<Status> = sheet.chain(SOFTWARE.iter().map(|r| r.status)).collect();
        let rows: BTreeSet<Status> = ADVICE.iter().map(|r| r.status).collect();
        assert_eq!(rows, expected);
        assert_eq!(rows.len(), ADVICE.len());
    }

    #[test]
    fn linuxs_own_number_gets_the_advice_of_the_modules() {
        let row = advice(Status(0x4000_0002_0000_0002)).unwrap();
        assert_eq!(row.status, Status::NON_RECOVERABLE_TD);
        assert!(advice(Status(0x8000_01C0_0000_0000)).is_none());
    }
}
