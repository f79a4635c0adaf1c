//! A processor as `IpiShootdown` sees it, of which each thread of a model is one: the root that is loaded, and what its TLB holds of the
//! one page that there is.

use std::cell::Cell;

use loom::thread_local;
use pagepin::{FlushRange, LocalCpu, Pfn};

/// Of loom, about a wait without end.
pub(crate) const NO_END: &str = "exceeded maximum number of branches";

/// The root that a processor begins with.
const HOME: Pfn = Pfn::new(1);
/// That of the mm.
pub(crate) const MINE: Pfn = Pfn::new(2);

thread_local! {
    static LOADED: Cell<Pfn> = Cell::new(HOME);
    static CACHED: Cell<Option<u64>> = Cell::new(None);
}

pub(crate) struct Processor;

// SAFETY: no thread of a model is interrupted.
unsafe impl LocalCpu for Processor {
    type InterruptsOff = ();

    fn interrupts_off(&self) {}

    fn has_tags(&self) -> bool {
        false
    }

    fn flush(&self, _: FlushRange) {
        CACHED.with(|cached| cached.set(None));
    }

    fn loaded_root(&self) -> Pfn {
        LOADED.with(Cell::get)
    }

    unsafe fn load_root(&self, root: Pfn) {
        LOADED.with(|loaded| loaded.set(root));
        self.flush(FlushRange::Everything);
    }
}

/// The page's frame, by what this processor has cached, or by the entry that `walk` finds, if it is one of a frame.
pub(crate) fn translate(walk: impl FnOnce() -> Option<u64>) -> Option<u64> {
    let frame = CACHED.with(Cell::get).or_else(walk);
    CACHED.with(|cached| cached.set(frame));
    frame
}
