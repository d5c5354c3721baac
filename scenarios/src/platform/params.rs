//! The parameters of a platform as data: key, kind and meaning of each.

/// What kind of value a parameter takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An integer from 0 to this; [`sim_core::PlatformSpec::validate`] narrows it.
    Int(u64),
    /// True or false.
    Bool,
    /// Text with a unit of time, such as `"4.4ns"`.
    Time,
    /// Text with a unit of size, such as `"48KiB"`.
    Size,
    /// Text with a unit of frequency, such as `"2200MHz"`.
    Frequency,
    /// A range of addresses as text, such as `"0x100000-0x77800000"`.
    Area,
    /// Ranges of addresses as text, with spaces between them; empty for none.
    Areas,
    /// An address map as text: `mktme::dram::map`.
    Map,
    /// Masks of address bits as text, such as `"0x21082040 0x42104080"`; empty for none.
    Masks,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Kind {
    /// What a message says is expected.
    pub fn expected(self) -> String {
        match self {
            Kind::Int(max) => format!("an integer from 0 to {max}"),
            Kind::Bool => "true or false".to_owned(),
            Kind::Time => "a time as text, such as \"4.4ns\"".to_owned(),
            Kind::Size => "a size as text, such as \"48KiB\"".to_owned(),
            Kind::Frequency => "a frequency as text, such as \"2200MHz\"".to_owned(),
            Kind::Area => "a range as text, such as \"0x100000-0x77800000\", not empty".to_owned(),
            Kind::Areas => {
                "ranges as text, such as \"0x100000-0x77800000 0x100000000-0x200000000\"".to_owned()
            }
            Kind::Map => {
                "an address map: a preset such as \"hashed\", or a function per bit".to_owned()
            }
            Kind::Masks => "masks as text, such as \"0x21082040 0x42104080\"".to_owned(),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
        }
    }
}

/// One parameter: a row of the manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Param {
    /// Dotted name, as `--set` takes it.
    pub key: &'static str,
    /// Its kind of value.
    pub kind: Kind,
    /// What it is.
    pub meaning: &'static str,
    /// Where the notion comes from.
    pub cite: &'static str,
}

const fn p(key: &'static str, kind: Kind, meaning: &'static str, cite: &'static str) -> Param {
    Param { key, kind, meaning, cite }
}

const U8: Kind = Kind::Int(u8::MAX as u64);
const U16: Kind = Kind::Int(u16::MAX as u64);
const U32: Kind = Kind::Int(u32::MAX as u64);

