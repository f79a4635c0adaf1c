//! [`PageFrame`]: one atomic word per physical frame, and the transitions that the word may make.
//!
//! | transition | atomic step | refuses when |
//! |---|---|---|
//! | get | refs += 1 | free, frozen, overflow |
//! | pin | pins += 1 | free, frozen; anonymous and not EXCLUSIVE; never pinnable; overflow |
//! | pin, sole | pins 0 -> all | as pin; pins != 0 |
//! | put / unpin | the reverse; whoever takes both to 0 frees | underflow |
//! | share | clear EXCLUSIVE (and refs += 1 for fork) | pins != 0; free, frozen, overflow |
//! | claim | set EXCLUSIVE | refs != 1 or pins != 0 |
//! | freeze | refs n -> frozen | refs != n or pins != 0 |
//!
//! `refs` are the plain references; a pin keeps the frame allocated all by itself.
//!
//! Because references, pins and `EXCLUSIVE` are one word, "is it pinned?" and "forbid new pins" are one step (INV-4)
//! and a lockless pinner needs neither a sequence count nor a sequentially consistent fence against fork.
//!
//! # Orderings
//! Every successful transition is `AcqRel`. The release half of a `put`/`unpin` publishes this holder's accesses to
//! the frame; the acquire half of the one that takes refs to 0 receives all of them before the frame is reused. The
//! acquire half of `get`/`pin` pairs with the release of [`FrameWord::hand_out`], so that a pinner that reads a
//! recycled frame's word also sees the page-table change that preceded the recycling when it re-reads the entry.

mod kind;
mod layout;
mod outcome;
mod page_frame;
mod snapshot;
mod word;

pub use kind::FrameKind;
pub use layout::{Biased10, Layout, Split23x4x4, Split23x8, Wide};
pub use outcome::{CountError, Dirty, Ownership, Released, Shared};
pub use page_frame::PageFrame;
pub use snapshot::Snapshot;
pub use word::FrameWord;
