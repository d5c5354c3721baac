//! The modelled Linux host. It can be wrong, as real kernels are; it never sees line state.

pub mod mce;
