//! Relations between runs: what must be equal when something is changed that must not matter (verification.md §2.12 N1 to N6,
//! §2.13 M1 to M14).
//!
//! Each relation makes random worlds ([`World`]: a program and its platform), runs a world and a changed one, and compares.
//! [`check`] is a pure function of its seed. A counterexample has been made small by leaving lines out, keeps to the
//! relation's preconditions ([`Discipline`]), and prints as two scenario files for `tdxsim run`: the second asks of the
//! changed world what the first one shows (files can ask for outcomes and for the end, not for moments).

mod determinism;
mod discipline;
mod floats;
mod generate;
mod metamorphic;
mod world;

pub use discipline::{Breach, Discipline, Rules};
pub use floats::count_numbers;
pub use generate::{Dice, FAR, Made, PAGE, PRIVATE, SHARED, Style, agents, settings};
pub use metamorphic::aliased_flushes_that_matter;
pub use world::{Ran, Seen, Step, Unfit, World, extents, first_difference};

use sim_core::Op;
use sim_core::prng::mix;
use std::fmt;

/// A world and a changed one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The world.
    pub base: World,
    /// The same, changed.
    pub other: World,
    /// What else the relation needs to know: a place in the program, a factor, a variant.
    pub at: u64,
}

/// What came of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Judged {
    /// The relation says nothing of it.
    Vacuous,
    /// It holds.
    Holds,
    /// It does not: why.
    Broken(String),
}

/// A relation: makes cases and judges them.
pub(crate) struct Rule {
    pub(crate) id: &'static str,
    pub(crate) says: &'static str,
    /// A random case.
    pub(crate) make: fn(&mut Dice) -> Option<Case>,
    /// Whether the relation is about a case from which lines were left out.
    pub(crate) keeps: fn(&Case) -> bool,
    pub(crate) judge: fn(&Case) -> Result<Judged, Unfit>,
}

/// What came of checking a relation on many worlds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    /// Worlds on which the relation had something to say.
    pub witnesses: u64,
    /// Worlds that could not be made: nothing was compared.
    pub skipped: u64,
    /// Worlds asked for.
    pub cases: u64,
    /// The first that broke it; nothing was checked after it.
    pub violation: Option<Counterexample>,
}

impl Relation {
    /// Whether enough worlds were compared for the relation to be a check: one in five of those asked for.
    pub const fn says_enough(&self) -> bool {
        self.witnesses > 0 && self.witnesses.saturating_mul(5) >= self.cases
    }
    /// How many worlds were compared, in words.
    pub fn told(&self) -> String {
        let Relation { witnesses, skipped, cases, .. } = self;
        let vacuous = cases.saturating_sub(witnesses.saturating_add(*skipped));
        format!(
            "{witnesses} of {cases} worlds compared, {skipped} not made, {vacuous} with nothing to compare"
        )
    }
}

/// Two runs that should have been alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// Which relation.
    pub id: &'static str,
    /// The seed and the number of the case, which make it again.
    pub seed: u64,
    /// See `seed`.
    pub case: u64,
    /// In what they differ.
    pub why: String,
    /// The worlds, made small.
    pub worlds: Box<Case>,
    /// Scenario files: the world, and the changed one with what the first shows as its expectations.
    pub files: [String; 2],
}

impl fmt::Display for Counterexample {
    /// Both files, each behind a line of `#`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [base, other] = &self.files;
        let rule = "#".repeat(72);
        writeln!(f, "{rule}\n# first file\n{base}{rule}\n# second file\n{other}")
    }
}

/// Every relation: its id and what it says.
pub fn relations() -> impl Iterator<Item = (&'static str, &'static str)> {
    rules().map(|rule| (rule.id, rule.says))
}

fn rules() -> impl Iterator<Item = &'static Rule> {
    determinism::RULES.iter().chain(metamorphic::RULES)
}

/// A random world.
///
/// # Errors
/// Its platform does not fit: a defect.
pub fn random_world(dice: &mut Dice, style: Style) -> Result<World, Unfit> {
    let made = generate::world(dice, style);
    made.map(|made| made.world).ok_or_else(|| Unfit("a platform that does not fit".to_owned()))
}

