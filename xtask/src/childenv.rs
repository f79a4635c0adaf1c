//! The environment in which a toolchain other than the one that runs xtask is.
//!
//! Cargo and rustup describe the running build in variables that every child inherits: Debian's cargo would then call
//! rustup's compiler, and `bootimage` would build the crate named by `CARGO_MANIFEST_DIR`, which is xtask itself.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// Where to download from and how to print is the user's business in every toolchain.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_BUILD_JOBS",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Whether a variable belongs to the build that runs xtask and must not reach another toolchain.
pub(crate) fn leaks(name: &str) -> bool {
    if KEPT.iter().any(|kept| name == *kept || (kept.ends_with('_') && name.starts_with(kept))) {
        return false;
    }
    name.starts_with("CARGO")
        || name == "RUSTC"
        || name.starts_with("RUSTC_")
        || matches!(name, "RUSTDOC" | "RUSTFLAGS" | "RUSTDOCFLAGS" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT")
}

/// The cargo that runs xtask, started in the project's root. It may see all of its own environment.
pub(crate) fn host_cargo(project: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(project);
    cargo
}

/// Takes every leaking variable off `command` and puts `first` at the head of its `PATH`.
pub(crate) fn isolate(command: &mut Command, first: &[&Path], project: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let rest = std::env::split_paths(&path);
    // A directory whose name holds a colon cannot be put on PATH; the old PATH is then the best there is.
    let joined = std::env::join_paths(first.iter().map(|p| p.to_path_buf()).chain(rest));
    command.env("PATH", joined.unwrap_or(path));
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        match without_rust_libraries(&libraries, project) {
            Some(kept) => command.env("LD_LIBRARY_PATH", kept),
            None => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
}

/// `cargo run` and rustup add their own library directories, in which another compiler must not look for its LLVM.
fn without_rust_libraries(value: &OsStr, project: &Path) -> Option<OsString> {
    let kept: Vec<_> = std::env::split_paths(value)
        .filter(|dir| {
            let text = dir.to_string_lossy();
            let ours = dir.starts_with(project) || text.contains("/rustlib/") || text.contains("/toolchains/");
            !ours && !text.is_empty()
        })
        .collect();
    if kept.is_empty() { None } else { std::env::join_paths(kept).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_description_leaks_and_download_settings_stay() {
        for name in [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(leaks(name), "{name}");
        }
        for name in [
            "PATH",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_CRATES_IO_PROTOCOL",
            "RUSTUP_HOME",
            "RUST_BACKTRACE",
        ] {
            assert!(!leaks(name), "{name}");
        }
    }

    #[test]
    fn only_the_running_builds_library_directories_go() {
        let project = Path::new("/p");
        let value = OsStr::new("/p/target/debug:/r/toolchains/stable/lib:/s/lib/rustlib/x/lib:/opt/lib");
        assert_eq!(without_rust_libraries(value, project), Some("/opt/lib".into()));
        assert_eq!(without_rust_libraries(OsStr::new("/p/target/debug:"), project), None);
    }
}
