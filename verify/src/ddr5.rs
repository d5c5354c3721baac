//! An independent checker of DDR5 command traces (verification.md §2.11, §5.2).
//!
//! It is fed with commands and the times they were issued at, nothing else, and with the parameters they must keep. It
//! was written from timing.md §2, verification.md §2.11 and JESD79-5 by somebody who had not read the controller that it
//! judges, and it shares no type with it.
//!
//! # The command trace, `tdxsim command trace 1`
//!
//! Plain ASCII, lines end with `\n` (a `\r` before it is tolerated by the reader, never written), fields are parted by
//! exactly one space when written and by one or more spaces or tabs when read. There are three kinds of lines.
//!
//! ```text
//! trace    = version rules { command } [ end ]
//! version  = "# tdxsim command trace 1"
//! rules    = "# rules:" { " " key "=" value }          every key of the table below once, in any order
//! command  = clock " " place " " operation
//! end      = "# end " clock                            the clock at which the run ended; nothing follows it
//!
//! place    = package "." channel "." subchannel        three decimal numbers: "0.3.1"
//! operation = "ACT " rank " " group " " bank " " row
//!           | ( "RD " | "RDA " | "WR " | "WRA " ) rank " " group " " bank " " row " " column
//!           | "PRE " rank " " group " " bank
//!           | ( "PREab " | "REFab " ) rank
//!           | "REFsb " rank " " bank                   the bank of this index in every bank group
//! clock, package, channel, subchannel, rank, group, bank, column = decimal, no sign, no leading zero but "0" itself
//! row      = "0x" lower-case hexadecimal digits without leading zeros (read: decimal too, and any case)
//! ```
//!
//! For example:
//!
//! ```text
//! # tdxsim command trace 1
//! # rules: tCK=416ps CL=40 CWL=38 BL/2=8 tRCD=39 tRP=39 tRAS=77 tRC=116 ... ranks=2 ... refresh=all-bank ... postpone=4
//! 1200 0.3.1 ACT 0 5 2 0x1a2b
//! 1239 0.3.1 RD 0 5 2 0x1a2b 17
//! 1300 0.3.1 PREab 1
//! 1339 0.3.1 REFab 1
//! 1410 0.3.1 REFsb 0 2
//! # end 90000
//! ```
//!
//! - `clock` counts edges of the memory clock (tCK, half the data rate) from the start of the run; it is the first slot of a command
//!   that takes two. Within one subchannel clocks never go back; lines of different subchannels may come in any order.
//! - `bank` is the index within its bank group. `column` is the number of the 64-byte burst in its row, so `columns` is
//!   bursts per row (16 Gb x4: 2048 / 16 = 128). `row` of a column command is the row that the controller believes open.
//! - Empty lines and further lines that begin with `#` are comments, but `# end` is the end and `# rules:` may not come twice.
//!   Command names are spelled exactly as above.
//!
//! The keys of the `rules` line. A time is a whole number of clocks, but for `tCK`, which is picoseconds and ends in `ps`:
//!
//! | Key | Meaning |
//! |---|---|
//! | `tCK` | the clock, like `416ps` |
//! | `CL`, `CWL` | RD, WR to the first clock of data |
//! | `BL/2` | clocks of data per burst: 8 |
//! | `tRCD` `tRP` `tRAS` `tRC` | ACT to RD or WR; PRE to ACT; ACT to PRE; ACT to ACT or REF of a bank |
//! | `tRTP` `tWR` | RD to PRE; end of written data to PRE |
//! | `tRRD_S` `tRRD_L` `tFAW` | ACT to ACT of another, of the same bank group; window of four ACTs |
//! | `tCCD_S` `tCCD_L` | RD to RD and, for `_S`, WR to WR: of a rank, of a bank group |
//! | `tCCD_L_WR` | WR to WR of a bank group |
//! | `tWTR_S` `tWTR_L` | end of written data to RD of a rank, of a bank group |
//! | `tPPD` | precharge to precharge of a rank |
//! | `tRFC` | REFab to the next command of its rank (tRFC1, or tRFC2 with fine granularity) |
//! | `tRFCsb` `tREFSBRD` | REFsb to its own banks and to the next refresh; REFsb to ACT of another bank |
//! | `gap_rw` `gap_wr` `gap_rank` | idle clocks on the data bus between a burst read and a burst written in the same rank, the reverse, and bursts of two ranks |
//! | `ranks` `bank_groups` `banks` `rows` `columns` | of a subchannel; `banks` per bank group, `columns` as bursts per row |
//! | `refresh` | `all-bank`, `same-bank` or `off` |
//! | `tREFI` | average interval of the refreshes of one rank (`all-bank`) or of one bank index of a rank (`same-bank`: tREFI2) |
//! | `postpone` | how many refreshes may be postponed |
//! | `refresh_slack` | clocks that a refresh may be later than that, for the banks to be closed (0: none, as JEDEC has it) |
//!
//! # How to judge a trace
//!
//! ```
//! use verify::ddr5::{Checker, Reader};
//! # let rules = verify::ddr5::example_rules();
//! # let text = verify::ddr5::head(&rules) + "100 0.0.0 ACT 0 0 0 0x1\n120 0.0.0 RD 0 0 0 0x1 0\n# end 130\n";
//! let mut reader = Reader::new(text.as_bytes())?;
//! let mut checker = Checker::new(reader.rules().clone());
//! for record in reader.by_ref() {
//!     checker.check(&record?);
//! }
//! checker.finish(reader.end().unwrap_or(checker.last_clock()));
//! assert_eq!(checker.violations()[0].rule.id, "tRCD");
//! # Ok::<(), verify::ddr5::TraceError>(())
//! ```
//!
//! # What the checker leaves out
//!
//! Power-down, self-refresh, mode registers, ZQ calibration, RFM and ECS are not in the trace. A precharge of a closed bank is
//! legal (JESD79-5: it does nothing), so PREab may come while REFsb is under way in other banks. Early refreshes earn
//! nothing, as DDR5 has postponed refreshes only. Q6 (that commands come no later than they could) is what
//! [`Checker::earliest`] lets others test; Q9 follows from Q4 when every burst is as long as the rules say, and is worked out
//! in another way.

mod checker;
mod command;
mod rules;
pub mod run;
mod table;
mod trace;

pub use checker::{Checker, Detail, KEPT, MAX_SUBCHANNELS, Violation};
pub use command::{Cmd, Place, Record};
pub use rules::{
    PARAMS, Param, ParamRow, Refresh, Rules, RulesError, SANITY, Sanity, Term, example_rules,
    params_markdown, sanity_markdown, sum_text,
};
pub use table::{FREE, Kind, RULES, Rule, Scope, rules_markdown};
pub use trace::{END, Fault, LONGEST, Reader, TraceError, VERSION, head, tail};