/// A random line for a world, as its generator makes them for programs without rules.
///
/// # Errors
/// As [`random_world`].
pub fn random_line(dice: &mut Dice, world: &World) -> Result<(u16, Op), Unfit> {
    generate::line(dice, world).ok_or_else(|| Unfit("a platform that does not fit".to_owned()))
}

/// Checks a relation of [`relations`] on so many random worlds. `None` if there is no such relation.
pub fn check(id: &str, seed: u64, cases: u64) -> Option<Relation> {
    check_altered(id, seed, cases, &|_| ())
}

/// [`check`] with every changed world altered before it runs: for the tests that a relation can fail.
pub fn check_altered(
    id: &str,
    seed: u64,
    cases: u64,
    alter: &dyn Fn(&mut Case),
) -> Option<Relation> {
    let rule = rules().find(|rule| rule.id == id)?;
    Some(check_rule(rule, seed, cases, alter))
}

fn check_rule(rule: &Rule, seed: u64, cases: u64, alter: &dyn Fn(&mut Case)) -> Relation {
    let name = rule.id.bytes().fold(0, |all, byte| all << 8 | u64::from(byte));
    let mut out = Relation { witnesses: 0, skipped: 0, cases, violation: None };
    for n in 0..cases {
        let mut dice = Dice::new(mix(seed, name, n));
        let Some(case) = (rule.make)(&mut dice) else {
            out.skipped += 1;
            continue;
        };
        let (case, why) = match judge(rule, &case, alter) {
            Ok(Judged::Vacuous) => continue,
            Ok(Judged::Holds) => {
                out.witnesses += 1;
                continue;
            }
            Ok(Judged::Broken(_)) => {
                out.witnesses += 1;
                shrink(rule, case, alter)
            }
            // Whoever made the world made it wrong: as bad as a relation that does not hold.
            Err(Unfit(why)) => (case, why),
        };
        out.violation = Some(Counterexample::new(rule, seed, n, why, altered(case, alter)));
        return out;
    }
    out
}

fn judge(rule: &Rule, case: &Case, alter: &dyn Fn(&mut Case)) -> Result<Judged, Unfit> {
    (rule.judge)(&altered(case.clone(), alter))
}

fn altered(mut case: Case, alter: &dyn Fn(&mut Case)) -> Case {
    alter(&mut case);
    case
}

/// Leaves lines out while the relation stays broken: halves, then quarters, down to single lines, until none can go.
fn shrink(rule: &Rule, case: Case, alter: &dyn Fn(&mut Case)) -> (Case, String) {
    let broken = |case: &Case| match judge(rule, case, alter) {
        Ok(Judged::Broken(why)) => Some(why),
        _ => None,
    };
    let (mut best, mut why) = (case, String::new());
    if let Some(text) = broken(&best) {
        why = text;
    }
    let mut budget = 3000u32;
    let mut size = best.other.steps.len().max(best.base.steps.len()).max(1);
    while size > 0 && budget > 0 {
        let mut from = 0;
        let mut smaller = false;
        loop {
            let ids: Vec<u32> = all_ids(&best);
            if from >= ids.len() || budget == 0 {
                break;
            }
            let gone = ids.get(from..(from + size).min(ids.len())).unwrap_or_default();
            let fewer = without(&best, gone);
            budget -= 1;
            match Some(&fewer).filter(|c| (rule.keeps)(c)).and_then(broken) {
                Some(text) => (best, why, smaller) = (fewer, text, true),
                None => from += size,
            }
        }
        if !smaller || size > 1 {
            size /= 2;
        }
    }
    (best, why)
}

