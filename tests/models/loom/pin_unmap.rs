//! Pins and gets x unmap: what was counted stays allocated and what was recycled is not touched.

use std::sync::Arc;

use pagepin::model::Safeguard;
use pagepin::pin::{Read, Write};
use pagepin::{Rights, VmaFlags};

use super::acts::first_frame;
use super::checker::{Bound, UNORDERED};
use super::kernel::{Epoch, PAGE, Tables, with_kernel};
use super::runner::Model;

const RECYCLED: &str = "a pin is on a frame of another mm";

const LEFT: &str = "a pinned page left a space that defers this";

const REFUSED: &str = "a pin of another mm's page stands in the way";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "pin x unmap x reallocation",
        bound: Bound::AtMost(4),
        body: || pin_and_recycle(1),
        twins: &[(Safeguard::LeafReread, &[RECYCLED]), (Safeguard::WordOrdering, &[RECYCLED])],
    },
    Model {
        name: "pin x unmap x reallocation, 2 pages",
        bound: Bound::AtMost(2),
        body: || pin_and_recycle(2),
        twins: &[(Safeguard::LeafReread, &[RECYCLED]), (Safeguard::WordOrdering, &[RECYCLED])],
    },
    Model {
        name: "pin x protect by policy of another",
        bound: Bound::AtMost(3),
        body: protect_what_another_pins,
        twins: &[(Safeguard::RefusalWaits, &[REFUSED])],
    },
    Model {
        name: "pin x deferred unmap",
        bound: Bound::AtMost(3),
        body: defer_what_is_pinned,
        twins: &[(Safeguard::DeferralWaits, &[LEFT])],
    },
    Model {
        name: "unpin x finished unmap",
        bound: Bound::AtMost(3),
        body: finish_what_is_unpinned,
        twins: &[(Safeguard::WordOrdering, &[UNORDERED])],
    },
    Model {
        name: "pin x pin x unmap",
        bound: Bound::AtMost(2),
        body: pin_pin_unmap,
        twins: &[(Safeguard::WordOrdering, &[UNORDERED])],
    },
    Model {
        name: "last put x speculative get",
        bound: Bound::AtMost(5),
        body: get_and_unmap,
        twins: &[(Safeguard::FreeRefuses, &[UNORDERED]), (Safeguard::WordOrdering, &[UNORDERED])],
    },
    Model {
        name: "unmap x user access",
        bound: Bound::All,
        body: access_and_unmap,
        twins: &[(Safeguard::FlushBeforeRelease, &[UNORDERED])],
    },
];

/// A walker with an entry in hand whose frame meanwhile becomes that of another mm.
fn pin_and_recycle(pages: u64) {
    with_kernel::<Epoch>(12, Tables::Stay, move |kernel| {
        let mine = kernel.space(1);
        (2..=pages).for_each(|page| kernel.write(&mine, page, 1));
        // With tables, but no page.
        let other = kernel.space(1);
        other.discard(PAGE, PAGE).expect("a page");
        let pinner = kernel.on_cpu(1, {
            let mine = Arc::clone(&mine);
            move || kernel.pin_fast_only::<Write>(&mine, pages)
        });
        mine.discard(PAGE, pages * PAGE).expect("pages");
        (1..=pages).for_each(|page| kernel.write(&other, page, 2));
        let pins = pinner.join().expect("no panic");
        let runs = pins.iter().flat_map(|pins| pins.runs());
        let pinned: Vec<_> = runs.flat_map(|run| (0..run.pages()).map(|i| run.first().offset(i))).collect();
        for frame in &pinned {
            let taken = (1..=pages).any(|page| kernel.mapped(&other, page) == Some(*frame));
            assert!(!taken, "{RECYCLED}");
        }
        kernel.audit(&[&mine, &other], &pinned);
        kernel.unpin(pins);
    });
}

