//! Settings of a run that several rooms speak of: who acts, in which order, and with which cryptography.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How the lines of a program follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Order {
    /// A line starts when the line above has completed.
    #[default]
    #[serde(rename = "program")]
    Program,
    /// Agents run side by side, each its own lines in order; `barrier` lines join them.
    #[serde(rename = "concurrent")]
    Concurrent,
}

/// What stands for AES-XTS and the MAC.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum CryptoKind {
    /// Keys and tags as symbols: a wrong key gives garbage, a MAC never matches by chance.
    #[default]
    #[serde(rename = "symbolic")]
    Symbolic,
    /// Real AES-XTS and a MAC of `memory.mac_bits` bits.
    #[serde(rename = "real")]
    Real,
}

/// What an agent is: it decides which KeyIDs it can emit (architecture.md §2.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum AgentKind {
    /// The host kernel on a core.
    #[serde(rename = "kernel")]
    Kernel,
    /// A host user process on a core.
    #[serde(rename = "user")]
    User,
    /// SEAM root, the TDX module, on a core.
    #[serde(rename = "seam")]
    Seam,
    /// SEAM non-root, a TD, on a core.
    #[serde(rename = "td")]
    Td,
    /// SEAM non-root, a VCPU of a TD, on whichever core has entered it. Its addresses are guest addresses.
    #[serde(rename = "guest")]
    Guest,
    /// A device that does DMA.
    #[serde(rename = "device")]
    Device,
    /// The hardware's own choices, and physical faults and attacks.
    #[serde(rename = "hw")]
    Hardware,
}

macro_rules! words {
    ($ty:ident: $($variant:ident $word:literal),* $(,)?) => {
        impl $ty {
            /// Every value, in order.
            pub const ALL: &[$ty] = &[$($ty::$variant),*];
            /// The word of a scenario file.
            pub const fn word(self) -> &'static str {
                match self { $($ty::$variant => $word),* }
            }
            /// The value of that word.
            pub fn from_word(word: &str) -> Option<$ty> {
                $ty::ALL.iter().copied().find(|v| v.word() == word)
            }
        }
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
words!(Order: Program "program", Concurrent "concurrent");
words!(CryptoKind: Symbolic "symbolic", Real "real");
words!(AgentKind: Kernel "kernel", User "user", Seam "seam", Td "td", Guest "guest", Device "device", Hardware "hw");

impl AgentKind {
    /// Whether the agent is a thread on a core of its own.
    pub const fn has_core(self) -> bool {
        !matches!(self, AgentKind::Guest | AgentKind::Device | AgentKind::Hardware)
    }
}