/// The numbers of all lines of both worlds, each once, in order.
fn all_ids(case: &Case) -> Vec<u32> {
    let mut ids: Vec<u32> = case.base.ops().chain(case.other.ops()).map(|s| s.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn without(case: &Case, gone: &[u32]) -> Case {
    let mut case = case.clone();
    for world in [&mut case.base, &mut case.other] {
        world.steps.retain(|step| step.is_none_or(|step| !gone.contains(&step.id)));
    }
    case
}

impl Counterexample {
    fn new(rule: &Rule, seed: u64, n: u64, why: String, case: Case) -> Counterexample {
        let Rule { id, says, .. } = rule;
        let head = format!("{id}: {says}\nseed {seed}, case {n}: {why}");
        let name = id.to_lowercase();
        let own = case.base.lines();
        let (seen, finals, shared) = match case.base.run() {
            Ok(ran) => {
                let shared = own.intersection(&case.other.lines()).copied().collect();
                let of = |lines| World::finals(&ran, lines);
                (case.base.seen(&ran), of(&own), of(&shared))
            }
            Err(_) => Default::default(),
        };
        let files = [
            case.base.text(&format!("{name}-first"), &head, &seen, &finals),
            case.other.text(&format!("{name}-second"), &head, &seen, &shared),
        ];
        Counterexample { id, seed, case: n, why, worlds: Box::new(case), files }
    }
}

/// Compares what agents saw in lines that both worlds have, in the form that `map` gives both.
pub(crate) fn same_outcomes(
    case: &Case,
    map: impl Fn(&Seen, &Seen) -> (Seen, Seen),
) -> Result<Judged, Unfit> {
    let (a, b) = (case.base.run()?, case.other.run()?);
    Ok(outcomes_of(case, &a, &b, map))
}

/// Nothing is changed before it is compared.
pub(crate) fn plain(one: &Seen, other: &Seen) -> (Seen, Seen) {
    (one.clone(), other.clone())
}

/// [`same_outcomes`] of worlds that have been run.
pub(crate) fn outcomes_of(
    case: &Case,
    a: &Ran,
    b: &Ran,
    map: impl Fn(&Seen, &Seen) -> (Seen, Seen),
) -> Judged {
    let (first, second) = (case.base.seen(a), case.other.seen(b));
    let mut compared = false;
    for (id, one) in &first {
        let Some(other) = second.get(id) else { continue };
        compared = true;
        let (one, other) = map(one, other);
        if one != other {
            let at = case.other.ops().find(|s| s.id == *id);
            let line = at.map_or_else(String::new, |s| case.other.line(s));
            return Judged::Broken(format!("`{line}` saw {one}, and {other}"));
        }
    }
    // Worlds that share no line say nothing about each other.
    if compared { Judged::Holds } else { Judged::Vacuous }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        make: fn(&mut Dice) -> Option<Case>,
        judge: fn(&Case) -> Result<Judged, Unfit>,
    ) -> Rule {
        Rule { id: "X1", says: "something", make, keeps: |_| true, judge }
    }
    fn world(dice: &mut Dice) -> Option<Case> {
        let base = generate::world(dice, Style::RAW)?.world;
        Some(Case { other: base.clone(), base, at: 0 })
    }
    fn nothing_altered(_: &mut Case) {}

    #[test]
    fn a_world_that_could_not_be_made_is_counted_as_skipped_and_is_no_check() {
        let one_in_eight = |dice: &mut Dice| if dice.one_in(8) { world(dice) } else { None };
        let made = check_rule(&rule(one_in_eight, |_| Ok(Judged::Holds)), 1, 80, &nothing_altered);
        assert_eq!((made.witnesses + made.skipped, made.cases), (80, 80));
        assert!((1..16).contains(&made.witnesses) && made.violation.is_none(), "{}", made.told());
        assert!(!made.says_enough(), "{}", made.told());
        let all = check_rule(&rule(world, |_| Ok(Judged::Holds)), 1, 5, &nothing_altered);
        assert_eq!((all.witnesses, all.skipped, all.says_enough()), (5, 0, true));
        // What the relation says nothing of is neither.
        let none = check_rule(&rule(world, |_| Ok(Judged::Vacuous)), 1, 5, &nothing_altered);
        assert_eq!((none.witnesses, none.skipped, none.says_enough()), (0, 0, false));
    }

    #[test]
    fn a_world_that_was_made_and_does_not_fit_is_a_violation() {
        let unfit = |_: &Case| Err(Unfit("no room".to_owned()));
        let found = check_rule(&rule(world, unfit), 1, 5, &nothing_altered).violation.unwrap();
        assert_eq!((found.case, found.why.as_str()), (0, "no room"));
    }
}
