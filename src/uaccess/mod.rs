//! Copies between the kernel and the memory of the process that runs, by the process's own addresses.
//!
//! ```text
//!  system call: copy_from_user ----> rep movsb --- page fault, in ring 0
//!                  ^      |                             |
//!                  |      |  missing bytes, why         v
//!                  |      +<----------------- fixup(rip): the handler only returns elsewhere
//!                  |      v
//!                  +-- handle_fault: in the thread, not in the handler
//! ```
//!
//! The handler resolves nothing and takes no lock: it asks [`fixup`] where to go on. The copy sees how far it came, resolves
//! the fault as a thread does that waits for memory, and goes on. So an error is precise, a wait ([`FaultError::NotReady`]) is the
//! caller's, and a page fault of the kernel that is no user copy is a bug of the kernel, always.
//!
//! A bad pointer gives an error and never more. Whoever holds an mm lock, or one of the kernel's locks that a fault takes, must not
//! copy. Of the crate's own locks a kernel's `NoPreempt` may know ([`SectionCount`](crate::SectionCount)); then the copy is refused.
//!
//! [`FaultError::NotReady`]: crate::fault::FaultError::NotReady

mod copy;
mod error;

pub use copy::{clear_user, copy_from_user, copy_to_user, fixup, strncpy_from_user};
pub use error::{UserCopyError, UserCopyRefusal};
