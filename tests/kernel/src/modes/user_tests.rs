//! One line per ring-3 program and the end it must come to.

use pagepin_abi::{Program, Status};

use super::{Outcome, run_balanced};
use crate::{
    percpu, println,
    trap::{GENERAL_PROTECTION, PAGE_FAULT},
};

const PASSED: Status = Status::Exited(0);

const TESTS: &[(&str, Program, u64, Status)] = &[
    ("ring3_hello", Program::Hello, 0, Status::Exited(42)),
    ("null_calls_return", Program::NullCalls, 0, PASSED),
    ("bad_calls_get_errors", Program::BadCalls, 0, PASSED),
    ("page_fault_kills_the_process", Program::PageFault, 0, Status::Killed(PAGE_FAULT)),
    ("general_protection_kills_the_process", Program::GeneralProtection, 0, Status::Killed(GENERAL_PROTECTION)),
    ("hostile_registers_stay_in_ring3", Program::HostileRegisters, 0, PASSED),
    ("threads_run_at_the_same_time", Program::Threads, 0, PASSED),
    ("children_are_waited_for", Program::Children, 0, PASSED),
    ("memory_calls_do_what_they_say", Program::Memory, 0, PASSED),
    ("fork_separates_memory", Program::Fork, 0, PASSED),
    ("one_thread_s_fault_ends_all", Program::ThreadDies, 0, Status::Killed(PAGE_FAULT)),
    ("bad_pins_get_errors_and_leave_nothing", Program::BadPins, 0, PASSED),
    ("kernel_copies_fault_as_programs_do", Program::KernelCopies, 0, PASSED),
    ("sleep_takes_its_time", Program::Sleep, 0, PASSED),
];

/// Threads that spin for each other need a CPU each.
const CPUS_TO_MEET: usize = 3;

pub fn run(report: &mut dyn FnMut(&str, Outcome)) {
    for &(name, program, argument, wanted) in TESTS {
        if program == Program::Threads && percpu::online().count() < CPUS_TO_MEET {
            println!("@skip {name} needs {CPUS_TO_MEET} cpus");
            continue;
        }
        report(name, run_balanced(program, argument, wanted));
    }
}
