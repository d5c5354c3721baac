//! The command trace: every DDR5 command of a run as text, for checkers of other people and for our own.
//!
//! Two forms. `tdxsim` is the one that `verify`'s checker reads, and that its module page defines; its second line carries
//! every parameter that a checker needs. `dramsim3` has the columns of DRAMsim3's `CMD_TRACE`, which its
//! `scripts/validation.py` turns into tasks of Micron's Verilog models: clock, command, channel, rank, bank group, bank,
//! row, column. A subchannel of DDR5 has its own command bus, so it is a channel there; DRAMsim3 has no DDR5 and no command
//! for PREab, which is written as `precharge_all`.

pub use mktme::dram::CommandRecord;
use mktme::dram::organisation::Organisation;
use mktme::dram::timing::Parameter;
use mktme::dram::{Command, SubchannelSpec};
use schemars::JsonSchema;
use serde::Serialize;
use sim_core::platform::RefreshMode;
use sim_core::{PlatformSpec, Ps};
use std::fmt::Write as _;
use std::io::{self, Write};
use verify::ddr5::{self, Checker, Cmd, Param, Rules};

/// The form of a command trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CommandForm {
    /// tdxsim's own.
    #[default]
    Tdxsim,
    /// That of DRAMsim3's `CMD_TRACE`.
    Dramsim3,
}

/// What takes the commands of a run, in order of time within each subchannel.
pub trait CommandSink {
    /// Takes one command.
    ///
    /// # Errors
    /// It could not be written.
    fn put(&mut self, record: &CommandRecord) -> io::Result<()>;

    /// The run is over.
    ///
    /// # Errors
    /// What is left could not be written.
    fn end(&mut self, at: Ps) -> io::Result<()>;
}

/// Writes commands as text.
#[derive(Debug)]
pub struct CommandWriter<W> {
    out: W,
    form: CommandForm,
    tck: Ps,
    channels: u8,
    /// Used again for every line.
    line: String,
    written: u64,
}

impl<W: Write> CommandWriter<W> {
    /// Begins the trace of a platform's DRAM.
    ///
    /// # Errors
    /// The head could not be written.
    pub fn new(mut out: W, form: CommandForm, spec: &PlatformSpec) -> io::Result<CommandWriter<W>> {
        let subchannel = SubchannelSpec::of(&spec.dram).map_err(io::Error::other)?;
        if form == CommandForm::Tdxsim {
            writeln!(out, "# tdxsim command trace 1\n# rules:{}", rules(&subchannel))?;
        }
        let (tck, channels) = (subchannel.timing.tck(), spec.dram.channels);
        Ok(CommandWriter { out, form, tck, channels, line: String::new(), written: 0 })
    }

    /// How many commands were written.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// What it writes to.
    pub const fn get_ref(&self) -> &W {
        &self.out
    }

    /// What it was given to write to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn clock(&self, at: Ps) -> u64 {
        at.0.checked_div(self.tck.0).unwrap_or(0)
    }
}

impl<W: Write> CommandSink for CommandWriter<W> {
    fn put(&mut self, record: &CommandRecord) -> io::Result<()> {
        let clock = self.clock(record.at);
        self.line.clear();
        match self.form {
            CommandForm::Tdxsim => own_line(&mut self.line, clock, record),
            CommandForm::Dramsim3 => dramsim3_line(&mut self.line, clock, self.channels, record),
        }
        self.written += 1;
        self.out.write_all(self.line.as_bytes())
    }

    fn end(&mut self, at: Ps) -> io::Result<()> {
        if self.form == CommandForm::Tdxsim {
            let clock = self.clock(at);
            writeln!(self.out, "# end {clock}")?;
        }
        self.out.flush()
    }
}

/// Shows commands to `verify`'s checker, which knows the rules of DDR5 and nothing of the controller.
#[derive(Debug)]
pub struct CommandCheck {
    checker: Checker,
    tck: Ps,
}

