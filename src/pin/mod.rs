//! The pin family: `pin_user_pages` and `get_user_pages` in their forms, what they return, and how it is given back.
//!
//! A **pin** promises that the page stays what its mm maps until the owner unmaps it, through fork and copy-on-write
//! (INV-3, INV-11): what DMA needs. A **get** only keeps the frame from being freed: what a look at the bytes of this
//! moment needs. They are different types and cannot be given back as one another (INV-10).
//!
//! | form | locks | faults pages in | address space |
//! |---|---|---|---|
//! | [`pin_user_pages`] | mm | yes | the caller's |
//! | [`pin_user_pages_fast`] | none, then as above for what is left | yes | the caller's |
//! | [`pin_user_pages_fast_only`] | none | no | the caller's |
//! | [`pin_user_pages_remote`] | mm | yes | any; protection keys do not apply |
//!
//! [`pin_object_pages`] pins pages of an object without an address space.
//!
//! `Pin` in this crate is never `core::pin::Pin`.

mod access;
mod acquire;
mod any;
mod buffer;
mod collected;
mod error;
mod family;
mod flags;
mod got;
mod handle;
mod held;
mod lend;
mod lender;
mod long_term;
mod object;
mod parts;
mod pinned;
mod range;
mod release;
mod revoke;
mod run;
#[cfg(feature = "alloc")]
mod user_vec;
mod walk;

pub use crate::addr::PhysRun;
pub use access::{PinAccess, Read, Write};
pub use any::AnyPinned;
pub use buffer::RunBuffer;
pub use error::{PinError, Stopped};
pub use family::{
    get_user_pages, get_user_pages_fast, get_user_pages_fast_only, get_user_pages_remote, pin_user_pages,
    pin_user_pages_fast, pin_user_pages_fast_only, pin_user_pages_remote,
};
pub use flags::PinFlags;
pub use got::{GotPages, RawGets};
pub use handle::PinHandle;
pub use held::{Held, PinGuard};
pub use lend::{Lent, QuarantineTable, Quarantined};
pub use lender::{Lender, Owner};
pub use object::pin_object_pages;
pub use parts::pin_user_pages_in_parts;
pub use pinned::{OwnedPins, Pinned, PinnedPages, RawPins};
pub use range::{ByteRun, OutOfRange, PinnedPage, PinnedRange};
pub use release::{put_user_pages, unpin_user_pages, unpin_user_runs};
pub use revoke::{Answer, Asked, Outcome, RegisterError, Revocable, RevocableSet, Revoke};
#[cfg(feature = "alloc")]
pub use user_vec::{OwnedPinnedVec, PinnedVec, UserVec, UserVecError, pin_user_pages_in_vec};

// They go to whoever takes the completion interrupt.
static_assertions::assert_impl_all!(RawPins<Write, [PhysRun; 1]>: Send, Sync);
static_assertions::assert_impl_all!(RawGets<[PhysRun; 1]>: Send, Sync);
// Each is released once.
static_assertions::assert_not_impl_any!(RawPins<Write, [PhysRun; 1]>: Clone);
static_assertions::assert_not_impl_any!(RawGets<[PhysRun; 1]>: Clone);
