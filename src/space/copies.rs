//! [`Copies`]: what a truncation says of them. Stores that keep objects say it, too, and need no heap.

/// What becomes of the copies that private VMAs have made of an object's pages (`UserSpace::forget_object`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// They go, too, as when a file is cut off.
    Forget,
    /// They stay with who made them.
    Keep,
}
