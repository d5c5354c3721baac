//! Everything that is generated: pages of tables, schemas, the manual pages and the completions. The files are
//! committed; a test sees that they equal what the code says.

use clap_complete::Shell;
use schemars::JsonSchema;
use sim_core::platform::IntegrityMode;
use std::fmt::Write;

const HEAD: &str = "<!-- Generated from the code by `cargo run -p xtask`; do not edit. -->\n\n";

/// A page: title, introduction, and sections of a heading and a table.
fn page(title: &str, intro: &str, sections: &[(&str, String)]) -> String {
    let mut text = format!("{HEAD}# {title}\n\n{intro}\n");
    for (heading, table) in sections {
        let _ = write!(text, "\n## {heading}\n\n{}", table.trim_end());
        text.push('\n');
    }
    text
}

fn operations() -> String {
    let mut table = String::from("| Operation | Operands | Meaning |\n|---|---|---|\n");
    for m in sim_core::op::MNEMONICS {
        let operands = m.operands.replace('|', "\\|");
        let _ = writeln!(table, "| `{}` | {operands} | {} |", m.name, m.meaning);
    }
    let _ = write!(table, "\n{}\n", sim_core::op::REGS);
    table
}

fn exit_codes() -> String {
    let mut table = String::from("| Code | Meaning |\n|---|---|\n");
    for (_, code, meaning) in tdxsim::exit::TABLE {
        let _ = writeln!(table, "| {code} | {meaning} |");
    }
    table
}

fn schema<T: JsonSchema>(name: &str) -> (String, String) {
    let schema = schemars::schema_for!(T);
    // A schema is plain JSON; printing it cannot fail.
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    (format!("docs/schemas/{name}.schema.json"), text + "\n")
}

fn manual() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut todo = vec![("tdxsim".to_owned(), tdxsim::cli::command())];
    while let Some((name, command)) = todo.pop() {
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            todo.push((format!("{name}-{}", sub.get_name()), sub.clone()));
        }
        let mut page = Vec::new();
        let command = command.version(env!("CARGO_PKG_VERSION")).display_name(name.clone());
        let man = clap_mangen::Man::new(command).title(name.clone()).date("");
        if man.render(&mut page).is_ok() {
            let text = String::from_utf8_lossy(&page).into_owned();
            files.push((format!("docs/man/{name}.1"), text));
        }
    }
    files
}

fn completions() -> Vec<(String, String)> {
    [(Shell::Bash, "tdxsim.bash"), (Shell::Zsh, "_tdxsim"), (Shell::Fish, "tdxsim.fish")]
        .into_iter()
        .map(|(shell, name)| {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut tdxsim::cli::command(), "tdxsim", &mut script);
            (format!("docs/completions/{name}"), String::from_utf8_lossy(&script).into_owned())
        })
        .collect()
}

/// What stands above the tables of docs/validation.md.
const VALIDATION: &str = "# Validation

What the memory system of the platform `spr` does, beside what was measured on Sapphire Rapids and beside its own formulas.
This page and `validation.csv` are written by `cargo run --release -p xtask`; `tdxsim validate` prints the same numbers for any platform
(`tdxsim validate --platform emr --set dram.ranks=1`), and ends with exit code 1 if a row does not hold.

How to read *standing*:

- **fitted**: parameters were chosen so that this comes out. The row shows that the fit holds, not that the model is right. Which
  parameters, and to what, is said beside each in `tdxsim platform show spr`.
- **predicted**: nothing was chosen for it.
- **exact**: a property that the model must have, whatever silicon does; the expectation is computed from the parameters.

An access that misses L2 spends, outside DRAM, the sum of: `cpu.l2_clocks` and `cpu.miss_clocks` at the core clock; twice `uncore.ingress`,
`uncore.home` and `uncore.hop` per tile at the uncore clock; then `uncore.llc_data` if the LLC answers, `uncore.snoop` (and
`uncore.snoop_modified`) if a core does, `uncore.controller` if memory does, and `latency.xts` and, under a KeyID with integrity in Ci, `latency.mac` for
decryption and check; `uncore.remote` for another package. DRAM itself is simulated command by command.

";

/// docs/validation.md and its numbers as CSV: every experiment on the platform `spr`.
fn validation() -> [(String, String); 2] {
    let preset = scenarios::platform::Origin::Preset("spr".to_owned());
    let bench = scenarios::validate::Bench::new(preset, Vec::new());
    let results = scenarios::validate::validate(&bench, &[], |_| ()).unwrap_or_default();
    let (page, csv) = (format!("{VALIDATION}{}", results.markdown()), results.csv());
    let page = format!("{}\n", page.trim_end());
    [("docs/validation.md".to_owned(), page), ("docs/validation.csv".to_owned(), csv)]
}

