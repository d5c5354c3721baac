//! A slow reference: it keeps the whole history and asks every earlier command how long it forbids the next. Written apart
//! from the checker's table, pair by pair.

use verify::ddr5::{Cmd, Param, Place, Record, Refresh, Rules, example_rules};

/// A command on subchannel 0.
pub(crate) fn cmd(clock: u64, cmd: Cmd, rank: u8, group: u8, bank: u8, row: u32) -> Record {
    Record { clock, place: Place::default(), cmd, rank, group, bank, row, column: 0 }
}

/// A small device without refresh for a long time: both kinds of refresh may come at any time.
pub(crate) fn small() -> Rules {
    let mut rules = example_rules().refreshed(Refresh::SameBank);
    for (param, value) in
        [(Param::BankGroups, 2), (Param::Banks, 2), (Param::Rows, 4), (Param::Trefi, 1 << 24)]
    {
        rules = rules.with(param, value).unwrap();
    }
    rules
}

/// Whether two commands of one rank are of a common bank.
fn meet(a: &Record, b: &Record) -> bool {
    let all = |r: &Record| matches!(r.cmd, Cmd::PreAb | Cmd::RefAb);
    if all(a) || all(b) {
        return true;
    }
    let sb = |r: &Record| r.cmd == Cmd::RefSb;
    a.bank == b.bank && (a.group == b.group || sb(a) || sb(b))
}

/// How many clocks after `a` the command `b` may come.
pub(crate) fn gap(p: &Rules, a: &Record, b: &Record) -> u64 {
    use Cmd::{Act, Pre, PreAb, Rd, Rda, RefAb, RefSb, Wr, Wra};
    let get = |x| p.get(x);
    let mut least = if matches!(a.cmd, Act | Rd | Rda | Wr | Wra) { 2 } else { 1 };
    let column = |c: Cmd| c.reads() || c.writes();
    let data = |c: Cmd| if c.reads() { get(Param::Cl) } else { get(Param::Cwl) };
    if column(a.cmd) && column(b.cmd) {
        let mut rest = 0;
        if a.rank == b.rank && a.cmd.reads() && b.cmd.writes() {
            rest = rest.max(get(Param::GapRw));
        }
        if a.rank == b.rank && a.cmd.writes() && b.cmd.reads() {
            rest = rest.max(get(Param::GapWr));
        }
        if a.rank != b.rank {
            rest = rest.max(get(Param::GapRank));
        }
        least = least.max((data(a.cmd) + get(Param::Burst) + rest).saturating_sub(data(b.cmd)));
    }
    if a.rank != b.rank {
        return least;
    }
    let (here, group) = (meet(a, b), a.group == b.group);
    let pick = |long, short| get(if group { long } else { short }).max(get(short));
    let written = get(Param::Cwl) + get(Param::Burst) + get(Param::Twr);
    let end = get(Param::Cwl) + get(Param::Burst);
    let here_or_0 = |clocks| if here { clocks } else { 0 };
    let closed = |clocks| here_or_0(clocks + get(Param::Trp));
    let more = match (a.cmd, b.cmd) {
        (Act, Act) => pick(Param::TrrdL, Param::TrrdS).max(here_or_0(get(Param::Trc))),
        (Act, Rd | Rda | Wr | Wra) => here_or_0(get(Param::Trcd)),
        (Act, Pre | PreAb) => here_or_0(get(Param::Tras)),
        (Act, RefAb) => get(Param::Trc),
        (Act, RefSb) => get(Param::TrrdL).max(here_or_0(get(Param::Trc))),
        (Rd | Rda, Rd | Rda) => pick(Param::TccdL, Param::TccdS),
        (Wr | Wra, Wr | Wra) => pick(Param::TccdLWr, Param::TccdS),
        (Wr | Wra, Rd | Rda) => {
            let turn = end + pick(Param::TwtrL, Param::TwtrS);
            let both = (a.cmd, b.cmd) == (Wr, Rda);
            turn.max(if both { here_or_0(written.saturating_sub(get(Param::Trtp))) } else { 0 })
        }
        (Rd | Rda, Pre | PreAb) => here_or_0(get(Param::Trtp)),
        (Wr | Wra, Pre | PreAb) => here_or_0(written),
        (Rda, Act | RefAb | RefSb) => closed(get(Param::Trtp)),
        (Wra, Act | RefAb | RefSb) => closed(written),
        (Pre | PreAb, Pre | PreAb) => get(Param::Tppd),
        (Pre | PreAb, Act | RefAb | RefSb) => closed(0),
        (RefAb, Act | Pre | PreAb | RefAb | RefSb) => get(Param::Trfc),
        (RefSb, Act) => get(Param::Trefsbrd).max(here_or_0(get(Param::TrfcSb))),
        (RefSb, Pre) => here_or_0(get(Param::TrfcSb)),
        (RefSb, RefAb | RefSb) => get(Param::TrfcSb),
        _ => 0,
    };
    least.max(more)
}

