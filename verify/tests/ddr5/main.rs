//! The DDR5 checker against traces whose faults are known.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod pairs;
mod refresh;
mod run;
mod slow;
mod states;
mod tables;
mod text;