/// Every parameter of [`sim_core::PlatformSpec`] besides name and title, in its order.
#[rustfmt::skip]
pub const PARAMS: &[Param] = &[
    p("keyid.maxpa",            U8,  "MAXPA: physical address bits, KeyID included",            "architecture.md §8"),
    p("keyid.keyid_bits",       U8,  "MK_TME_KEYID_BITS (k): width of the KeyID field",         "architecture.md §8"),
    p("keyid.private_bits",     U8,  "TDX_RESERVED_KEYID_BITS (p): top bits that mean private", "architecture.md §8"),
    p("keyid.mktme_kids",       U16, "NUM_MKTME_KIDS: shared KeyIDs are 0 to this",             "architecture.md §8"),
    p("keyid.tdx_priv_kids",    U16, "NUM_TDX_PRIV_KIDS: private KeyIDs, after the shared ones", "architecture.md §8"),
    p("memory.integrity",       Kind::Word(&["ci", "li"]), "integrity mode",                    "architecture.md §1.3 1.3.1"),
    p("memory.erratum_pw_mce",  Kind::Bool, "X86_BUG_TDX_PW_MCE: a partial write to a TD=1 line poisons it", "architecture.md §5.6, MC-04"),
    p("memory.mac_bits",        U8,  "width of the MAC in bits",                                "architecture.md §1.2 1.2.1"),
    p("memory.xts",             Kind::Word(&["xts-128", "xts-256"]), "key width of TME and private keys", "architecture.md §1.3 1.3.3"),
    p("memory.tme_bypass",      Kind::Bool, "TME_ACTIVATE[31]: KeyID 0 is plaintext",           "architecture.md §13 MC-09"),
    p("cpu.packages",           U8,  "packages (sockets)",                                      "timing.md §1.1"),
    p("cpu.cores",              U16, "simulated cores in all packages",                         "timing.md §1.1"),
    p("cpu.core_clock",         Kind::Frequency, "core clock",                                  "timing.md §1.1"),
    p("cpu.l1d.size",           Kind::Size, "L1 data cache of a core: capacity",                "timing.md §1.1"),
    p("cpu.l1d.ways",           U8,  "L1 data cache: ways",                                     "timing.md §1.1"),
    p("cpu.l2.size",            Kind::Size, "L2 of a core: capacity",                           "timing.md §1.1"),
    p("cpu.l2.ways",            U8,  "L2: ways",                                                "timing.md §1.1"),
    p("cpu.llc.size",           Kind::Size, "last-level cache of a package: capacity",          "timing.md §1.1"),
    p("cpu.llc.ways",           U8,  "last-level cache: ways",                                  "timing.md §1.1"),
    p("cpu.l1_clocks",          U8,  "core clocks of a load that hits L1D",                     "timing.md §1.2"),
    p("cpu.l2_clocks",          U8,  "core clocks of a load that hits L2",                      "timing.md §1.2"),
    p("cpu.miss_clocks",        U8,  "core clocks in its own core of a load that misses L2",    "timing.md §1.2"),
    p("cpu.window",             U16, "instructions in flight",                                  "no sheet has it"),
    p("cpu.width",              U8,  "instructions that begin in one core clock",               "no sheet has it"),
    p("cpu.fill_buffers",       U8,  "L1D fill buffers",                                        "timing.md §1.4"),
    p("cpu.superqueue",         U8,  "entries of the L2's superqueue",                          "timing.md §1.4"),
    p("cpu.store_buffer",       U8,  "retired stores that wait to be written into L1D",         "no sheet has it"),
    p("cpu.direct_stores",      U8,  "direct stores of a core on their way to a controller",    "timing.md §4.1, §5.2"),
    p("cpu.llc_slices",         U16, "slices of the last-level cache of a package",             "timing.md §1.1"),
    p("cpu.slice_hash",         Kind::Masks, "address bits whose parities number a line's slice", "timing.md §1.1"),
    p("cpu.snoop_filter.sets",  U32, "snoop filter of a slice: sets",                           "timing.md §1.1"),
    p("cpu.snoop_filter.ways",  U8,  "snoop filter of a slice: ways",                           "timing.md §1.1"),
    p("cpu.flush_sub_blocks",   U32, "sub-blocks of the WBINVDP and WBNOINVDP registers",       "architecture.md §13 MC-14"),
    p("cpu.wc_buffers",         U8,  "buffers that write-combining stores may occupy",          "timing.md §1.4"),
    p("cpu.weak_slots",         U8,  "weakly ordered operations a core may have in flight",     "timing.md §1.4"),
    p("cpu.wc_age",             Kind::Time, "age at which a write-combining buffer leaves; 0 for never", "architecture.md §13 MC-28"),
    p("cpu.fast_string_no_rfo", Kind::Bool, "REP STOSB owns whole lines without reading them",  "architecture.md §13 MC-29"),
    p("cpu.rfo_poison_mc",      Kind::Bool, "a store whose RFO brings poison raises #MC at once", "architecture.md §13 MC-30"),
    p("uncore.clock",           Kind::Frequency, "clock of mesh, home agents and LLC",          "timing.md §1.1"),
    p("uncore.mesh_columns",    U8,  "columns of the mesh",                                     "timing.md §1.1"),
    p("uncore.mesh_rows",       U8,  "rows of the mesh",                                        "timing.md §1.1"),
    p("uncore.hop",             U8,  "uncore clocks from one tile to the next",                 "timing.md §1.1"),
    p("uncore.ingress",         U8,  "uncore clocks from a core into the mesh, or out of it",   "timing.md §1.2"),
    p("uncore.home",            U8,  "uncore clocks in the home agent: LLC tags and snoop filter", "timing.md §1.2"),
    p("uncore.llc_data",        U8,  "uncore clocks to read a line out of an LLC slice",        "timing.md §1.2"),
    p("uncore.snoop",           U8,  "uncore clocks in which a core answers a snoop",           "timing.md §1.2"),
    p("uncore.snoop_modified",  U8,  "uncore clocks more if its copy is modified",              "timing.md §1.2"),
    p("uncore.controller",      U8,  "uncore clocks in a memory controller, without queues, DRAM and crypto", "timing.md §1.2"),
    p("uncore.remote",          Kind::Time, "to another package and back",                      "timing.md §1.1"),
    p("uncore.direct_admission", Kind::Time, "from the home agent to the controller's queue, for a direct store", "timing.md §4.1, §5.2"),
    p("uncore.direct_lookup",   Kind::Time, "longer for a direct store whose line no home agent remembers", "timing.md §4.1, §5.2"),
    p("uncore.direct_lines",    U32, "lines written by direct stores that home agents remember", "timing.md §4.1, §5.2"),
    p("latency.xts",            Kind::Time, "decryption of a line, on fills",                   "timing.md §3"),
    p("latency.mac",            Kind::Time, "MAC check of a line, on fills in Ci",              "timing.md §3"),
    p("latency.write_post",     Kind::Time, "core until a posted write is admitted",            "timing.md §1.4"),
    p("latency.weak_wait",      Kind::Time, "until a weakly ordered operation is visible that nothing sends off before", "DESIGN §3"),
    p("latency.issue",          Kind::Time, "issue cost of operations without a row of their own", "timing.md §4.1"),
    p("latency.direct_store",   Kind::Time, "issue cost of MOVDIRI and non-temporal stores", "timing.md §4.1"),
    p("latency.clflush",        Kind::Time, "CLFLUSH of one line",                              "timing.md §4.1"),
    p("latency.clflushopt",     Kind::Time, "CLFLUSHOPT or CLWB of one line",                   "timing.md §4.1"),
    p("latency.mfence",         Kind::Time, "MFENCE with nothing pending",                      "timing.md §4.1"),
    p("latency.flush_walk",     Kind::Time, "walk of one cache line slot by WBINVD and its relatives", "timing.md §4.3"),
    p("latency.pconfig",        Kind::Time, "PCONFIG",                                          "architecture.md §8, MC-21"),
    p("latency.dma_path",       Kind::Time, "device to controller and back, without DRAM",      "timing.md §1.4"),
    p("functional.op",          Kind::Time, "every operation in functional mode",               "DESIGN §4"),
    p("dram.grade",             Kind::Word(&["ddr5-4800", "ddr5-5200", "ddr5-5600", "ddr5-6400"]), "speed grade", "timing.md §2.2"),
    p("dram.bin",               Kind::Word(&["b", "an"]), "bin of the grade: JEDEC's B or Ramulator's AN", "timing.md §2.1, §2.2"),
    p("dram.width",             Kind::Word(&["x4", "x8"]), "data width of the devices",         "timing.md §2.1"),
    p("dram.density",           Kind::Word(&["8Gb", "16Gb", "24Gb", "32Gb"]), "capacity of the devices", "timing.md §2.1"),
    p("dram.channels",          U8,  "channels per package, each two 32-bit subchannels",       "timing.md §1.1"),
    p("dram.ranks",             U8,  "ranks per subchannel",                                    "timing.md §2.4"),
    p("dram.faw",               Kind::Word(&["32-clocks", "20ns"]), "rule for tFAW",            "timing.md §2.2"),
    p("dram.ccd_l_wr",          Kind::Word(&["20ns", "10ns", "ccd_l"]), "rule for tCCD_L_WR",   "timing.md §2.2"),
    p("dram.rrd_l",             Kind::Word(&["5ns", "8-clocks"]), "rule for tRRD_L",            "timing.md §2.2"),
    p("dram.refresh",           Kind::Word(&["all-bank", "same-bank", "off"]), "how rows are refreshed", "timing.md §2.2"),
    p("dram.refresh_hot",       Kind::Bool, "above 85 °C: refresh intervals are halved",        "timing.md §2.2"),
    p("dram.refresh_postpone",  U8,  "refresh commands of a rank that may be postponed while requests are queued", "verification.md §2.11 Q8"),
    p("dram.read_queue",        U16, "read queue entries per subchannel",                       "timing.md §1.4"),
    p("dram.write_queue",       U16, "write queue entries per subchannel",                      "timing.md §1.4"),
    p("dram.write_high",        U16, "write-queue entries at which the controller turns to writing", "timing.md §1.4"),
    p("dram.write_low",         U16, "write-queue entries at which it turns back to reading",   "timing.md §1.4"),
    p("dram.read_age",          U32, "clocks after which a read is overdue",                    "verification.md §2.11 Q16"),
    p("dram.write_age",         U32, "clocks after which a write is overdue",                   "verification.md §2.11 Q16"),
    p("dram.page_policy",       Kind::Word(&["open", "closed", "adaptive"]), "row policy",      "timing.md §2.4"),
    p("dram.map",               Kind::Map, "from addresses to channels, banks, rows and columns", "timing.md §2.1, §2.4"),
    p("dram.watchdog",          U32, "clocks without progress after which a run is stopped",    "verification.md §2.11 Q16"),
    p("mce.seam_nr",            Kind::Bool, "MCG_CAP[12]: MCG_STATUS tells SEAM non-root",      "architecture.md §6.2"),
    p("mce.lmce",               Kind::Bool, "local machine-check exceptions are on",            "architecture.md §6.3"),
    p("mce.emca2",              Kind::Bool, "EMCA2: machine checks of the core banks are signalled as MSMI", "architecture.md §6.3"),
    p("mce.cmci",               Kind::Bool, "CMCI is enabled for the controller banks",         "architecture.md §6.1"),
    p("mce.bank_dcu",           U8,  "bank of the data cache unit",                             "architecture.md §13 MC-20"),
    p("mce.bank_ifu",           U8,  "bank of the instruction fetch unit",                      "architecture.md §13 MC-20"),
    p("mce.bank_imc",           U8,  "first memory-controller bank: bank = this + channel",     "architecture.md §6.2"),
    p("mce.mscod_core",         U16, "MSCOD of a core's data-load or fetch consumption",        "verification.md §1.2"),
    p("mce.mscod_td",           U16, "MSCOD of a birth by TD-bit mismatch",                     "architecture.md §13 MC-20"),
    p("mce.mscod_mac",          U16, "MSCOD of a birth by MAC mismatch",                        "architecture.md §13 MC-20"),
    p("mce.mcacod_imc",         U16, "MCACOD of both, to which the channel is added",           "architecture.md §13 MC-20"),
    p("tdx.cmrs",               Kind::Areas, "convertible memory ranges as the firmware lists them", "architecture.md §7.4, §9"),
    p("tdx.seamrr",             Kind::Area, "SEAMRR: memory of the TDX module itself",          "architecture.md §8"),
    p("tdx.smrr",               Kind::Area, "an SMRR, which must not overlap convertible memory", "architecture.md §7.9 \"TDH.SYS.INIT\""),
    p("tdx.tme_locked",         Kind::Bool, "IA32_TME_ACTIVATE is locked",                      "architecture.md §1.3 1.3.4"),
    p("tdx.sys_disable",        Kind::Bool, "the module has TDH.SYS.DISABLE",                   "linux-host-paths.md §16.5"),
    p("tdx.dynamic_pamt",       Kind::Bool, "the module has dynamic PAMT",                      "linux-host-paths.md §13"),
    p("tdx.clflush_before_alloc", Kind::Bool, "TDX_FEATURES0 bit 23: enumerated, never checked", "architecture.md §13 MC-15"),
    p("tdx.vp_init_version",    U8,  "highest version of TDH.VP.INIT",                          "architecture.md §10.2 D-22"),
    p("tdx.vp_init_exclusive",  Kind::Bool, "TDH.VP.INIT takes the TDR exclusively, not shared", "architecture.md §10.2 D-22"),
    p("tdx.handoff_version",    U16, "handoff version that TDH.SYS.SHUTDOWN accepts",           "architecture.md §7.9 \"TDH.SYS.SHUTDOWN\""),
    p("tdx.hp_lock_timeout",    Kind::Time, "TDCS.HP_LOCK_TIMEOUT",                             "architecture.md §7.2"),
    p("tdx.tlb_entries",        U32, "translations that a core's TLB holds",                    "architecture.md §7.8"),
    p("tdx.walk_poison_shutdown", Kind::Bool, "poison met by a page walk in a TD is an unbreakable shutdown", "architecture.md §13 MC-07"),
    p("tdx.cost.seamcall",      Kind::Time, "SEAMCALL and SEAMRET, there and back",             "timing.md §5.3"),
    p("tdx.cost.enter",         Kind::Time, "VM entry into a TD",                               "timing.md §5.3"),
    p("tdx.cost.exit",          Kind::Time, "VM exit from a TD to the module",                  "timing.md §5.3"),
    p("tdx.cost.sys",           Kind::Time, "work of a TDH.SYS.* leaf",                         "timing.md §5.3"),
    p("tdx.cost.mng",           Kind::Time, "work of a TDH.MNG.*, TDH.VP.* or TDH.MR.* leaf",   "timing.md §5.3"),
    p("tdx.cost.mem",           Kind::Time, "work of a TDH.MEM.* leaf",                         "timing.md §5.3"),
    p("tdx.cost.phymem",        Kind::Time, "work of a TDH.PHYMEM.* leaf",                      "timing.md §5.3"),
    p("tdx.cost.tdcall",        Kind::Time, "work of a TDCALL leaf",                            "timing.md §5.3"),
    p("tdx.cost.hash",          Kind::Time, "SHA-384 of 128 bytes",                             "timing.md §5.3"),
    p("tdx.cost.invept",        Kind::Time, "INVEPT",                                           "timing.md §5.3"),
];

/// [`PARAMS`] as a table of the manual.
pub fn params_markdown() -> String {
    let mut out = "| parameter | value | meaning | source |\n|---|---|---|---|\n".to_owned();
    for row in PARAMS {
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            row.key,
            row.kind.expected(),
            row.meaning,
            row.cite
        ));
    }
    out
}