/// The first clock at which the command may come after this history.
pub(crate) fn earliest(p: &Rules, history: &[Record], next: &Record) -> u64 {
    let pairs = history.iter().map(|a| a.clock + gap(p, a, next));
    let mut at = pairs.max().unwrap_or(0);
    if next.cmd == Cmd::Act {
        let acts = history.iter().rev().filter(|a| a.cmd == Cmd::Act && a.rank == next.rank);
        if let Some(fourth) = acts.clone().nth(3) {
            at = at.max(fourth.clock + p.get(Param::Tfaw));
        }
    }
    at
}

/// A walk over a device: each step a command that the states allow, as early as the slow reference lets it come and as many
/// clocks later as the step says. Returns the commands and whether each came as early as it could.
pub(crate) fn walk(p: &Rules, steps: &[(u32, u8)]) -> Vec<(Record, bool)> {
    let (groups, banks) = (p.get(Param::BankGroups) as u32, p.get(Param::Banks) as u32);
    let ranks = p.get(Param::Ranks) as u32;
    let mut open = vec![None; (ranks * groups * banks) as usize];
    let mut round = vec![0u32; ranks as usize];
    let mut history: Vec<Record> = Vec::new();
    let mut out = Vec::new();
    for (choice, delay) in steps {
        let mut n = *choice;
        let mut pick = |of: u32| {
            let value = n % of;
            n /= of;
            value
        };
        let what = pick(16);
        let (rank, group, bank) = (pick(ranks), pick(groups), pick(banks));
        let row = pick(p.get(Param::Rows) as u32);
        let at = |g: u32, b: u32| ((rank * groups + g) * banks + b) as usize;
        let here = open[at(group, bank)];
        let index: Vec<usize> = (0..groups).map(|g| at(g, bank)).collect();
        let whole = at(0, 0)..at(0, 0) + (groups * banks) as usize;
        let kind = match what {
            0..=1 => Cmd::Pre,
            2 => Cmd::PreAb,
            3 if open[whole.clone()].iter().all(Option::is_none) => Cmd::RefAb,
            4..=5
                if index.iter().all(|i| open[*i].is_none())
                    && round[rank as usize] & (1 << bank) == 0 =>
            {
                Cmd::RefSb
            }
            _ if here.is_none() => Cmd::Act,
            6 | 7 => Cmd::Rda,
            8 | 9 => Cmd::Wra,
            10..=12 => Cmd::Wr,
            _ => Cmd::Rd,
        };
        let (rank, group, bank) = (rank as u8, group as u8, bank as u8);
        let mut next = match kind {
            Cmd::PreAb | Cmd::RefAb => cmd(0, kind, rank, 0, 0, 0),
            Cmd::RefSb => cmd(0, kind, rank, 0, bank, 0),
            Cmd::Pre => cmd(0, kind, rank, group, bank, 0),
            Cmd::Act => cmd(0, kind, rank, group, bank, row),
            _ => cmd(0, kind, rank, group, bank, here.unwrap()),
        };
        let first = earliest(p, &history, &next);
        next.clock = first + u64::from(*delay);
        match kind {
            Cmd::PreAb => open[whole].fill(None),
            Cmd::Pre | Cmd::Rda | Cmd::Wra => open[index[group as usize]] = None,
            Cmd::Act => open[index[group as usize]] = Some(row),
            Cmd::RefAb => round[rank as usize] = 0,
            Cmd::RefSb => {
                round[rank as usize] |= 1 << bank;
                if round[rank as usize] == (1 << banks) - 1 {
                    round[rank as usize] = 0;
                }
            }
            _ => {}
        }
        history.push(next);
        out.push((next, *delay == 0 && first > 0));
    }
    out
}
