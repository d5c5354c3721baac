//! The TDX module.
