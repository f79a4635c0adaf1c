//! The end of a test.

use super::{Plug, audit};

/// Nothing is held any more: every frame is back, every word free, every acquisition released (INV-10). `surplus` releases
/// were too many and the library has caught `bugs`, of the test's own making.
#[track_caller]
pub(crate) fn check_balance(kernel: &(impl Plug + ?Sized), (surplus, bugs): (u64, u64)) {
    audit::check_zero_frame(kernel);
    assert_eq!(kernel.allocated(), [], "a frame was not given back: frames were lost");
    for frame in kernel.frames() {
        let word = kernel.snapshot(frame);
        assert!(word.is_free(), "{frame:?}: {word:?}");
    }
    let counters = kernel.counters();
    assert_eq!(counters.pins_acquired + surplus, counters.pins_released, "INV-10: pins");
    assert_eq!(counters.gets_acquired, counters.gets_released, "INV-10: gets");
    assert_eq!(counters.bugs_caught, bugs, "bugs caught by the library");
}