impl CommandCheck {
    /// A checker for a platform's DRAM.
    ///
    /// # Errors
    /// The platform's parameters are none that the checker takes: the two disagree on what DDR5 is.
    pub fn new(spec: &PlatformSpec) -> Result<CommandCheck, String> {
        let subchannel = SubchannelSpec::of(&spec.dram).map_err(|error| error.to_string())?;
        CommandCheck::of_subchannels(&subchannel, spec.cpu.packages, spec.dram.channels)
    }

    /// A checker for subchannels with any parameters: so many packages of so many channels.
    ///
    /// # Errors
    /// As [`CommandCheck::new`].
    pub fn of_subchannels(
        subchannel: &SubchannelSpec,
        packages: u8,
        channels: u8,
    ) -> Result<CommandCheck, String> {
        let rules = check_rules(subchannel)?;
        if let Some(sanity) = rules.insane().next() {
            return Err(format!("{sanity} does not hold: {} ({})", sanity.text, sanity.cite));
        }
        let mut checker = Checker::new(rules);
        for package in 0..u16::from(packages) {
            for channel in 0..u16::from(channels) {
                for subchannel in 0..2 {
                    checker.watch(ddr5::Place { package, channel, subchannel });
                }
            }
        }
        Ok(CommandCheck { checker, tck: subchannel.timing.tck() })
    }

    /// The checker: which rules had something to say, and what was broken.
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// How many commands it has seen.
    pub const fn commands(&self) -> u64 {
        self.checker.commands()
    }

