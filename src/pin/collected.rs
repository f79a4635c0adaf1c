//! What an acquisition collected: the contents of every guard and raw handle.

use super::{PhysRun, PinError, RunBuffer, Stopped};
use crate::addr::UserRange;

/// How much was acquired, and why not more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acquired {
    pub(super) runs: usize,
    pub(super) pages: u64,
    pub(super) stopped: Option<PinError>,
}

/// The first pages of `range`, in the runs at the front of `buffer`.
#[derive(Debug)]
pub(super) struct Collected<B> {
    pub(super) buffer: B,
    pub(super) range: UserRange,
    pub(super) acquired: Acquired,
}

impl<B: RunBuffer> Collected<B> {
    pub(super) fn runs(&self) -> &[PhysRun] {
        self.buffer.as_ref().get(..self.acquired.runs).unwrap_or(&[])
    }

    pub(super) fn pages(&self) -> u64 {
        self.acquired.pages
    }

    /// Base pages that a budget is charged: large leaves count as a whole.
    pub(super) fn held_pages(&self) -> u64 {
        self.runs().iter().map(PhysRun::held_pages).sum()
    }

    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.acquired.stopped.map(|reason| Stopped { page_index: self.acquired.pages, reason })
    }
}
