//! What user code may do with its memory.

#![forbid(unsafe_code)]

use bitflags::bitflags;

bitflags! {
    /// Rights of user code on a VMA. On x86_64 a page that may be written or executed can also be read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXECUTE = 4;
    }
}
