//! Scenarios: their format, the built-in library, running them, and what a run reports; replay of traces.
//!
//! Here host, machine and verify meet. Nothing in this room prints: it returns data and errors, which `tdxsim` shows.

pub mod commands;
pub mod diag;
pub mod dram;
pub mod exercise;
pub mod explore;
pub mod format;
pub mod fuzz;
pub mod library;
pub mod platform;
pub mod refine;
pub mod relations;
pub mod replay;
pub mod report;
pub mod run;
pub mod setup;
pub mod stats;
pub mod trace;
pub mod validate;
pub mod view;
