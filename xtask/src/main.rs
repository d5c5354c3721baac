//! `cargo run -p xtask`: writes everything that is generated.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() else {
        return ExitCode::FAILURE;
    };
    for (name, text) in xtask::generate::files() {
        let path = root.join(&name);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if written.and_then(|()| std::fs::write(&path, text)).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
