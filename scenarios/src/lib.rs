//! Under construction.

pub mod diag;
pub mod format;
pub mod platform;
