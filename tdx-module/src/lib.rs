//! The TDX module.

pub mod op_state;
pub mod sept;
