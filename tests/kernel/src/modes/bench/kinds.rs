//! Pages that are not private memory in its place: an object's, and what goes to swap. What faults on them cost is measured in ring 3.

use alloc::vec::Vec;

use pagepin::{Rights, space::Sharing};

use super::{CALL, Subject, Ticks, VMA, in_order, per_page, pin_and_unpin, report, ticks};
use crate::{
    memory::PAGE,
    mm::{kernel, memory, store},
};

/// Pages of the memory that processes share, written by this mm.
fn shared(pages: u64) -> Subject {
    let subject = Subject::new();
    let (id, rights) = (memory(), Rights::READ | Rights::WRITE);
    subject.space().map_object(VMA, pages * PAGE, id, 0, Sharing::Shared, rights).expect("room for a VMA");
    subject.touch(pages, in_order);
    subject
}

/// Pins of what all processes may see, for writing.
fn pins() {
    let measure = |pages: u64| {
        let subject = shared(pages);
        let ranges: Vec<_> = (0..pages / CALL).map(|index| subject.range(index * CALL, CALL)).collect();
        pin_and_unpin::<Ticks>(&subject, &ranges, CALL as usize, false)
    };
    report("pin_fast_object_4k_b512", per_page(|pages| measure(pages).0));
    store::objects().clear_memory(kernel());
}

/// Private memory goes to slots, which keep the frames.
fn swap_out() {
    let measure = |pages: u64| {
        let subject = Subject::touched(pages, in_order);
        ticks(|| assert_eq!(subject.space().swap_out(VMA, pages * PAGE).map(|out| out.pages), Ok(pages)))
    };
    report("swap_out_4k", per_page(measure));
}

pub fn run() {
    pins();
    swap_out();
}
