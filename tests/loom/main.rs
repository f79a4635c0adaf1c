//! Loom models: the library's own code under every interleaving of two or three threads, and every value that the
//! memory model lets their loads return, within the bounds that each model states.
//!
//! Run by `cargo xtask loom`. Without `--cfg loom` this program is empty.

#[cfg(loom)]
mod acts;
#[cfg(loom)]
mod checker;
#[cfg(loom)]
mod collapse;
#[cfg(loom)]
mod copy_on_write;
#[cfg(loom)]
#[path = "../model/kernel/mod.rs"]
mod kernel;
#[cfg(loom)]
mod pin_fork;
#[cfg(loom)]
mod pin_unmap;
#[cfg(loom)]
#[path = "../model/runner.rs"]
mod runner;
#[cfg(loom)]
mod table_free;
#[cfg(loom)]
mod word;

#[cfg(loom)]
fn main() -> std::process::ExitCode {
    let models = [
        word::MODELS,
        pin_fork::MODELS,
        pin_unmap::MODELS,
        copy_on_write::MODELS,
        table_free::MODELS,
        collapse::MODELS,
    ];
    runner::main(&models.concat())
}

#[cfg(not(loom))]
fn main() {}
