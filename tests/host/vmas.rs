//! VMAs by themselves, and where they come from and join.

use pagepin::fault::FaultError;
use pagepin::frame::Layout;
use pagepin::pin::{Read, Write};
use pagepin::space::{Advice, SpaceError};
use pagepin::{
    AddressSpace, Backing, LeafSize, Levels, MapOptions, MemoryType, PageAddr, Pfn, Rights, UserRange, Vma, VmaError,
    VmaFlags,
};

use crate::machine::{A, LARGE, Machine, PAGE, Process, R, RW, RX};

fn pages(first: u64, count: u64) -> UserRange {
    UserRange::pages_only(Levels::Four.user_half(), first * PAGE, count * PAGE).unwrap()
}

fn vma(first: u64, count: u64, options: impl Into<MapOptions>) -> Vma {
    Vma::new(pages(first, count), Backing::Anonymous, options).unwrap()
}

/// The VMA around `address`.
fn vma_at<L: Layout>(process: &Process<'_, L>, address: u64) -> Option<Vma> {
    let mut found = None;
    process.with_vmas(&mut |vmas| found = vmas.vma_at(PageAddr::containing(address))).unwrap();
    found
}

#[test]
fn there_is_no_vma_with_a_key_or_rights_that_it_cannot_have() {
    let new = |options: MapOptions| Vma::new(pages(1, 1), Backing::Anonymous, options);
    for key in [16, 17, 255] {
        assert_eq!(new(MapOptions::new(RW).key(key)), Err(VmaError::InvalidKey));
    }
    assert_eq!(new(MapOptions::new(RW).max_rights(RX)), Err(VmaError::RightsExceedMax));
    let vma = new(MapOptions::new(R).max_rights(RX).key(15)).unwrap();
    assert_eq!((vma.rights(), vma.max_rights(), vma.key(), vma.backing()), (R, RX, 15, Backing::Anonymous));
    assert_eq!(vma.with_rights(RW), Err(VmaError::RightsExceedMax));
    assert_eq!(vma.with_rights(RX).map(|vma| (vma.rights(), vma.max_rights(), vma.key())), Ok((RX, RX, 15)));
    let wiped = MapOptions::new(RW).flags(VmaFlags::WIPE_ON_FORK);
    assert_eq!(Vma::new(pages(1, 1), Backing::Foreign(MemoryType::UNCACHED), wiped), Err(VmaError::InvalidFlags));
    assert_eq!(new(wiped).map(|vma| vma.flags()), Ok(VmaFlags::WIPE_ON_FORK));
    let numbers = [VmaError::InvalidKey, VmaError::RightsExceedMax, VmaError::InvalidFlags].map(VmaError::errno);
    assert_eq!(numbers, [22, 13, 22]);
}

/// A range of bytes is a VMA of all the pages that it touches.
#[test]
fn a_vma_has_whole_pages() {
    let bytes = UserRange::new(Levels::Four.user_half(), PAGE + 1, PAGE).unwrap();
    assert_eq!(Vma::new(bytes, Backing::Anonymous, RW), Ok(vma(1, 2, RW)));
}

#[test]
fn the_parts_of_a_split_join_to_the_whole() {
    let options = MapOptions::new(R).max_rights(RX).key(7);
    let whole = vma(10, 4, options);
    for page in 9..=15 {
        let parts = whole.split_at(PageAddr::containing(page * PAGE));
        let expected = (11..14).contains(&page).then(|| (vma(10, page - 10, options), vma(page, 14 - page, options)));
        assert_eq!(parts, expected);
        if let Some((lower, upper)) = parts {
            assert_eq!(lower.try_join(upper), Some(whole));
            assert_eq!(upper.try_join(lower), None, "in the wrong order");
        }
    }
}

#[test]
fn only_neighbours_that_are_alike_join() {
    let lower = vma(10, 2, RW);
    assert_eq!(lower.try_join(vma(12, 3, RW)), Some(vma(10, 5, RW)));
    assert_eq!(lower.try_join(vma(13, 2, RW)), None, "a hole between them");
    assert_eq!(lower.try_join(vma(12, 2, R)), None);
    assert_eq!(lower.try_join(vma(12, 2, MapOptions::new(RW).max_rights(RW))), None);
    assert_eq!(lower.try_join(vma(12, 2, MapOptions::new(RW).key(1))), None);
    assert_eq!(lower.try_join(vma(12, 2, MapOptions::new(RW).flags(VmaFlags::DONT_FORK))), None);
    assert_eq!(lower.try_join(Vma::new(pages(12, 2), Backing::Foreign(MemoryType::UNCACHED), RW).unwrap()), None);
}

/// A key that no leaf has room for is refused; it would act as another.
fn a_key_that_there_is_not_is_refused<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    for key in [16, 17, 255] {
        assert_eq!(process.map(A, PAGE, MapOptions::new(RW).key(key)), Err(SpaceError::InvalidKey));
        assert_eq!(vma_at(&process, A), None);
    }
    process.map(A, PAGE, MapOptions::new(RW).key(15)).unwrap();
    machine.put(&process, A, 1);
    assert_eq!(machine.leaf(&process, A).unwrap().bits >> 59 & 15, 15);
}

