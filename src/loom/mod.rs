//! What is under the library when it is built with `--cfg loom`, for the models in `tests/loom`. No part of any other
//! build.

mod atomic;
mod locks;
mod safeguard;

pub use atomic::{AtomicU32, AtomicU64};
#[cfg(feature = "alloc")]
pub(crate) use locks::RwLock;
pub(crate) use locks::{SpinMutex, SpinMutexGuard};
pub use safeguard::Safeguard;
