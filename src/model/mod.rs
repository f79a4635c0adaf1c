//! What is under the library when it is built for a checker: loom for the models in `tests/models/loom`, shuttle for
//! the scenarios in `tests/models/shuttle`. No part of any other build.
//!
//! The packages there compile the library's sources as a library of their own, with `cfg(pagepin_checker)` set by their
//! build scripts and the checker among their dependencies. The published package has neither.
//!
//! Both bring atomics and locks of the same interface; what the library needs beyond it is here, once for both.

mod locks;
#[cfg(pagepin_checker = "loom")]
mod loom_atomic;
mod safeguard;

#[cfg(pagepin_checker = "loom")]
use loom as checker;
#[cfg(pagepin_checker = "shuttle")]
use shuttle as checker;

#[cfg(pagepin_checker = "shuttle")]
pub use checker::sync::atomic::AtomicU64;
pub(crate) use checker::sync::atomic::{Ordering, fence};
#[cfg(feature = "alloc")]
pub(crate) use locks::RwLock;
pub(crate) use locks::SpinMutex;
#[cfg(feature = "alloc")]
pub use locks::{FairRwLock, MmLock};
#[cfg(pagepin_checker = "loom")]
pub use loom_atomic::AtomicU64;
pub use safeguard::Safeguard;
