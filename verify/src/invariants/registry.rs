//! Every invariant of verification.md §2, one row each.

use std::fmt::Write as _;

/// What an invariant is about (verification.md §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A state.
    State,
    /// A step, or a trace of them.
    Step,
    /// Runs compared with each other.
    Runs,
    /// Time.
    Time,
}

impl Kind {
    /// Its letter in verification.md §2.
    pub const fn letter(self) -> char {
        match self {
            Kind::State => 'S',
            Kind::Step => 'T',
            Kind::Runs => 'X',
            Kind::Time => 'Q',
        }
    }
}

/// What an invariant is judged on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feed {
    /// States and steps of the reference model, in searches and where a machine is replayed on it.
    Reference,
    /// What a module's structures, the memory and the TLBs say around a call.
    Module,
    /// Machine checks and what followed.
    Reports,
    /// Whole runs of the machine, alone or in pairs.
    Runs,
    /// DDR5 commands, requests and counters ([`crate::ddr5`]).
    Timing,
    /// Relations between runs of random programs.
    Relations,
    /// Nothing yet: host paths come later.
    Pending,
    /// Nothing, for this reason.
    LeftOut(&'static str),
}

impl Feed {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Feed::Reference => "reference model",
            Feed::Module => "calls of the TDX module",
            Feed::Reports => "machine checks",
            Feed::Runs => "runs",
            Feed::Timing => "DDR5 commands and requests",
            Feed::Relations => "relations of runs",
            Feed::Pending => "pending",
            Feed::LeftOut(why) => why,
        }
    }
    /// Whether something judges it.
    pub const fn is_checked(self) -> bool {
        !matches!(self, Feed::Pending | Feed::LeftOut(_))
    }
}

/// An invariant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invariant {
    /// Its id in verification.md §2.
    pub id: &'static str,
    /// What it is about.
    pub kind: Kind,
    /// What it is judged on.
    pub feed: Feed,
    /// What holds.
    pub text: &'static str,
    /// Source, beside verification.md.
    pub cite: &'static str,
    /// The planted bug that it catches, in a few words; empty where nothing judges it. That it does is tested.
    pub fault: &'static str,
}

impl Invariant {
    /// The letter of its group.
    pub fn group(&self) -> char {
        self.id.chars().next().unwrap_or('?')
    }
}

const fn inv(
    id: &'static str,
    (kind, feed): (Kind, Feed),
    text: &'static str,
    cite: &'static str,
    fault: &'static str,
) -> Invariant {
    Invariant { id, kind, feed, text, cite, fault }
}

/// The row of an id.
pub fn find(id: &str) -> Option<&'static Invariant> {
    INVARIANTS.iter().find(|i| i.id == id)
}

const S: Kind = Kind::State;
const T: Kind = Kind::Step;
const X: Kind = Kind::Runs;
const Q: Kind = Kind::Time;
const REF: Feed = Feed::Reference;
const MOD: Feed = Feed::Module;
const REP: Feed = Feed::Reports;
const RUN: Feed = Feed::Runs;
const DDR: Feed = Feed::Timing;
const REL: Feed = Feed::Relations;
const NOT: Feed = Feed::Pending;
/// Why R4 is not judged.
const NO_MESSAGE: Feed = Feed::LeftOut("no modelled kernel prints the line: host paths come later");
/// Why R6 is not judged.
const NO_VMCS: Feed = Feed::LeftOut(
    "the controls of a VMCS are not modelled: the module's guests always take #MC as an exit",
);

