//! A driver of the machine, which owns frames, and worse than drivers: a frame that comes back too early, twice, or that was never its own
//! stops the test.

use std::cell::RefCell;
use std::collections::BTreeMap;

use pagepin::frame::{FrameKind, Layout, Ownership};
use pagepin::{DeviceFrames, Env, FrameRequest, FrameSource, Pfn};

use super::one_thread::OneThread;
use super::{Machine, MachineExtras};

/// See the [module text](self).
pub(crate) struct Card(OneThread<Inner>);

#[derive(Default)]
struct Inner {
    /// Whose each frame is, of those that are out.
    out: RefCell<BTreeMap<Pfn, u64>>,
    /// What has come back.
    back: RefCell<Vec<Pfn>>,
}

impl Card {
    pub(super) fn new() -> Self {
        Self(OneThread::new(Inner::default()))
    }
}

// SAFETY: the frames are the machine's, and go back to it when the test says so.
unsafe impl DeviceFrames for Card {
    fn released(&self, frame: Pfn, order: u8) {
        assert_eq!(order, 0);
        assert!(self.0.get().out.borrow_mut().remove(&frame).is_some(), "{frame:?} is not out");
        self.0.get().back.borrow_mut().push(frame);
    }

    fn of_one_owner(&self, first: Pfn, pages: u64) -> u64 {
        let out = self.0.get().out.borrow();
        let owner = |page| out.get(&first.offset(page));
        (1..pages).find(|page| owner(*page) != owner(0)).unwrap_or(pages)
    }
}

impl<L: Layout> Machine<L> {
    fn card(&self) -> &Card {
        let extras: &MachineExtras = self.extras();
        pagepin::ExtraParts::device_frames(extras)
    }

    /// A frame, open to pins, of a driver's object from now on.
    pub(crate) fn lend_frame(&self, owner: u64) -> Pfn {
        let frame = self.allocate(FrameRequest::unmovable(0)).unwrap();
        self.word(frame).hand_out(FrameKind::Device, 0, Ownership::Exclusive).unwrap();
        self.card().0.get().out.borrow_mut().insert(frame, owner);
        frame
    }

    /// What has come back to its drivers since the last time, in order.
    pub(crate) fn returned(&self) -> Vec<Pfn> {
        let mut back = std::mem::take(&mut *self.card().0.get().back.borrow_mut());
        back.sort_unstable();
        for frame in &back {
            // SAFETY: nobody refers to it any more.
            unsafe { self.free(*frame, 0) };
        }
        back
    }
}
