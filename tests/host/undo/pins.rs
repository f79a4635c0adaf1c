//! The pin family on every kind of page that a fault has to make ready first.

use pagepin::frame::Layout;
use pagepin::pin::{self, PinAccess, PinFlags, Read, Write};
use pagepin::{Backing, LeafSize};

use super::scene::{contended, empty, forked, four_pages, furnished, large, one_by_one, without_zero_frame};
use super::{Operation, OwnVmas, Scene, complete, done, operation_on};
use crate::forms::{self, FORMS, Form};
use crate::machine::{A, FAR, FOREIGN, LARGE, Machine, PAGE, RW, UNTOUCHED, range, runs};

/// Places for runs.
const BUFFER: usize = 8;

/// A pin of the first pages from `address` on.
pub(crate) fn pinning<X: PinAccess, L: Layout>(
    name: &str,
    form: Form,
    allocations: u64,
    scene: for<'m> fn(&'m Machine<L>) -> Scene<'m, L>,
    (address, pages): (u64, u64),
    flags: PinFlags,
) -> Operation<L> {
    let access = if X::WRITES { "write" } else { "read" };
    let name = format!("{form:?} {access} pin of {name}");
    operation_on(name, allocations, pages, scene, move |_, scene, pages| {
        let range = range(scene.process(), address, pages * PAGE);
        complete(forms::pin::<X, L>(form, scene.process(), range, flags, BUFFER))
    })
}

fn getting<X: PinAccess, L: Layout>(
    name: &str,
    form: Form,
    allocations: u64,
    scene: for<'m> fn(&'m Machine<L>) -> Scene<'m, L>,
    (address, pages): (u64, u64),
) -> Operation<L> {
    let access = if X::WRITES { "write" } else { "read" };
    let name = format!("{form:?} {access} get of {name}");
    operation_on(name, allocations, pages, scene, move |_, scene, pages| {
        let (process, none) = (scene.process(), PinFlags::empty());
        let range = range(process, address, pages * PAGE);
        let gets = forms::get::<X, L>(form, process, range, none, BUFFER);
        let Ok(gets) = gets else { return done(gets) };
        match gets.stopped() {
            None => Ok(Box::new(gets)),
            Some(stopped) => {
                Err(super::Refused { why: format!("{:?}", stopped.reason), ready_pages: stopped.page_index })
            }
        }
    })
}

/// See the [module text](self).
pub(crate) fn pins<L: Layout>() -> Vec<Operation<L>> {
    let mut all = few_pages();
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        all.extend(of_access::<Read, L>(form));
        all.extend(of_access::<Write, L>(form));
        if form != Form::Fast {
            let forced = |name, allocations, scene, page| {
                pinning::<Write, L>(name, form, allocations, scene, page, PinFlags::FORCE)
            };
            all.push(forced("untouched memory, forced", 4, four_pages, (FOREIGN + 4 * PAGE, 1)));
            all.push(forced("a shared page, forced", 1, contended, (A + 3 * PAGE, 1)));
        }
    }
    all.push(operation_on("pin in a kernel's own VMA", 7, 4, empty, |_, scene, pages| {
        let vmas = (UNTOUCHED, UNTOUCHED + 4 * PAGE);
        let vmas = OwnVmas::new(scene.process(), vmas, RW, Backing::Anonymous);
        let range = range(scene.process(), UNTOUCHED, pages * PAGE);
        let none = PinFlags::empty();
        let pins = pin::pin_user_pages_fast(&vmas, Write, range, none, runs(BUFFER));
        let ready_pages = pins.as_ref().map_or(0, |pins| pins.pages());
        match pins.and_then(|pins| pins.complete()) {
            // The VMAs are this closure's, so the pins end with it.
            Ok(_) => Ok(Box::new(())),
            Err(error) => Err(super::Refused { why: format!("{error:?}"), ready_pages }),
        }
    }));
    all
}

fn of_access<X: PinAccess, L: Layout>(form: Form) -> Vec<Operation<L>> {
    let (none, long) = (PinFlags::empty(), PinFlags::LONGTERM);
    let large_leaf = LeafSize::Size2MiB.bytes();
    let last_of_first = LARGE + large_leaf - PAGE;
    // A write is not permitted in the second leaf, and so ends with the first.
    let (pages, copies) = if X::WRITES { (1, 1) } else { (2, 2) };
    vec![
        pinning::<X, L>("untouched memory", form, 8, four_pages, (FOREIGN, 4), none),
        pinning::<X, L>("untouched memory, no zero frame", form, 8, without_zero_frame, (FOREIGN, 4), long),
        pinning::<X, L>("shared pages", form, 6, forked, (A, 6), none),
        pinning::<X, L>("a page, zeroes and nothing", form, 2, furnished, (FAR, 3), none),
        pinning::<X, L>("large leaves", form, copies, large, (last_of_first, pages), none).with_large_memory(),
        pinning::<X, L>("a large leaf of its own", form, 0, large, (LARGE + 2 * large_leaf, 512), none)
            .with_large_memory(),
        getting::<X, L>("untouched memory", form, 8, four_pages, (FOREIGN, 4)),
        getting::<X, L>("shared pages", form, if X::WRITES { 6 } else { 0 }, forked, (A, 6)),
    ]
}

/// Pins and references of pages that are there, no two of them next to each other in memory.
pub(crate) fn few_pages<L: Layout>() -> Vec<Operation<L>> {
    let (six, none) = ((A, 6), PinFlags::empty());
    let of = |form| {
        [
            pinning::<Read, L>("pages", form, 0, one_by_one, six, none),
            pinning::<Write, L>("pages", form, 0, one_by_one, six, PinFlags::NOFAULT),
            getting::<Read, L>("pages", form, 0, one_by_one, six),
        ]
    };
    FORMS.into_iter().flat_map(of).collect()
}
