//! Loom models: the library's own code under every interleaving of two or three threads, and every value that the
//! memory model lets their loads return, within the bounds that each model states.
//!
//! Run by `cargo xtask loom`.

extern crate pagepin_loom as pagepin;

mod acts;
mod batches;
mod checker;
mod collapse;
mod copy_on_write;
mod elsewhere;
mod faults;
#[path = "../kernel/mod.rs"]
mod kernel;
#[path = "../../kit/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the host tests use all of it")]
mod kit;
mod lazily_freed;
mod ledger;
mod mm_lock;
mod moves;
mod noted_readers;
mod owner_and_writer;
mod owners;
mod pin_fork;
mod pin_unmap;
mod processor;
mod revoke;
#[path = "../runner.rs"]
mod runner;
mod shootdown;
mod split;
mod table_free;
mod word;

fn main() -> std::process::ExitCode {
    let models = [
        word::MODELS,
        split::MODELS,
        pin_fork::MODELS,
        pin_unmap::MODELS,
        copy_on_write::MODELS,
        faults::MODELS,
        owners::MODELS,
        moves::MODELS,
        batches::MODELS,
        elsewhere::MODELS,
        lazily_freed::MODELS,
        table_free::MODELS,
        collapse::MODELS,
        mm_lock::MODELS,
        noted_readers::MODELS,
        owner_and_writer::MODELS,
        shootdown::MODELS,
        ledger::MODELS,
        revoke::MODELS,
    ];
    runner::main(&models.concat(), include_str!("names.txt"))
}
