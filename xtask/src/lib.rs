//! The developers' own commands: what is generated, and what keeps the house in order.

pub mod arrows;
pub mod generate;
