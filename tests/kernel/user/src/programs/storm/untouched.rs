//! Memory that is read before it is written: until then it is the zero frame, which no
//! device may get.

use pagepin_abi::{FrameBits, MmCall, PIN_READ};

use super::{layout, model::Kind, worker::Worker};
use crate::calls;

/// What a base page is mapped to.
fn frame(page: usize) -> FrameBits {
    FrameBits::from_bits(calls::mm(MmCall::Frame as u64, layout::address(page), 0, 0).unwrap())
}

impl Worker {
    /// Read, pin for reading, write: the pin shows what was written, for the read has not left the zero frame there.
    pub fn pin_untouched(&mut self) {
        let Some(page) = self.page_that(|page| page.is_readable() && page.kind == Kind::Base) else { return };
        if layout::is_large(page) {
            return;
        }
        calls::discard(layout::address(page), layout::PAGE).unwrap();
        self.forget(page..page + 1);
        self.verify("untouched", page);
        // Unless the other thread has just written there.
        let seen = frame(page);
        let was_zero = seen.present && !seen.exclusive && seen.refs == 0;
        if self.random.one_in(2) {
            self.fork();
        }
        let pin = self.pin(page, PIN_READ).unwrap();
        let pinned = frame(page);
        if !self.run.twin {
            assert!(pinned.present && pinned.exclusive && pinned.pins > 0, "page {page} is pinned, but: {pinned:?}");
        }
        self.tally.zero += u64::from(was_zero);
        if self.random.one_in(2) {
            self.fork();
        }
        if self.pages[page].is_writable() {
            self.store(page);
        }
        self.verify_through("untouched, then pinned", pin, self.pages[page].contents);
        self.verify("untouched, then pinned, in memory", page);
        pin.release();
    }
}