/// All 120, in the order of verification.md §2.
#[rustfmt::skip]
pub const INVARIANTS: &[Invariant] = &[
    inv("L1", (S, REF), "the TD bit says whether the last full-line writer was private", "SPEC Fig 16.1; architecture.md §2.6", "MU-1"),
    inv("L2", (T, REF), "every read of DRAM is one of the 12 rows of the oracle, or a sticky poison", "SPEC; verification.md §1.1", "MU-2"),
    inv("L3", (T, REF), "a blocked or poisoned read delivers exactly 64 zero bytes", "SPEC", "MU-2"),
    inv("L4", (T, REF), "poison of a DRAM line ends only by a full-line write whose source is not poisoned, or a physical restore", "SPEC", "MU-5"),
    inv("L5", (T, REF), "a write reports nothing and raises no #MC", "SPEC 16.2.4", "a falsified step: a store returns data"),
    inv("L6", (T, REF), "what was written whole under a key and not touched since reads back under that key", "SPEC", "a falsified step: other bytes are read back"),
    inv("L7", (X, REF), "a read with integrity of a line whose ciphertext, TD bit, address or key changed is poisoned", "SPEC; architecture.md §1.2 1.2.4", "MU-3"),
    inv("L8", (T, REF), "with the erratum a partial shared write to a TD=1 line poisons it and changes nothing else", "LNX, HW; architecture.md §5.5, MC-04", "MU-11"),
    inv("L9", (T, REF), "any other partial write is read, merge, full write with the issuer's KeyID, and births no partial-write poison", "AX; MC-03", "MU-5"),
    inv("L10", (T, REF), "a partial write of the same value poisons under L8 too", "LNX commit text", "a falsified step: the same value does not poison"),
    inv("L11", (T, REF), "an access with a KeyID that its agent cannot form faults and changes nothing", "HWL; architecture.md §2.5", "a falsified step: a refused access changes the state"),
    inv("L12", (S, REF), "the controller returns zeros, the stored plaintext, or what a wrong key makes of it", "SPEC intent", "a falsified step: bytes come from nowhere"),
    inv("L13", (T, REF), "a full-line write stores the encryption of its data for its key and address, and nothing else", "SEC TEE.fail", "a falsified step: ciphertext of another key"),
    inv("C1", (S, REF), "a copy that is exclusive or modified is the only one of its (line, KeyID); at most one is owned", "coherence", "a falsified step: a second copy of an exclusive line"),
    inv("C2", (T, REF), "all copies of a (line, KeyID) hold the same bytes and the same poison; a load that hits returns them", "coherence", "a falsified step: a hit returns other bytes"),
    inv("C3", (T, REF), "a load is served by a copy with its own KeyID, or by the controller", "HWL", "MU-9"),
    inv("C4", (S, REF), "a new copy comes from the controller under its own KeyID, or from a store of the whole line", "HWL", "a falsified step: a copy comes from nowhere"),
    inv("C5", (T, REF), "a copy stops being dirty by a write of its bytes and its poison under its own KeyID, or because a device overwrites the whole line", "HWL", "a falsified step: a dirty line is dropped"),
    inv("C6", (T, REF), "evicting a clean copy does nothing to DRAM", "coherence", "a falsified step: a clean eviction writes"),
    inv("C7", (T, REF), "a flush of one KeyID leaves copies under other KeyIDs alone", "AX from C3; architecture.md §4.1 4.1.8", "MU-10"),
    inv("C8", (T, REF), "a visible MOVDIR64B leaves no copy of its own KeyID, its data in DRAM, no poison, and foreign copies alone", "LNX tdx_clear_page; architecture.md §3", "MU-6"),
    inv("C9", (T, REF), "WBINVD leaves its package empty; the forms without invalidation drop nothing, and WBNOINVD leaves nothing dirty", "MOD tdh_phymem_cache_wb.c; architecture.md §4.4", "a falsified step: a line survives WBINVD"),
    inv("C10", (S, RUN), "the directory knows every holder of a (line, KeyID); more it may name", "AX", "a directory that forgets a holder"),
    inv("C11", (S, REF), "reachable, not forbidden: two KeyIDs dirty for one line", "EXP", "caches that hold a line under one KeyID only"),
    inv("C12", (T, REF), "a poisoned copy loses its poison only by a store of the whole line", "AX; MC-05", "MU-8"),
    inv("C13", (Q, RUN), "a load of a line under KeyID 0 takes longer when a core holds it under another KeyID, longest when modified", "SEC TDXRay; architecture.md §4.2", "times that do not depend on the holder"),
    inv("P1", (T, REF), "each birth has the cause of the request that made it", "SPEC, LNX", "MU-4"),
    inv("P2", (S, REF), "births less deaths is live poison, and the ledger knows every location", "AX", "a falsified step: a death too many"),
    inv("P3", (T, REF), "each consumption names one birth that is alive", "AX", "a falsified step: a consumption names no birth"),
    inv("P4", (T, REF), "a read that makes poison stores it", "SPEC", "MU-4"),
    inv("P5", (T, REF), "a host #MC comes from an injected error, the erratum, a failed private read, or a shared key with integrity", "SPEC rows 7-8, EXP", "a falsified step: the cause is changed"),
    inv("P6", (X, RUN), "without erratum, injected errors and faults, a host that keeps V1 to V3 sees no birth of poison", "HUNTER, HUANG-V12", "WriteKeepsTd"),
    inv("P7", (T, REF), "prefetches and speculative fills raise no #MC", "AX; SDM", "a falsified step: a prefetch raises #MC"),
    inv("P8", (T, REF), "integrity births of reads are logged once; partial-write births never", "SPEC", "MU-4"),
    inv("P9", (T, REP), "a #MC in a TD makes it fatal at that exit; TDH.VP.ENTER returns NON_RECOVERABLE_TD_NON_ACCESSIBLE, later entries TD_FATAL", "MOD td_other_exits.c; architecture.md §6.3", "FatalForgotten"),
    inv("P10", (T, REP), "a #MC in SEAM root shuts its processor down and disables TDX: every later SEAMCALL fails with VMfailInvalid", "SPEC 16.6; architecture.md §6.3", "DisableForgotten"),
    inv("P11", (T, REP), "with LMCE exactly the consumer takes the #MC", "SPEC 16.4", "LmceBroadcast"),
    inv("P12", (S, REF), "poison stays on the line where it was born", "AX", "a falsified step: poison on another line"),
    inv("S1", (S, REF), "no request with a shared KeyID is given the plaintext of a line that a private KeyID wrote", "SPEC", "MU-2"),
    inv("S2", (X, RUN), "two runs that differ in a TD's plaintext only give the host the same values and the same #MCs", "SPEC rows 7-8", "SharedReadShowsData"),
    inv("S3", (X, RUN), "two such runs take the host the same time, operation by operation: data never decides on time", "AX; architecture.md §4.2", "a run in which one operation takes longer"),
    inv("S4", (T, REF), "the host reads the same fixed value from a private line whatever the TD has written", "KVM TDX selftest", "MU-2"),
    inv("S5", (X, RUN), "after a TD is gone no load of any agent under any KeyID returns its plaintext", "SPEC rows 8/12, EXP", "SharedReadShowsData"),
    inv("T1", (S, MOD), "a leaf of the Secure-EPT leads to a page that the PAMT has as PT_REG of its TD at its size", "MOD; architecture.md §7.4", "AddWithoutPamtOwner"),
    inv("T2", (S, MOD), "no page is mapped by two leaves", "MOD", "AugTakenPage"),
    inv("T3", (T, MOD), "what PAGE.ADD and PAGE.ACCEPT leave is written whole under the TD's HKID, not poisoned, with no older copy", "MOD tdh_mem_page_add.c, tdg_mem_page_accept.c", "AcceptKeepsContents"),
    inv("T4", (T, MOD), "PAGE.AUG touches no line of the page", "MOD tdh_mem_page_aug.c", "AugClearsPage"),
    inv("T5", (T, MOD), "PAGE.REMOVE and PHYMEM.PAGE.RECLAIM free the page's PAMT entry and touch no line of it", "MOD", "RemoveKeepsPamt"),
    inv("T6", (T, MOD), "the first read of an accepted page gives zeros, of an added page the source", "SPEC; selftest", "AcceptKeepsContents"),
    inv("T7", (S, MOD), "CHLDCNT is the number of pages a TD owns; a TDR is reclaimed at 0 only", "MOD", "ChldcntForgotten"),
    inv("T8", (T, MOD), "RECLAIM works in TEARDOWN only, refuses KeyID bits and pages that are nobody's", "MOD", "ReclaimBeforeTeardown"),
    inv("T9", (X, MOD), "a leaf works on the Secure-EPT states of its row, to the state of its row, and refuses all others", "MOD sept_state_lookup.c; architecture.md §7.6", "RemoveKeepsEntry"),
    inv("T10", (T, MOD), "a call that returns an error has changed nothing but what the sheet lists", "MOD; architecture.md §7.2, §7.10, §7.11", "ErrorLeavesChange"),
    inv("T11", (S, MOD), "pages of the module are written under their key: PAMT and TDRs the global one, all else that of the TD", "MOD assign_hkid_to_hpa; architecture.md §7.5", "TdcsUnderGlobalKey"),
    inv("T12", (T, MOD), "what RDMD says of a page lets Linux tell whether it is private: free is not, reserved is not, all else is", "LNX tdx.c", "RdmdSaysFree"),
    inv("H1", (T, MOD), "a KeyID goes from FREE to ASSIGNED, FLUSHED and FREE again, each by its leaf only", "MOD", "VpflushdoneFreesHkid"),
    inv("H2", (T, MOD), "KEY.FREEID works when every package has written back, else WBCACHE_NOT_COMPLETE", "MOD", "FreeidIgnoresBitmap"),
    inv("H3", (T, MOD), "VPFLUSHDONE works when no VCPU is associated, and names all packages for write-back", "MOD", "VpflushdoneIgnoresVcpus"),
    inv("H4", (S, MOD), "no package holds a dirty line of a FREE KeyID", "MOD", "CacheWbWritesNothing"),
    inv("H5", (T, MOD), "the module programs private KeyIDs that no package uses yet", "Cornelius, MOD program_mktme_keys", "PconfigActiveKey"),
    inv("H6", (S, MOD), "living TDs have HKIDs of their own, fewer than there are private KeyIDs", "MOD, LNX", "TwoTdsOneHkid"),
    inv("H7", (T, MOD), "a KeyID used again never shows what its former owner had", "AX, by T3", "AcceptKeepsContents"),
    inv("H8", (T, MOD), "an interrupted CACHE.WB clears no package's bit, a finished one those of KeyIDs that were FLUSHED when it began", "MOD", "CacheWbClearsEarly"),
    inv("E1", (T, MOD), "tracking of a page blocked in epoch b has finished if b is older than the last epoch, or is it and no VCPU is left from it", "MOD helpers.h", "TrackedTooEarly"),
    inv("E2", (T, MOD), "MEM.TRACK opens the next epoch when no VCPU is left from the last but one, else PREVIOUS_TLB_EPOCH_BUSY", "MOD tdh_mem_track.c", "TrackIgnoresRefcount"),
    inv("E3", (S, MOD), "after REMOVE, RELOCATE, PROMOTE or DEMOTE no VCPU in the TD has a translation to the old page", "SPEC", "TrackedTooEarly"),
    inv("E4", (S, MOD), "a VCPU in the TD is of this epoch or the last; the reference counts say how many", "MOD", "RefcountForgotten"),
    inv("E5", (T, MOD), "a leaf entry that must be blocked and tracked is not removed before, and the refusal changes nothing", "MOD; architecture.md §7.8", "RemoveWithoutBlock"),
    inv("V1", (T, NOT), "before a page goes to the module no dirty line of it is left under KeyID 0", "LNX tdx_clflush_page", ""),
    inv("V2", (T, NOT), "private lines are written back before a reclaimed page is cleared", "LNX vmx/tdx.c", ""),
    inv("V3", (T, NOT), "with the erratum every reclaimed page is cleared by MOVDIR64B and fenced before it is used", "LNX tdx_clear_page, HUNTER", ""),
    inv("V4", (S, NOT), "with the erratum pages of the allocator have TD bit 0, no poison, no dirty private alias", "LNX", ""),
    inv("V5", (S, NOT), "without it they may have TD bit 1, but no dirty private alias", "LNX", ""),
    inv("V6", (S, NOT), "a HWPoison page is never used again and never cleared", "LNX core.c", ""),
    inv("V7", (T, NOT), "a page that was not reclaimed is never freed", "LNX", ""),
    inv("V8", (T, NOT), "kexec flushes all caches, makes no SEAMCALL after that, and with the erratum clears PAMT and private pages", "HUANG-V12", ""),
    inv("V9", (X, NOT), "partial writes of the kernel after it raise no #MC", "HUANG-V12", ""),
    inv("R1", (T, REP), "a host load of poison is bank 1, MCi_STATUS 0xbd80000000100134, MCG_STATUS 0xf", "HW; architecture.md §6.2", "OtherMscod"),
    inv("R2", (T, REP), "a TD's load of poison has RIPV EIPV MCIP LMCES SEAM_NR, and UC S AR 0x134", "andikleen/mce-inject; architecture.md §6.2", "SeamNrForgotten"),
    inv("R3", (T, REP), "Linux's grade is the first row that matches", "LNX severity.c; architecture.md §6.4", "a grade of another row"),
    inv("R4", (T, NO_MESSAGE), "\"TDX private memory error. Possible kernel bug.\" is printed for private memory on parts with the erratum", "LNX", ""),
    inv("R5", (T, REP), "a #MC in a TD marks its page HWPoison, the kernel goes on, the TD is dead", "LNX core.c", "FatalForgotten"),
    inv("R6", (S, NO_VMCS), "a TD's VMCS always has CR4.MCE and #MC exiting", "SPEC 16.5.1, Cornelius", ""),
    inv("Q1", (Q, DDR), "every request is answered exactly once, no sooner than the documented minimum, and nothing else is answered", "verification.md §2.11", "an answer too early, twice, or unasked"),
    inv("Q2", (Q, DDR), "events come in the order of (time, sequence), and nobody schedules in the past", "verification.md §2.11", "an event out of order"),
    inv("Q3", (Q, DDR), "a command begins when the slots of the one before it are over", "verification.md §2.11; timing.md §2.1", "commands in each other's slots"),
    inv("Q4", (Q, DDR), "bursts do not overlap, and the data bus rests where its direction or rank changes", "verification.md §2.11", "bursts that overlap"),
    inv("Q5", (Q, DDR), "every ordered pair of commands is as far apart as its parameter says", "verification.md §2.11; timing.md §2.2", "a command one clock too early"),
    inv("Q6", (Q, DDR), "on an idle bus a command comes at the earliest clock that is legal", "verification.md §2.11; timing.md §2.2", "a command one clock later than it could"),
    inv("Q7", (Q, DDR), "rows are open when read or written, and closed when opened or refreshed", "verification.md §2.11", "a read of a closed row"),
    inv("Q8", (Q, DDR), "refreshes come every tREFI on average, less those that may be postponed", "verification.md §2.11", "a refresh too late"),
    inv("Q9", (Q, DDR), "no window moves more bytes than the peak", "verification.md §2.11", "more bytes than the peak"),
    inv("Q10", (Q, DDR), "the parameters can be true together", "verification.md §2.11", "parameters that contradict each other"),
    inv("Q11", (Q, DDR), "an unloaded read takes the documented sum", "verification.md §2.11", "a read one clock longer"),
    inv("Q12", (Q, DDR), "streaming reaches peak·(1 − (tRTP+tRP+tRFC+tRCD)/tREFI) within 1 %", "verification.md §2.11; timing.md §2.1", "a stream that loses 2 % more"),
    inv("Q13", (Q, DDR), "Little's law: the mean length of a queue is its arrivals times their mean wait, within one request", "verification.md §2.11", "a queue that loses a request"),
    inv("Q14", (Q, DDR), "what is in flight at the end is what is reported", "verification.md §2.11", "a remainder that is not reported"),
    inv("Q15", (Q, DDR), "crypto latency is added once per fill; clears are no faster than their bursts", "verification.md §2.11; timing.md §3", "crypto latency twice"),
    inv("Q16", (Q, DDR), "no request waits longer than the bound", "verification.md §2.11", "a request that waits too long"),
    inv("Q17", (Q, RUN), "the cycle model's log is a run that the reference allows", "verification.md §5.1", "WriteKeepsTd, and MU-1 to MU-11 in the machine"),
    inv("N1", (X, REL), "same program, platform and seed give the same bytes, whatever the number of threads", "verification.md §2.12", "another seed"),
    inv("N2", (X, REL), "a machine saved and restored goes on as it would have", "verification.md §2.12", "a restored machine that lost a line"),
    inv("N3", (X, REL), "what is logged never changes what happens", "verification.md §2.12", "an operation that only a log sees"),
    inv("N4", (X, REL), "a feature that is not used changes nothing", "verification.md §2.12", "a feature in use"),
    inv("N5", (X, REL), "all times multiplied by n multiply every moment by n", "verification.md §2.12", "one time that is not scaled"),
    inv("N6", (X, REL), "no float decides anything", "verification.md §2.12", "a float in a state"),
    inv("M1", (X, REL), "CLFLUSH put in where one KeyID is used changes no result", "verification.md §2.13", "KeyIDs that alias"),
    inv("M2", (X, REL), "clears, adds and reclaims of different pages commute", "verification.md §2.13", "one of the two runs altered"),
    inv("M3", (X, REL), "MOVDIR64B twice is MOVDIR64B once", "verification.md §2.13", "one of the two runs altered"),
    inv("M4", (X, REL), "the erratum changes nothing when no transaction below 64 bytes reaches a line with TD bit 1", "verification.md §2.13", "one of the two runs altered"),
    inv("M5", (X, REL), "Ci and Li are the same without physical faults and with one private KeyID per line", "verification.md §2.13", "one of the two runs altered"),
    inv("M6", (X, REL), "other private HKIDs, or all addresses moved by an interleave period, give the same run", "verification.md §2.13", "one of the two runs altered"),
    inv("M7", (X, REL), "idle time and traffic elsewhere change no result", "verification.md §2.13", "one of the two runs altered"),
    inv("M8", (X, REL), "geometry, replacement and prefetchers change no result under a disciplined host", "verification.md §2.13", "one of the two runs altered"),
    inv("M9", (X, REL), "poison that is overwritten whole before any read changes nothing but the ledger", "verification.md §2.13", "one of the two runs altered"),
    inv("M10", (X, REL), "without erratum and with flushes, clears change nothing but the contents of pages read before they are written", "verification.md §2.13", "one of the two runs altered"),
    inv("M11", (X, REL), "a DMA of whole lines is the same split into lines", "verification.md §2.13", "one of the two runs altered"),
    inv("M12", (X, REL), "A, idle, B is A, saved, restored, B", "verification.md §2.13", "one of the two runs altered"),
    inv("M13", (X, REL), "more memory, or another TD, changes no result", "verification.md §2.13", "one of the two runs altered"),
    inv("M14", (X, REL), "a fault on a line that nobody uses changes nothing", "verification.md §2.13", "one of the two runs altered"),
];

/// The invariants as a page.
pub fn invariants_markdown() -> String {
    let mut out = String::from(
        "| Id | Kind | Holds | Judged on | Caught, planted | Source |\n|---|---|---|---|---|---|\n",
    );
    for i in INVARIANTS {
        let (kind, on) = (i.kind.letter(), i.feed.text());
        let _ =
            writeln!(out, "| {} | {kind} | {} | {on} | {} | {} |", i.id, i.text, i.fault, i.cite);
    }
    out
}
