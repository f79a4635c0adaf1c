//! The page tables of x86_64 (Intel SDM volume 3, chapter 4 "Paging"; AMD APM volume 2, chapter 5), as values: the only place
//! that knows one of their bits.

#![forbid(unsafe_code)]

mod entry;
mod entry_change;
mod levels;
mod memory_type;
mod protection_keys;
mod software_bits;
#[cfg(test)]
mod tests;
mod token;

pub use entry::Entry;
pub(crate) use entry::{Demand, NewRights, PHYSICAL_END};
pub use entry_change::EntryChange;
pub(crate) use levels::ENTRIES;
pub use levels::{LeafSize, Level, Levels};
pub use memory_type::MemoryType;
pub use protection_keys::KeyRights;
pub use software_bits::{KERNEL_BITS, SOFTWARE_BITS};
pub use token::Token;
