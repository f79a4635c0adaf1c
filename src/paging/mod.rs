//! The page tables of an mm as they are in memory: finding, filling, and replacing entries under the mm lock.

mod cursor;
mod new_tables;
mod replace;
mod replace_run;
mod split;
mod tables;
mod upper;

pub(crate) use cursor::{Chunk, Cursor, Follow, Table};
pub use replace::{Broken, OldLeaf, Settled};
pub use tables::{Slot, TableError, Tables};
pub(crate) use upper::Upper;