/// Every generated file, by its path from the root.
pub fn files() -> Vec<(String, String)> {
    let pages = [
        (
            "memory-controller",
            page(
                "What the memory controller does",
                "The tables of `mktme`, laid out as architecture.md §2.2, §2.3 and §2.6.",
                &[
                    ("Reads in Ci mode", mktme::tables::reads_markdown(IntegrityMode::Ci)),
                    ("Reads in Li mode", mktme::tables::reads_markdown(IntegrityMode::Li)),
                    ("Writes", mktme::tables::writes_markdown()),
                    ("The erratum", mktme::tables::erratum_markdown()),
                    ("What is a partial write", mktme::tables::write_sources_markdown()),
                    ("Which births of poison are logged", mktme::tables::birth_signals_markdown()),
                    ("Algorithms that PCONFIG accepts", mktme::tables::pconfig_algs_markdown()),
                ],
            ),
        ),
        (
            "caches",
            page(
                "What the caches do",
                "The tables of `cache`: the state of a core's copy of one (line, KeyID), what each flush does, and what goes to a line's home.",
                &[
                    ("Transitions", cache::mesi::transitions_markdown()),
                    ("Flushes", cache::flushes::flushes_markdown()),
                    ("Transactions", cache::transaction::transactions_markdown()),
                ],
            ),
        ),
        (
            "dram",
            page(
                "DDR5",
                "The tables of `mktme::dram`. Rows whose standing is not \"Verified\" are recalled or assumed.",
                &[
                    ("Parameters", mktme::dram::timing::timing_markdown()),
                    ("Constraints", mktme::dram::constraint::constraints_markdown()),
                    ("Organisation", mktme::dram::organisation::organisation_markdown()),
                    ("Address maps", mktme::dram::map::map_markdown()),
                ],
            ),
        ),
        (
            "machine-checks",
            page(
                "How Linux grades a machine check",
                "The table of `host`: the first row that matches decides (architecture.md §6.4).",
                &[("Rules", host::mce::severity_markdown())],
            ),
        ),
        (
            "tdx-abi",
            page(
                "The TDX binary interface",
                "The tables of `sim_core::tdx`, which `tdxsim explain` reads.",
                &[
                    ("Statuses", sim_core::tdx::statuses_markdown()),
                    ("Operands", sim_core::tdx::operands_markdown()),
                    ("Leaves", sim_core::tdx::leaves_markdown()),
                    ("Checks of each leaf, in order", sim_core::tdx::leaf_checks_markdown()),
                    ("Outcomes of TDCALLs, in order", sim_core::tdx::guest_leaf_checks_markdown()),
                    ("Page types", sim_core::tdx::page_types_markdown()),
                    ("Exit reasons", sim_core::tdx::exit_reasons_markdown()),
                ],
            ),
        ),
        (
            "secure-ept",
            page(
                "Secure-EPT and the states of a TD",
                "The tables of `tdx_module`, laid out as architecture.md §7.5, §7.6 and §7.9.",
                &[
                    ("States of an entry", tdx_module::sept::states_markdown()),
                    ("Transitions", tdx_module::sept::transitions_markdown()),
                    ("States that a leaf allows", tdx_module::sept::leaf_states_markdown()),
                    ("Acceptance", tdx_module::sept::accept_markdown()),
                    ("States of a TD and of an HKID", tdx_module::op_state::states_markdown()),
                    (
                        "Leaves and the OP_STATEs that allow them",
                        tdx_module::op_state::permissions_markdown(),
                    ),
                ],
            ),
        ),
        (
            "tdx-module",
            page(
                "The TDX module, leaf by leaf",
                "The tables of `tdx_module`: what a leaf takes, locks, touches and may leave changed. `tdxsim explain` reads \
                 the same tables; [how to drive the module](../tdx-module.md) is another page. Checks and statuses are in \
                 [the binary interface](tdx-abi.md), states in [Secure-EPT](secure-ept.md).",
                &[
                    ("Leaves", tdx_module::profile::profiles_markdown()),
                    ("Not modelled", tdx_module::not_modelled_markdown()),
                    ("What a failed leaf may have changed", tdx_module::failure_effects_markdown()),
                    ("Registers that a leaf zeroes as it begins", tdx_module::zeroed_markdown()),
                    ("Life of a TD and its HKID", tdx_module::profile::key_steps_markdown()),
                    ("TD exits", tdx_module::exits_markdown()),
                    ("Accesses that the Secure-EPT refuses", tdx_module::faults_markdown()),
                    ("TDX_FEATURES0", tdx_module::fields::features_markdown()),
                    ("Fields of the module", tdx_module::fields::sys_fields_markdown()),
                    ("Fields of a TD", tdx_module::fields::td_fields_markdown()),
                    ("Fields of a VCPU", tdx_module::vp_fields_markdown()),
                ],
            ),
        ),
        (
            "operations",
            page(
                "Words of a scenario",
                "What a scenario file may say; [the format](../scenario-format.md) explains how.",
                &[
                    ("Operations", operations()),
                    ("Agents", scenarios::format::agent_kinds_markdown()),
                    ("Outcomes", scenarios::format::outcomes_markdown()),
                    ("Final checks", scenarios::format::final_checks_markdown()),
                    ("Registers of calls", scenarios::report::calls::call_forms_markdown()),
                ],
            ),
        ),
        (
            "inputs",
            page(
                "Input files",
                "What is accepted and what is refused, always with exit code 2 and one message.",
                &[
                    (
                        "Bytes of scenario and platform files",
                        scenarios::diag::bytes_rules_markdown(),
                    ),
                    ("Trace formats", scenarios::trace::formats_markdown()),
                    ("Commands of gem5 packets", scenarios::trace::commands_markdown()),
                    ("Platform parameters", scenarios::platform::params_markdown()),
                    ("Exit codes", exit_codes()),
                ],
            ),
        ),
        (
            "platforms",
            page(
                "Platforms",
                "Every parameter of the built-in platforms, as `tdxsim platform show` prints it.",
                &[("Presets", scenarios::platform::presets_markdown().unwrap_or_default())],
            ),
        ),
        (
            "ddr5-rules",
            page(
                "What the DDR5 checker knows",
                "The tables of `verify::ddr5`, which judges command traces and knows nothing of the controller \
                 (verification.md §2.11, §5.2). A pair that is of the same bank is of the same rank too and keeps both rows.",
                &[
                    ("Rules", verify::ddr5::rules_markdown()),
                    ("Parameters", verify::ddr5::params_markdown()),
                    ("Parameters that can be true together", verify::ddr5::sanity_markdown()),
                    ("Checks of a run", verify::ddr5::run::timing_markdown()),
                ],
            ),
        ),
        (
            "statistics",
            page(
                "Statistics",
                "Every counter that a command prints, and the rules that are checked at the end of every run: one that does \
                 not hold is a fault of the simulator and ends it with exit code 3. A rule is looked at where a run has all \
                 of its statistics.",
                &[
                    ("Counters", scenarios::stats::statistics_markdown()),
                    ("Rules", scenarios::stats::rules_markdown()),
                    ("Patterns of `tdxsim dram`", scenarios::dram::patterns_markdown()),
                ],
            ),
        ),
        (
            "invariants",
            page(
                "Invariants",
                "Every invariant of verification.md §2: its kind (S a state, T a step or a trace, X runs compared, Q time), what holds, \
                 what it is judged on, and the planted bug that it is known to catch. `tdxsim invariants` exercises them and counts \
                 how often each had something to say.",
                &[("Invariants", verify::invariants::invariants_markdown())],
            ),
        ),
    ];
    let mut files: Vec<(String, String)> =
        pages.into_iter().map(|(name, text)| (format!("docs/generated/{name}.md"), text)).collect();
    files.extend(validation());
    files.push(schema::<scenarios::report::Document>("run"));
    files.push(schema::<scenarios::explore::report::Document>("explore"));
    files.push(schema::<scenarios::explore::study::Study>("study"));
    files.push(schema::<scenarios::report::Catalogue>("list"));
    files.push(schema::<scenarios::replay::ReplayReport>("replay"));
    files.push(schema::<scenarios::validate::ValidateReport>("validate"));
    files.push(schema::<scenarios::dram::DramReport>("dram"));
    files.push(schema::<scenarios::exercise::InvariantsReport>("invariants"));
    files.push(schema::<tdxsim::commands::Explained>("explain"));
    files.push(schema::<tdxsim::commands::Shown>("platform"));
    files.extend(manual());
    files.extend(completions());
    files.sort();
    files
}