/// Neighbours that may be given other rights later stay apart, and each keeps its limit.
fn neighbours_with_other_limits_stay_apart<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, R).unwrap();
    process.map(A + PAGE, PAGE, MapOptions::new(R).max_rights(RX)).unwrap();
    process.map(A + 2 * PAGE, PAGE, R).unwrap();
    assert_eq!(process.protect(A + PAGE, PAGE, RW), Err(SpaceError::AccessDenied));
    assert_eq!(process.protect(A + 2 * PAGE, PAGE, RW), Ok(()));
    assert_eq!(process.protect(A, PAGE, Rights::all()), Ok(()));
}

/// `MADV_DONTFORK`: a child has neither the VMA nor the pages, and the parent keeps its own as they are, pinned or not.
fn a_child_gets_nothing_of_what_is_not_forked<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(4, 10);
    parent.advise(A + PAGE, 2 * PAGE, Advice::DontFork).unwrap();
    let pins = machine.pin::<Write>(&parent, A + PAGE, PAGE).unwrap();
    let before = [1, 2].map(|page| machine.leaf(&parent, A + page * PAGE).unwrap().bits);
    let child = parent.fork().unwrap();
    assert_eq!([1, 2].map(|page| machine.leaf(&parent, A + page * PAGE).unwrap().bits), before, "not even read-only");
    for page in [1, 2] {
        assert_eq!(vma_at(&child, A + page * PAGE), None);
        assert_eq!(machine.load(0, &child, A + page * PAGE, 1), Err(FaultError::NoVma));
    }
    assert_eq!([0, 3].map(|page| machine.get(&child, A + page * PAGE)), [10, 13]);
    machine.put(&parent, A + PAGE, 50);
    drop(pins);
    // Back again: the parts are one VMA, and the next child gets all.
    parent.advise(A, 4 * PAGE, Advice::DoFork).unwrap();
    assert_eq!(vma_at(&parent, A).map(|vma| vma.pages()), Some(4));
    let child = parent.fork().unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| machine.get(&child, A + page * PAGE)), [10, 50, 12, 13]);
}

/// `MADV_WIPEONFORK`: a child has the VMA, with zeroes, and so have its children.
fn a_child_finds_zeroes_in_what_is_wiped<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(3, 10);
    parent.advise(A + PAGE, PAGE, Advice::WipeOnFork).unwrap();
    let pins = machine.pin::<Read>(&parent, A + PAGE, PAGE).unwrap();
    let child = parent.fork().unwrap();
    assert_eq!([0, 1, 2].map(|page| machine.get(&child, A + page * PAGE)), [10, 0, 12]);
    machine.put(&child, A + PAGE, 20);
    let grandchild = child.fork().unwrap();
    assert_eq!([0, 1, 2].map(|page| machine.get(&grandchild, A + page * PAGE)), [10, 0, 12]);
    assert_eq!([1, 2].map(|page| machine.get(&parent, A + page * PAGE)), [11, 12]);
    drop(pins);
    child.advise(A, 3 * PAGE, Advice::KeepOnFork).unwrap();
    assert_eq!(machine.get(&child.fork().unwrap(), A + PAGE), 20);
}

fn advice_that_cannot_be_followed_changes_nothing<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 10);
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(A + 2 * PAGE, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW).unwrap() };
    let before = machine.image(&[&process]);
    assert_eq!(process.advise(A, 3 * PAGE, Advice::WipeOnFork), Err(SpaceError::InvalidFlags), "registers");
    assert_eq!(process.advise(A, 4 * PAGE, Advice::DontFork), Err(SpaceError::NoVma), "a hole");
    assert!(matches!(process.advise(A + 1, PAGE, Advice::DontFork), Err(SpaceError::Range(_))));
    before.assert_same(&machine.image(&[&process]), "refused");
    process.advise(A, 3 * PAGE, Advice::DontFork).unwrap();
    assert_eq!(vma_at(&process.fork().unwrap(), A), None);
}

/// Advice about a part of a large leaf splits it: the child has the other part, and nothing in no VMA.
fn advice_splits_a_large_leaf<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let size = LeafSize::Size2MiB;
    let parent = machine.process();
    parent.map(LARGE, 2 * size.bytes(), RW).unwrap();
    machine.install(&parent, LARGE, size, machine.block(size), 7);
    parent.advise(LARGE + size.bytes(), PAGE, Advice::DontFork).unwrap();
    let child = parent.fork().unwrap();
    assert_eq!(machine.leaf(&child, LARGE).unwrap().size, size, "it was not concerned");
    drop(child);
    parent.advise(LARGE + PAGE, PAGE, Advice::DontFork).unwrap();
    let child = parent.fork().unwrap();
    assert_eq!([0, 1, 2].map(|page| machine.leaf(&child, LARGE + page * PAGE).is_some()), [true, false, true]);
    parent.advise(LARGE, size.bytes(), Advice::DontFork).unwrap();
    let childless = parent.fork().unwrap();
    assert!(machine.leaf(&childless, LARGE).is_none());
    machine.audit(&[&parent, &child, &childless], &Default::default());
}

every_layout!(
    advice_splits_a_large_leaf,
    a_key_that_there_is_not_is_refused,
    neighbours_with_other_limits_stay_apart,
    a_child_gets_nothing_of_what_is_not_forked,
    a_child_finds_zeroes_in_what_is_wiped,
    advice_that_cannot_be_followed_changes_nothing,
);
