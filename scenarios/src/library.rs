//! The built-in library: every scenario in `scenarios/library/`, shipped in the binary.

use crate::diag::{Diag, SourceFile};
use sim_core::units::clip;

/// One built-in scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name: the file's without `.toml`.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
}

impl Entry {
    /// The file, by name and text.
    pub fn source(&self) -> SourceFile {
        SourceFile::unchecked(&format!("{}.toml", self.name), self.text)
    }
}

macro_rules! library {
    ($($name:literal)*) => {
        /// All built-in scenarios, by name.
        pub const LIBRARY: &[Entry] = &[
            $(Entry {
                name: $name,
                text: include_str!(concat!("../library/", $name, ".toml")),
            },)*
        ];
    };
}

library! {
    "al-1"
    "al-1-flushed"
    "al-2-clean"
    "al-2-dirty"
    "al-3"
    "al-4"
    "al-5"
    "al-6"
    "al-6-uninitialised"
    "al-7-host-last"
    "al-7-private-last"
    "attack-clear-td"
    "attack-flip-bit"
    "attack-rekey"
    "attack-replay"
    "attack-splice"
    "clear-a-page"
    "clear-with-movdir64b"
    "dma-private-keyid"
    "dma-reads-poison"
    "fast-string-overwrites-poison"
    "forgotten-flush-to-private"
    "forgotten-flush-to-shared"
    "host-private-keyid"
    "measured-erratum"
    "measured-erratum-same-value"
    "measured-host-read"
    "measured-host-write-read"
    "measured-other-key"
    "measured-td-read"
    "module-consumes-poison"
    "pamt-overwritten"
    "partial-write"
    "prefetch-is-silent"
    "reclaim-poisoned"
    "reclaim-uncleared-partial"
    "reclaim-uncleared-read"
    "source-cached-store"
    "source-dma"
    "source-fence-inside-line"
    "source-movdiri"
    "source-movnti"
    "source-movnti-full-line"
    "source-uc"
    "source-wc-evicted"
    "store-keeps-poison"
    "td-hello"
    "td-killed"
    "td-lifecycle"
    "two-cpus-one-line"
    "user-sigbus"
    "weak-movdir64b"
}

/// The built-in scenario of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    LIBRARY.iter().find(|e| e.name == name)
}

/// There is no built-in scenario of that name.
pub fn unknown(name: &str) -> Diag {
    let file = SourceFile::unchecked("command line", name);
    let close = LIBRARY.iter().find(|e| e.name.contains(name) && !name.is_empty());
    let expected = match close {
        Some(entry) => format!("a built-in scenario: did you mean `{}`?", entry.name),
        None => "a built-in scenario (see `tdxsim list`) or a file".to_owned(),
    };
    file.diag(0..name.len(), format!("`{}`", clip(name)), expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_directory_is_in_the_library_and_sorted() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/library");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter_map(|f| f.strip_suffix(".toml").map(str::to_owned))
            .collect();
        files.sort();
        let names: Vec<&str> = LIBRARY.iter().map(|e| e.name).collect();
        assert_eq!(files, names);
    }
}
