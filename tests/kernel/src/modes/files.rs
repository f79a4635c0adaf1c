//! Files and swap, by programs in ring 3. What is on the disk afterwards is looked at by who started the machine.

use pagepin_abi::{Program, Status};

use super::{Outcome, balanced, expect, run_program};
use crate::{mm::store, println};

const TESTS: &[(&str, Program)] = &[
    ("a_file_is_shared_private_and_written_back", Program::Files),
    ("the_disk_reads_and_writes_pinned_memory", Program::DirectIo),
    ("pages_go_to_swap_and_come_back", Program::Swap),
];

pub fn run(report: &mut dyn FnMut(&str, Outcome)) {
    for &(name, program) in TESTS {
        if store::file().is_err() {
            println!("@skip {name} no disk");
            continue;
        }
        let run = || {
            expect(run_program(program, 0), Status::Exited(0))?;
            store::settle()
        };
        report(name, balanced(run));
    }
}
