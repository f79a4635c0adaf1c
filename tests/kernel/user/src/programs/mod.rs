//! The programs. Each returns its exit code; a panic is a failure with its reason on
//! the console.

mod bad_pins;
mod basics;
mod cost;
mod faults;
mod files;
mod kernel_copies;
mod memory;
mod scenes;
mod storm;
mod threads;

use pagepin_abi::Program;

pub fn run(program: Program, argument: u64) -> u32 {
    match program {
        Program::Hello => return basics::hello(argument),
        Program::NullCalls => basics::null_calls(),
        Program::BadCalls => basics::bad_calls(),
        Program::PageFault => basics::page_fault(),
        Program::GeneralProtection => basics::general_protection(),
        Program::HostileRegisters => basics::hostile_registers(),
        Program::Threads => threads::at_the_same_time(),
        Program::Children => threads::children(),
        Program::ThreadDies => threads::one_dies(),
        Program::Sleep => threads::sleep(),
        Program::Memory => memory::calls(),
        Program::Fork => memory::fork(),
        Program::Cost => cost::measure(),
        Program::Faults => faults::measure(argument),
        Program::Scene => return scenes::run(argument),
        Program::Storm => return storm::run(argument),
        Program::BadPins => bad_pins::run(),
        Program::KernelCopies => kernel_copies::run(),
        Program::Files => files::shared_and_private(),
        Program::DirectIo => files::direct(),
        Program::Swap => files::swap(),
    }
    0
}
