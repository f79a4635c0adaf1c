//! The page tables of an mm as they are in memory: finding, filling, and replacing entries under the table lock.

mod chunks;
mod replace;
mod tables;

pub(crate) use chunks::{Chunk, first_chunk, for_each_chunk};
pub use replace::{Broken, OldLeaf, Settled};
pub use tables::{Slot, TableError, Tables};
