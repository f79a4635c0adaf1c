//! [`RunBuffer`]: where the runs of an acquisition lie.

#[cfg(feature = "alloc")]
use alloc::{boxed::Box, vec::Vec};

use super::PhysRun;

/// Memory for runs: an array, a slice, a `Vec` or a box of them, or a mutable reference to one.
///
/// What a guard's buffer holds decides which frames it releases and lets its holder write, so a buffer that could show
/// other runs than were put into it would be as good as any pointer.
///
/// # Implementation safety
/// `as_mut` and `as_ref` give the same places every time, wherever the value is moved; `as_ref` shows what was last
/// stored through `as_mut`, and nobody else changes it.
pub unsafe trait RunBuffer: AsRef<[PhysRun]> + AsMut<[PhysRun]> {}

// SAFETY: the places are the value.
unsafe impl RunBuffer for [PhysRun] {}

// SAFETY: the places are the value.
unsafe impl<const N: usize> RunBuffer for [PhysRun; N] {}

// SAFETY: forwards to an implementation, which nobody else can reach meanwhile.
unsafe impl<B: RunBuffer + ?Sized> RunBuffer for &mut B {}

// SAFETY: the places are the box's, and nobody else's.
#[cfg(feature = "alloc")]
unsafe impl RunBuffer for Box<[PhysRun]> {}

// SAFETY: the places are the vector's elements, and nobody else can add one or take one away.
#[cfg(feature = "alloc")]
unsafe impl RunBuffer for Vec<PhysRun> {}