    /// What it has found: the first of them one by one, then how many more.
    pub fn violations(&self) -> Vec<String> {
        let kept = self.checker.violations();
        let mut lines: Vec<String> = kept.iter().take(8).map(ToString::to_string).collect();
        let more = self.checker.total().saturating_sub(lines.len() as u64);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

impl CommandSink for CommandCheck {
    fn put(&mut self, record: &CommandRecord) -> io::Result<()> {
        self.checker.check(&self.record(record));
        Ok(())
    }

    fn end(&mut self, at: Ps) -> io::Result<()> {
        self.checker.finish(at.0.checked_div(self.tck.0).unwrap_or(0));
        Ok(())
    }
}

impl CommandCheck {
    /// A command as the checker takes it.
    pub(crate) fn record(&self, record: &CommandRecord) -> ddr5::Record {
        let p = &record.place;
        ddr5::Record {
            clock: record.at.0.checked_div(self.tck.0).unwrap_or(0),
            place: ddr5::Place {
                package: record.package.into(),
                channel: p.channel.into(),
                subchannel: p.subchannel.into(),
            },
            cmd: match record.command {
                Command::Act => Cmd::Act,
                Command::Pre => Cmd::Pre,
                Command::PreAb => Cmd::PreAb,
                Command::Rd => Cmd::Rd,
                Command::Rda => Cmd::Rda,
                Command::Wr => Cmd::Wr,
                Command::Wra => Cmd::Wra,
                Command::RefAb => Cmd::RefAb,
                Command::RefSb => Cmd::RefSb,
            },
            rank: p.rank,
            group: p.bank_group,
            bank: p.bank,
            row: u32::try_from(p.row).unwrap_or(u32::MAX),
            column: p.column.into(),
        }
    }
}

/// The rules that the commands of subchannels must keep.
///
/// # Errors
/// A parameter that the checker does not take.
pub fn check_rules(subchannel: &SubchannelSpec) -> Result<Rules, String> {
    let rules = Rules::parse(rules(subchannel).as_bytes()).map_err(|error| error.to_string())?;
    // Rows beyond the installed ones have larger numbers and nothing else (docs/DEVIATIONS.md D34): whoever asks for such an
    // address is no fault of the controller.
    rules.with(Param::Rows, u32::MAX.into()).map_err(|error| error.to_string())
}

/// The parameters of a command trace: each with a blank before it, as `verify::ddr5` names them.
fn rules(spec: &SubchannelSpec) -> String {
    use Parameter as P;
    let timing = &spec.timing;
    let mut text = format!(" tCK={}ps", timing.tck().0);
    let interval = match spec.refresh {
        RefreshMode::SameBank => P::Refi2,
        RefreshMode::AllBank | RefreshMode::Off => P::Refi,
    };
    for (key, parameter) in [
        ("CL", P::Cl),
        ("CWL", P::Cwl),
        ("BL/2", P::HalfBurst),
        ("tRCD", P::Rcd),
        ("tRP", P::Rp),
        ("tRAS", P::Ras),
        ("tRC", P::Rc),
        ("tRTP", P::Rtp),
        ("tWR", P::Wr),
        ("tRRD_S", P::RrdS),
        ("tRRD_L", P::RrdL),
        ("tFAW", P::Faw),
        ("tCCD_S", P::CcdS),
        ("tCCD_L", P::CcdL),
        ("tCCD_L_WR", P::CcdLWr),
        ("tWTR_S", P::WtrS),
        ("tWTR_L", P::WtrL),
        ("tPPD", P::Ppd),
        ("tRFC", P::Rfc),
        ("tRFCsb", P::RfcSb),
        ("tREFSBRD", P::RefSbRd),
        ("gap_rw", P::RtwGap),
        ("gap_rank", P::Cs),
        ("tREFI", interval),
    ] {
        let _ = write!(text, " {key}={}", timing.clocks(parameter));
    }
    // After written data tWTR parts the bursts of a rank.
    text.push_str(" gap_wr=0");
    let shape = spec.geometry;
    for (key, n) in [
        ("ranks", shape.ranks.into()),
        ("bank_groups", shape.bank_groups.into()),
        ("banks", shape.banks_per_group.into()),
        ("rows", shape.rows),
        ("columns", shape.lines_per_row()),
        ("postpone", spec.refresh_postpone.into()),
    ] {
        let _ = write!(text, " {key}={n}");
    }
    // Where none may be postponed, a refresh still waits for its banks to be closed.
    let slack = if spec.refresh_postpone == 0 { spec.refresh_lead() } else { 0 };
    let _ = write!(text, " refresh_slack={slack}");
    let refresh = match spec.refresh {
        RefreshMode::AllBank => "all-bank",
        RefreshMode::SameBank => "same-bank",
        RefreshMode::Off => "off",
    };
    let _ = write!(text, " refresh={refresh}");
    text
}

/// A line of tdxsim's own form. Writing to a string cannot fail.
fn own_line(line: &mut String, clock: u64, record: &CommandRecord) {
    let CommandRecord { package, command, place: p, .. } = record;
    let _ = write!(line, "{clock} {package}.{}.{} {command} {}", p.channel, p.subchannel, p.rank);
    let _ = match command {
        Command::Act => write!(line, " {} {} {:#x}", p.bank_group, p.bank, p.row),
        Command::Pre => write!(line, " {} {}", p.bank_group, p.bank),
        Command::PreAb | Command::RefAb => Ok(()),
        Command::RefSb => write!(line, " {}", p.bank),
        Command::Rd | Command::Rda | Command::Wr | Command::Wra => {
            write!(line, " {} {} {:#x} {}", p.bank_group, p.bank, p.row, p.column)
        }
    };
    line.push('\n');
}

/// A line of DRAMsim3's form: its words, columns and their widths.
fn dramsim3_line(line: &mut String, clock: u64, channels: u8, record: &CommandRecord) {
    let p = &record.place;
    let word = match record.command {
        Command::Act => "activate",
        Command::Pre => "precharge",
        Command::PreAb => "precharge_all",
        Command::Rd => "read",
        Command::Rda => "read_p",
        Command::Wr => "write",
        Command::Wra => "write_p",
        Command::RefAb => "refresh",
        Command::RefSb => "refresh_bank",
    };
    let bus = u32::from(record.package) * u32::from(channels) + u32::from(p.channel);
    let bus = bus * 2 + u32::from(p.subchannel);
    // DRAMsim3 counts columns of a device; a burst of DDR5 takes sixteen.
    let column = u32::from(p.column) * Organisation::BURST;
    let _ = writeln!(
        line,
        "{clock:<18} {word:<20} {bus:>3} {:>3} {:>3} {:>3} {:>#8x} {column:>#8x}",
        p.rank, p.bank_group, p.bank, p.row
    );
}
