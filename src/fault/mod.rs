//! Page faults on user memory: what to do (`decide`, a pure function) and doing it.
//!
//! The handler serves faults of user code and of kernel copies alike, and the pin family's own wish to have a page
//! unshared; all of them go through the same table.

mod batch;
mod decide;
mod elsewhere;
mod error;
mod handler;
#[cfg_attr(
    not(feature = "alloc"),
    expect(unreachable_pub, reason = "what `UserSpace::relocate` says, which is not there")
)]
pub(crate) mod relocate;
mod resolve;

pub(crate) use batch::copy_pinned;
pub(crate) use decide::permits;
pub(crate) use elsewhere::{HeldPage, resolve_elsewhere};
pub use error::FaultError;
pub use handler::{Fault, handle_fault};
#[cfg(feature = "alloc")]
pub(crate) use handler::{fault_in_vma, fault_in_vmas, no_vma};
pub(crate) use relocate::{Relocated, relocate_some};
pub use resolve::FaultOutcome;
pub(crate) use resolve::{Unresolved, resolve};

/// The decision itself, for the tests that print it, restate it and drive each of its rows; no part of the interface, and no kernel needs
/// it. Why it is here and not behind a switch: `docs/MODEL.md`.
#[doc(hidden)]
pub mod decision {
    pub use super::decide::{Action, FrameView, Refusal, Request, Row, State, all_rows};
}
use decide::decide;
pub(crate) use decision::Request;
use decision::{Action, FrameView, Refusal, State};
