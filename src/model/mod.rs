//! What is under the library when it is built for a checker: `--cfg loom` for the models in `tests/loom`, `--cfg shuttle`
//! for the scenarios in `tests/shuttle`. No part of any other build.
//!
//! Both bring atomics and locks of the same interface; what the library needs beyond it is here, once for both.

mod locks;
#[cfg(loom)]
mod loom_atomic;
mod safeguard;

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

#[cfg(shuttle)]
pub use checker::sync::atomic::{AtomicU32, AtomicU64};
pub(crate) use checker::sync::atomic::{Ordering, fence};
#[cfg(feature = "alloc")]
pub(crate) use locks::RwLock;
pub(crate) use locks::{SpinMutex, SpinMutexGuard};
#[cfg(loom)]
pub use loom_atomic::{AtomicU32, AtomicU64};
pub use safeguard::Safeguard;
