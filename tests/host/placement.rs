//! Free addresses: what is chosen, beside a reference that tries every page.

use pagepin::space::{Placement, SpaceError};
use pagepin::{Levels, MapOptions, RangeError, Rights};
use proptest::prelude::*;

use crate::machine::{Machine, PAGE, RW};
use pagepin::frame::Wide;

/// The lowest address that is given.
const LOWEST: u64 = 0x1_0000;

/// The first place for `length` bytes from `from` on, by trying each page.
fn first_free(taken: &[(u64, u64)], from: u64, length: u64, align: u64, guard: u64) -> Option<u64> {
    let end = Levels::Four.user_half().end();
    let free = |start: u64| {
        start + length <= end
            && taken.iter().all(|&(first, last)| last.saturating_add(guard) <= start || start + length + guard <= first)
    };
    let last = taken.iter().map(|&(_, last)| last).max().unwrap_or(0).max(from) + guard + align;
    (from / PAGE..=last / PAGE).map(|page| page * PAGE).filter(|start| start % align == 0).find(|start| free(*start))
}

proptest! {
    #![proptest_config(crate::random_cases(150))]

    #[test]
    fn the_lowest_free_place_from_the_hint_on_is_chosen(
        asks in prop::collection::vec((0u64..120, 1u64..40, 0u32..5, 0u64..5, any::<bool>()), 1..40)
    ) {
        let machine = Machine::<Wide>::new(64);
        let process = machine.process();
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for (hint, pages, align, guard, unmap) in asks {
            let (hint, length, align) = (hint * PAGE + 7, pages * PAGE - 5, PAGE << align);
            let placement = Placement::new().near(hint).aligned(align).guarded(guard);
            let range = process.map_anywhere(length, placement, MapOptions::new(RW).data(pages as u16)).unwrap();
            let from = (hint / PAGE * PAGE).max(LOWEST);
            prop_assert_eq!(Some(range.start()), first_free(&taken, from, pages * PAGE, align, guard * PAGE));
            prop_assert_eq!(range.length(), pages * PAGE);
            taken.push((range.start(), range.end()));
            if unmap {
                let (start, end) = taken.swap_remove(taken.len() / 2);
                process.unmap(start, end - start).unwrap();
            }
        }
        taken.sort_unstable();
        let mapped: u64 = process.vmas().map(|vma| vma.unwrap().pages()).sum();
        prop_assert_eq!(mapped, taken.iter().map(|(start, end)| (end - start) / PAGE).sum::<u64>());
        for (start, end) in taken {
            let pages = (end - start) / PAGE;
            prop_assert!(process.vma_at(end - 1).unwrap().is_some_and(|vma| u64::from(vma.data()) == pages && vma.start().address() <= start));
        }
    }
}

#[test]
fn what_has_no_room_is_refused_and_the_rest_is_below_the_hint() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.process();
    let end = Levels::Four.user_half().end();
    let map = |length, placement| process.map_anywhere(length, placement, RW).map(|range| range.start());
    assert_eq!(map(0, Placement::new()), Err(SpaceError::Range(RangeError::Empty)));
    assert_eq!(map(1, Placement::new().aligned(3 * PAGE)), Err(SpaceError::Range(RangeError::Unaligned)));
    assert_eq!(map(1, Placement::new().aligned(0)), Ok(LOWEST), "at least a page");
    for absurd in [u64::MAX, end, end - LOWEST] {
        assert_eq!(map(absurd, Placement::new()), Err(SpaceError::NoRoom));
    }
    for absurd in [Placement::new().aligned(1 << 63), Placement::new().guarded(u64::MAX)] {
        assert_eq!(map(PAGE, absurd), Err(SpaceError::NoRoom), "{absurd:?}");
    }
    assert_eq!(map(PAGE, Placement::new().near(u64::MAX)), Ok(LOWEST + PAGE), "beyond the end, so from the beginning");
    assert_eq!(map(PAGE, Placement::new().near(end - PAGE)), Ok(end - PAGE), "the last page");
    assert_eq!(map(2 * PAGE, Placement::new().near(end - 2 * PAGE)), Ok(LOWEST + 2 * PAGE));
    assert_eq!(map(PAGE, Placement::new().near(0)), Ok(LOWEST + 4 * PAGE), "nothing below 64 KiB");
    let rights = process.map_anywhere(PAGE, Placement::new(), MapOptions::new(RW).max_rights(Rights::READ));
    assert_eq!(rights.unwrap_err(), SpaceError::AccessDenied);
}

#[test]
fn a_vma_keeps_its_number_through_splits_and_forks_and_is_not_joined_with_another() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.process();
    let map = |start, pages, data| process.map(start, pages * PAGE, MapOptions::new(RW).data(data)).unwrap();
    map(LOWEST, 3, 7);
    map(LOWEST + 3 * PAGE, 1, 8);
    map(LOWEST + 4 * PAGE, 1, 8);
    process.protect(LOWEST + PAGE, PAGE, Rights::READ).unwrap();
    let seen = |vmas: &mut dyn Iterator<Item = Result<pagepin::Vma, pagepin::Reentered>>| {
        vmas.map(|vma| vma.map(|vma| (vma.pages(), vma.data())).unwrap()).collect::<Vec<_>>()
    };
    let expected = [(1, 7), (1, 7), (1, 7), (2, 8)];
    assert_eq!(seen(&mut process.vmas()), expected);
    assert_eq!(seen(&mut process.fork().unwrap().vmas()), expected);
    assert_eq!(process.vma_at(LOWEST - 1), Ok(None));
    // The loop may change what it looks at.
    for vma in process.vmas().map(Result::unwrap) {
        process.unmap(vma.start().address(), vma.pages() * PAGE).unwrap();
    }
    assert_eq!(process.vmas().count(), 0);
}
