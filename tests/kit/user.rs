//! What user code does when hardware refuses an access: it faults, and tries again.

use pagepin::fault::{Fault, FaultError};

/// One attempt of a CPU to access memory.
pub(crate) enum Attempt<T> {
    Done(T),
    Fault(Fault),
}

/// Tries until it works, or a fault is not resolved; at most `most` times.
pub(crate) fn access<T, R>(
    most: usize,
    mut attempt: impl FnMut() -> Attempt<T>,
    mut resolve: impl FnMut(Fault) -> Result<R, FaultError>,
) -> Result<T, FaultError> {
    for _ in 0..most {
        match attempt() {
            Attempt::Done(done) => return Ok(done),
            Attempt::Fault(fault) => _ = resolve(fault)?,
        }
    }
    panic!("a fault was resolved {most} times and came back");
}
