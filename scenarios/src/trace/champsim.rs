//! ChampSim's records: one instruction each, 64 bytes (peers.md §2.7; ChampSim inc/trace_instruction.h).

use super::format::{Access, AccessKind, TRANSACTION_BYTES, When};
use arrayvec::ArrayVec;
use std::num::NonZeroU32;

/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 64;

/// Memory operands of an instruction: four that it reads and two that it writes.
pub(super) const OPERANDS_MAX: usize = 6;

/// The register numbers that ChampSim's tracers give to three registers (inc/trace_instruction.h); 0 is none.
const NO_REGISTER: u8 = 0;
const STACK_POINTER: u8 = 6;
const FLAGS: u8 = 25;
const INSTRUCTION_POINTER: u8 = 26;

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Instruction {
    pub(super) ip: u64,
    pub(super) is_branch: u8,
    pub(super) branch_taken: u8,
    pub(super) writes: [u8; 2],
    pub(super) reads: [u8; 4],
    pub(super) stores: [u64; 2],
    pub(super) loads: [u64; 4],
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// Which byte of the record.
    pub(super) at: usize,
    /// Its name in the form.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) found: u8,
}

impl Instruction {
    /// Reads a record.
    ///
    /// # Errors
    /// A truth value that is neither 0 nor 1: the file is no such trace, or has lost bytes. (ChampSim takes any value.)
    pub(super) fn decode(record: &[u8; RECORD_BYTES]) -> Result<Instruction, Fault> {
        let (words, _) = record.as_chunks::<8>();
        let word = |i: usize| words.get(i).map_or(0, |word| u64::from_le_bytes(*word));
        let [is_branch, branch_taken, w0, w1, reads @ ..] = word(1).to_le_bytes();
        for (at, name, found) in [(8, "is_branch", is_branch), (9, "branch_taken", branch_taken)] {
            if found > 1 {
                return Err(Fault { at, name, found });
            }
        }
        Ok(Instruction {
            ip: word(0),
            is_branch,
            branch_taken,
            writes: [w0, w1],
            reads,
            stores: [word(2), word(3)],
            loads: [word(4), word(5), word(6), word(7)],
        })
    }

    #[cfg(test)]
    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = Vec::new();
        out.extend(self.ip.to_le_bytes());
        out.extend([self.is_branch, self.branch_taken]);
        out.extend(self.writes);
        out.extend(self.reads);
        out.extend(self.stores.iter().chain(&self.loads).flat_map(|word| word.to_le_bytes()));
        out.try_into().unwrap()
    }
}

/// Whether these are records, as far as one can see ([`super::FORMATS`] says how): every whole one, of which there must be
/// one.
pub(super) fn is_likely(bytes: &[u8]) -> bool {
    let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
    let good = |record| {
        Instruction::decode(record).is_ok_and(|one| one.ip != 0 && matches!(one.ip >> 56, 0 | 0xff))
    };
    !records.is_empty() && records.iter().all(good)
}

/// Which loads the registers come from, and how many instructions had no memory operand since the last that had.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// By register: the number, from 1, of the youngest load that its value comes from; 0 for none.
    youngest: [u64; 256],
    gap: u64,
}

impl Flow {
    pub(super) fn new() -> Box<Flow> {
        Box::new(Flow { youngest: [0; 256], gap: 0 })
    }

    fn youngest_mut(&mut self, register: u8) -> Option<&mut u64> {
        self.youngest.get_mut(usize::from(register))
    }

    /// The accesses of an instruction in their order: what it reads, then what it writes. `handed_out` accesses came before.
    ///
    /// An instruction waits for the youngest load behind its source registers, and its stores wait for its own loads too. The
    /// form does not say which source is address and which is data, so a store waits for both. The instruction pointer is no
    /// source: the trace is the predicted path. The stack pointer is none either where an instruction moves it by a fixed
    /// amount, which ChampSim calls stack pointer folding (src/ooo_cpu.cc): a write to it by a branch, by an instruction with
    /// memory operands, or by one that reads nothing but it, flags and instruction pointer makes no dependence.
    pub(super) fn step(
        &mut self,
        one: &Instruction,
        handed_out: u64,
    ) -> ArrayVec<Access, OPERANDS_MAX> {
        let mut out = ArrayVec::new();
        let is_source = |register: &u8| !matches!(*register, NO_REGISTER | INSTRUCTION_POINTER);
        let sources = one.reads.iter().copied().filter(is_source);
        let mut value = sources
            .filter_map(|register| self.youngest.get(usize::from(register)).copied())
            .max()
            .unwrap_or(0);
        let mut number = handed_out;
        let mut when = When::Gap(self.gap);
        let operands = |list: &[u64]| list.iter().copied().filter(|addr| *addr != 0).count();
        let has_memory = operands(&one.loads) + operands(&one.stores) > 0;
        for (kind, list) in
            [(AccessKind::Load, one.loads.as_slice()), (AccessKind::Store, one.stores.as_slice())]
        {
            for addr in list.iter().copied().filter(|addr| *addr != 0) {
                number += 1;
                let distance = if value == 0 { 0 } else { number - value };
                let access = Access {
                    when,
                    ip: Some(one.ip),
                    depends_on: u32::try_from(distance).ok().and_then(NonZeroU32::new),
                    ..Access::new(kind, addr, TRANSACTION_BYTES)
                };
                out.push(access);
                when = When::Gap(0);
            }
            if kind == AccessKind::Load && number > handed_out {
                value = number;
            }
        }
        self.gap = if has_memory { 0 } else { self.gap.saturating_add(1) };
        let reads_other = one.reads.iter().any(|register| {
            !matches!(*register, NO_REGISTER | STACK_POINTER | FLAGS | INSTRUCTION_POINTER)
        });
        let folds = one.is_branch != 0 || has_memory || !reads_other;
        for register in one.writes {
            let is_kept = match register {
                NO_REGISTER | INSTRUCTION_POINTER => true,
                STACK_POINTER => folds,
                _ => false,
            };
            if !is_kept && let Some(youngest) = self.youngest_mut(register) {
                *youngest = value;
            }
        }
        out
    }
}
