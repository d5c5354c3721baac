//! The vocabulary of tdxsim: what every room of the house speaks.
//!
//! Addresses, KeyIDs, simulated time, operations and their one grammar, outcomes, events and the poison ledger, platform
//! parameters, machine-check registers, the port between caches and memory controller, the event engine and the pinned
//! generator.
//!
//! What must never be here (docs/ARCHITECTURE.md): input or output, a file format, a float in a state or a decision, a
//! hasher whose order is not fixed.

pub mod addr;
pub mod data;
pub mod engine;
pub mod event;
pub mod keyid;
pub mod mca;
pub mod op;
pub mod outcome;
pub mod planted;
pub mod platform;
pub mod port;
pub mod prng;
pub mod setting;
pub mod tdx;
pub mod time;
pub mod units;

pub use addr::{Addr, Hpa, LINE_BYTES, LINES_PER_PAGE, Line, PAGE_BYTES, Page, Tagged};
pub use data::{ByteMask, LineData};
pub use event::{BirthId, EventId, EventKind, Trace};
pub use keyid::{KeyId, KeyIdLayout};
pub use op::Op;
pub use outcome::Outcome;
pub use planted::{Fault, Planted};
pub use platform::PlatformSpec;
pub use time::Ps;
