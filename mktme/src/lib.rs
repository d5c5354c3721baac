//! The memory controller: line store, keys, crypto and MAC, check tables, partial writes, RAS log, DDR5.
//!
//! It sees requests with a KeyID and nothing else: no TD, no Secure-EPT, no SEAMCALL and never the CPU mode
//! (architecture.md §2.1 2.1.2).

pub mod dram;