/// The walker pins the other mm's frame for a moment. Nobody pins anything of that mm, so its policy has nothing to refuse.
fn protect_what_another_pins() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let mine = kernel.space(1);
        // With tables, but no page.
        let other = kernel.strict_space();
        kernel.write(&other, 1, 1);
        other.discard(PAGE, PAGE).expect("a page");
        let pinner = kernel.on_cpu(1, {
            let mine = Arc::clone(&mine);
            move || {
                let pins = kernel.pin_fast_only::<Read>(&mine, 1);
                kernel.unpin(pins);
            }
        });
        mine.discard(PAGE, PAGE).expect("a page");
        kernel.write(&other, 1, 2);
        assert_eq!(other.protect(PAGE, PAGE, Rights::READ), Ok(()), "{REFUSED}");
        pinner.join().expect("no panic");
    });
}

/// A walker pins the page before it is unmapped, and then it stays where it is, or finds it gone.
fn defer_what_is_pinned() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = kernel.space_with(VmaFlags::DEFER_UNMAP_PINNED);
        kernel.write(&space, 1, 1);
        let pinner = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.pin_fast_only::<Read>(&space, 1)
        });
        let unmapped = space.unmap(PAGE, PAGE).expect("a page");
        let pins = pinner.join().expect("no panic");
        match &pins {
            Some(pins) => assert_eq!(kernel.mapped(&space, 1), Some(first_frame(pins)), "{LEFT}"),
            None => assert_eq!((unmapped.pages, unmapped.deferred_pages), (1, 0), "nobody has pinned it"),
        }
        kernel.unpin(pins);
        assert_eq!(space.finish_deferred().expect("no section").deferred_pages, 0);
        assert_eq!(kernel.mapped(&space, 1), None);
    });
}

/// What the holder did with the page is done when the unmap that waited for it frees the frame.
fn finish_what_is_unpinned() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = kernel.space_with(VmaFlags::DEFER_UNMAP_PINNED);
        kernel.write(&space, 1, 1);
        let pins = kernel.pin_fast_only::<Write>(&space, 1).expect("it is there");
        assert_eq!(space.unmap(PAGE, PAGE).expect("a page").deferred_pages, 1);
        let holder = kernel.on_cpu(1, move || {
            kernel.memory.store(first_frame(&pins), 0, 2);
            kernel.unpin(Some(pins));
        });
        let finished = space.finish_deferred().expect("no section");
        assert_eq!(finished.pages + finished.deferred_pages, 1);
        holder.join().expect("no panic");
        assert_eq!(space.finish_deferred().expect("no section").deferred_pages, 0);
    });
}

/// The frame is freed once, by whoever lets go last, after all have.
fn pin_pin_unmap() {
    with_kernel::<Epoch>(5, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let pinners = [1, 2].map(|cpu| {
            let space = Arc::clone(&space);
            kernel.on_cpu(cpu, move || {
                if let Some(pins) = kernel.pin_fast_only::<Read>(&space, 1) {
                    assert_eq!(kernel.memory.load(first_frame(&pins), 0), 1, "a pinned frame changed hands");
                    kernel.unpin(Some(pins));
                }
            })
        });
        space.discard(PAGE, PAGE).expect("a page");
        let _ = pinners.map(|pinner| pinner.join().expect("no panic"));
    });
}

/// A walker comes for the frame whose last reference is going.
fn get_and_unmap() {
    with_kernel::<Epoch>(5, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let getter = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.get_fast_only_and_load(&space)
        });
        space.discard(PAGE, PAGE).expect("a page");
        let seen = getter.join().expect("no panic");
        assert!(seen.is_none_or(|seen| seen == 1), "a referenced frame changed hands");
    });
}

/// INV-12: no CPU reads or writes a frame that was freed, by a translation it still has.
fn access_and_unmap() {
    with_kernel::<Epoch>(6, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let user = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                let seen = [(); 2].map(|()| kernel.read(&space, 1));
                assert!(matches!(seen, [1, 1] | [1, 0] | [0, 0]), "an old page came back");
            }
        });
        space.discard(PAGE, PAGE).expect("a page");
        user.join().expect("no panic");
    });
}
