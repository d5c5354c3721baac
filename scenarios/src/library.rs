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
    "accept-2m"
    "accept-2m-interrupted"
    "accept-4k"
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
    "aug-2m-against-a-4k-leaf"
    "aug-2m-where-a-vcpu-runs"
    "bring-up-in-wrong-orders"
    "cache-wb-interrupted"
    "cache-wb-on-every-package"
    "clear-a-page"
    "clear-with-movdir64b"
    "debug-memory"
    "demote-then-promote"
    "dma-private-keyid"
    "dma-reads-poison"
    "dynamic-pamt"
    "fast-string-overwrites-poison"
    "forgotten-flush-to-private"
    "forgotten-flush-to-shared"
    "hkid-reused"
    "host-priority"
    "host-private-keyid"
    "key-config-no-entropy"
    "lmce-off"
    "mapgpa"
    "measured-erratum"
    "measured-erratum-same-value"
    "measured-host-read"
    "measured-host-write-read"
    "measured-other-key"
    "measured-td-read"
    "module-consumes-poison"
    "module-update"
    "module-update-refused"
    "msmi-kills-td"
    "msmi-without-seam-nr"
    "page-given-twice"
    "pamt-overwritten"
    "partial-write"
    "pending-page-no-ve"
    "pending-page-ve"
    "prefetch-is-silent"
    "promote-scattered"
    "q01-host-reads-private"
    "q02-host-reads-private"
    "q03-host-writes-private"
    "q04-td-reads-overwritten"
    "q05-dead-td-and-its-neighbour"
    "q06-movdir64b-heals-poison"
    "q07-host-private-keyid"
    "q08-dma-private-keyid"
    "q09-erratum-movnti"
    "q10-erratum-wb-store"
    "q11-page-add-without-clflush"
    "q12-page-add-after-clflush"
    "q13-wbinvd-of-an-owned-page"
    "q14-cache-wb-keeps-lines"
    "q15-range-block-twice"
    "q16-remove-while-building"
    "q17-removed-page-read-by-host"
    "q18-pamt-of-a-real-machine"
    "q19-key-config-twice"
    "q20-sept-wr"
    "q21-smi-in-a-td"
    "reclaim-poisoned"
    "reclaim-uncleared-partial"
    "reclaim-uncleared-read"
    "relocate-a-page"
    "relocate-a-pending-page"
    "removed-without-wbinvd"
    "source-cached-store"
    "source-dma"
    "source-fence-inside-line"
    "source-movdiri"
    "source-movnti"
    "source-movnti-full-line"
    "source-uc"
    "source-wc-evicted"
    "stale-tlb-after-block"
    "store-keeps-poison"
    "sys-disable"
    "sys-disable-absent"
    "td-hello"
    "td-killed"
    "td-lifecycle"
    "teardown-in-wrong-orders"
    "tracking-done"
    "tracking-forgotten"
    "trap-addcx-no-entropy"
    "trap-aug-leaves-the-page"
    "trap-cached-pamt-line"
    "trap-create-no-entropy"
    "trap-create-page-destroyed"
    "trap-dead-td-keeps-its-tdr"
    "trap-demote-interrupted"
    "trap-demote-restarted"
    "trap-freed-pages-stay-private"
    "trap-promote-freed-table"
    "trap-readded-page-is-zero"
    "trap-sept-order"
    "trap-sept-read-by-module"
    "trap-tdcs-overwritten"
    "trap-tdr-overwritten"
    "tsc-rollback"
    "two-cpus-one-line"
    "user-sigbus"
    "vcpu-moves"
    "vmcall-mask"
    "vpflushdone-while-entered"
    "walk-meets-poison"
    "walk-meets-poison-kinder"
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
