# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tdxsim_global_optspecs
    string join \n h/help V/version
end

function __fish_tdxsim_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tdxsim_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tdxsim_using_subcommand
    set -l cmd (__fish_tdxsim_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tdxsim -n "__fish_tdxsim_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -s V -l version -d 'Print version'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "list" -d 'List the built-in scenarios'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "run" -d 'Run scenarios and tell what happened, and why'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "explore" -d 'Search every interleaving and every other choice of hardware for what a scenario\'s agents may see'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "replay" -d 'Replay the address trace of a real program'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "dram" -d 'Drive bare DDR5 channels from a trace or a named pattern'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "explain" -d 'Explain a leaf, a status, a state, a Secure-EPT entry, machine-check registers or a kernel log line'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "platform" -d 'Show the platforms and where their numbers come from'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "validate" -d 'Hold a platform\'s memory system against published measurements and its own formulas'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "invariants" -d 'Exercise the invariants of verification.md §2, and say how often each had something to say'
complete -c tdxsim -n "__fish_tdxsim_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand list" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l platform -d 'Platform: spr, emr, gnr or a platform file. Replaces the scenario\'s own' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l set -d 'Change a platform parameter, such as `cpu.rfo_poison_mc=true`. May be repeated' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l seed -d 'Seed of keys and power-on content' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l speed -d 'How much of time is modelled' -r -f -a "timed\t'Requests run through queues and DRAM'
functional\t'Every operation costs the same'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l integrity -d 'Integrity mode, ci or li. Replaces the scenario\'s own' -r -f -a "ci\t''
li\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l crypto -d 'Cryptography, symbolic or real. Replaces the scenario\'s own' -r -f -a "symbolic\t''
real\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l command-trace -d 'Write every DDR5 command to this file' -r -F
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l command-trace-format -d 'Form of that file' -r -f -a "tdxsim\t'With every parameter that a checker needs in its head; docs/dram.md describes it'
dramsim3\t'The columns of DRAMsim3: clock, command, channel, rank, bank group, bank, row, column'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l all -d 'Run every built-in scenario'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l no-skip -d 'Look at every clock edge of DRAM instead of at those at which something can happen. Slow; the same bytes come out'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -l check -d 'Check every operation against the reference model, and every call of the TDX module against the monitor'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -s q -l quiet -d 'Only the verdicts'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l study -d 'A table of explorations instead: reclaim-order (who is harmed by which order of private flush and clear), or physical-attacks (which are accepted, which detected)' -r -f -a "reclaim-order\t''
physical-attacks\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l lines-per-page -d 'By how many of its first lines a page is represented, 1 to 64' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l states -d 'Different states at most' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l memory -d 'Memory for states at most: about 4 KiB each, 64 KiB in a program that uses the TDX module' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l transitions -d 'Transitions at most' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l store-buffer -d 'Ordinary stores that a core may hold back where agents run side by side, as in x86-TSO, 0 to 8; 0: each is visible at once' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l write -d 'Write the counterexample to this file; with more than one, the others to FILE.2, FILE.3 and so on. Of a study: all its runs into this directory' -r -F
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l platform -d 'Platform: spr, emr, gnr or a platform file. Replaces the scenario\'s own' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l set -d 'Change a platform parameter. May be repeated' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l integrity -d 'Integrity mode, ci or li. Replaces the scenario\'s own' -r -f -a "ci\t''
li\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l configurations -d 'The small configurations of the reference model that are searched as a whole instead, with their numbers of states'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -l prefetch -d 'Let cores fill lines that nobody asked for'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l trace-format -d 'Form of the trace (docs/traces.md); found out where absent' -r -f -a "lackey\t''
ramulator\t''
ramulator-vector\t''
ramulator-dram\t''
simple-o3\t''
dramsim3\t''
usimm\t''
dramsys\t''
dramsys-relative\t''
champsim\t''
gem5\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l keyid -d 'Use this shared KeyID instead of KeyID 0' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l limit -d 'Stop after so many records' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l command-trace -d 'Write every DDR5 command to this file' -r -F
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l command-trace-format -d 'Form of that file' -r -f -a "tdxsim\t'With every parameter that a checker needs in its head; docs/dram.md describes it'
dramsim3\t'The columns of DRAMsim3: clock, command, channel, rank, bank group, bank, row, column'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l platform -d 'Platform: spr, emr, gnr or a platform file. Replaces the scenario\'s own' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l set -d 'Change a platform parameter, such as `cpu.rfo_poison_mc=true`. May be repeated' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l seed -d 'Seed of keys and power-on content' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l speed -d 'How much of time is modelled' -r -f -a "timed\t'Requests run through queues and DRAM'
functional\t'Every operation costs the same'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l td -d 'Place the program in a TD: its pages are accepted at first touch and used under a private KeyID'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l allow-truncated -d 'Replay a trace that ends in the middle of a record up to there'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l dram-only -d 'Leave cores and caches out: each record goes to DRAM itself, as `tdxsim dram FILE` has it'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -l no-skip -d 'Look at every clock edge of DRAM instead of at those at which something can happen. Slow; the same bytes come out'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l pattern -d 'Requests made up by rule, on one channel of one package unless --set dram.channels and cpu.packages say more' -r -f -a "sequential-read\t''
sequential-write\t''
random-read\t''
mix\t''
partial-write\t''
chain\t''
sparse\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l requests -d 'How many requests a pattern makes' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l footprint -d 'Bytes from address 0 that a pattern goes to' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l gap -d 'Clocks between two requests of a pattern; 0 for as fast as the queues take them (default: 1000 for sparse, else 0)' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l outstanding -d 'Requests in flight at most; 0 for as many as the queues take (default: 1 for chain, else 0)' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l trace-format -d 'Form of the trace (docs/traces.md); found out where absent' -r -f -a "lackey\t''
ramulator\t''
ramulator-vector\t''
ramulator-dram\t''
simple-o3\t''
dramsim3\t''
usimm\t''
dramsys\t''
dramsys-relative\t''
champsim\t''
gem5\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l limit -d 'Stop after so many records of the trace' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l keyid -d 'Use this shared KeyID instead of KeyID 0' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l command-trace -d 'Write every DDR5 command to this file' -r -F
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l command-trace-format -d 'Form of that file' -r -f -a "tdxsim\t'With every parameter that a checker needs in its head; docs/dram.md describes it'
dramsim3\t'The columns of DRAMsim3: clock, command, channel, rank, bank group, bank, row, column'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l platform -d 'Platform: spr, emr, gnr or a platform file (default spr)' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l set -d 'Change a platform parameter, such as `dram.channels=8`. May be repeated' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l seed -d 'Seed of the pattern, keys and power-on content' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'
csv\t'A name, a value and a unit to a line'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l allow-truncated -d 'Run a trace that ends in the middle of a record up to there'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l td -d 'Make requests in a TD: all memory was accepted in it before, and requests carry a private KeyID'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l no-integrity -d 'Leave TD bits, MACs and poison out: DRAM alone'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l no-skip -d 'Look at every clock edge instead of at those at which something can happen. Slow; the same bytes come out'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -l check -d 'Check every command against the rules of DDR5, by a checker that knows nothing else'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand dram" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explain" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and not __fish_seen_subcommand_from list show help" -s h -l help -d 'Print help'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and not __fish_seen_subcommand_from list show help" -f -a "list" -d 'List the built-in platforms'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and not __fish_seen_subcommand_from list show help" -f -a "show" -d 'Show every parameter with its source, and whether it is assumed'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and not __fish_seen_subcommand_from list show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and __fish_seen_subcommand_from show" -l set -d 'Change a parameter. May be repeated' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and __fish_seen_subcommand_from show" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the built-in platforms'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show every parameter with its source, and whether it is assumed'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand platform; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand validate" -l platform -d 'Platform: spr, emr, gnr or a platform file' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand validate" -l set -d 'Change a platform parameter. May be repeated' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand validate" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'
csv\t'Comma-separated values'
markdown\t'As the book has it'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand validate" -l list -d 'List the experiments'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand validate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand invariants" -l group -d 'Only this group: L, C, P, S, T, H, E, V, R, Q, N or M' -r -f -a "L\t''
C\t''
P\t''
S\t''
T\t''
H\t''
E\t''
V\t''
R\t''
Q\t''
N\t''
M\t''"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand invariants" -l id -d 'Only this invariant, such as T3' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand invariants" -l effort -d 'How much is done: what the command is for, or just enough for each to have something to say' -r -f -a "full\t'Up to four cells of each scenario of the library, and long random runs'
small\t'A cell of each scenario, and short ones'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand invariants" -l seed -d 'Seed of everything random' -r
complete -c tdxsim -n "__fish_tdxsim_using_subcommand invariants" -l format -d 'Form of the output' -r -f -a "human\t'For people'
json\t'One JSON object, described by a schema in docs/schemas'"
complete -c tdxsim -n "__fish_tdxsim_using_subcommand invariants" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "list" -d 'List the built-in scenarios'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "run" -d 'Run scenarios and tell what happened, and why'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "explore" -d 'Search every interleaving and every other choice of hardware for what a scenario\'s agents may see'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "replay" -d 'Replay the address trace of a real program'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "dram" -d 'Drive bare DDR5 channels from a trace or a named pattern'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "explain" -d 'Explain a leaf, a status, a state, a Secure-EPT entry, machine-check registers or a kernel log line'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "platform" -d 'Show the platforms and where their numbers come from'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "validate" -d 'Hold a platform\'s memory system against published measurements and its own formulas'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "invariants" -d 'Exercise the invariants of verification.md §2, and say how often each had something to say'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and not __fish_seen_subcommand_from list run explore replay dram explain platform validate invariants help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and __fish_seen_subcommand_from platform" -f -a "list" -d 'List the built-in platforms'
complete -c tdxsim -n "__fish_tdxsim_using_subcommand help; and __fish_seen_subcommand_from platform" -f -a "show" -d 'Show every parameter with its source, and whether it is assumed'
