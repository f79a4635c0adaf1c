//! The map of VMAs against one of pages, and how much work it does.

extern crate std;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::addr::{PAGE_SIZE, UserRange};
use crate::rights::Rights;
use crate::space::placement::Gap;
use crate::vma::{Backing, MapOptions};

std::thread_local! {
    /// VMAs and chunks that were moved or written.
    static MOVES: Cell<usize> = const { Cell::new(0) };
    /// VMAs and chunks that searches for free addresses looked at.
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn note_looks(count: usize) {
    LOOKS.set(LOOKS.get() + count);
}

pub(super) fn note_moves(count: usize) {
    MOVES.set(MOVES.get() + count);
}

const R: Rights = Rights::READ;
const RW: Rights = Rights::READ.union(Rights::WRITE);

fn page(number: u64) -> PageAddr {
    PageAddr::containing(number * PAGE_SIZE)
}

fn vma(start: u64, end: u64, options: impl Into<MapOptions>) -> Vma {
    Vma::new(UserRange::of_pages(page(start), page(end)), Backing::Anonymous, options).unwrap()
}

fn add(map: &mut VmaMap, vma: Vma) {
    map.make_room(&vma).unwrap();
    map.insert(vma);
}

fn change(map: &mut VmaMap, start: u64, end: u64, rights: Option<Rights>) {
    map.make_room_to_change(page(start), page(end)).unwrap();
    map.change(page(start), page(end), |vma| rights.and_then(|rights| vma.with_rights(rights).ok()));
}

fn all(map: &VmaMap) -> Vec<Vma> {
    map.iter().copied().collect()
}

#[test]
fn changing_the_middle_splits_and_changing_back_joins() {
    let mut map = VmaMap::default();
    add(&mut map, vma(10, 20, R));
    change(&mut map, 12, 14, Some(RW));
    assert_eq!(all(&map), [vma(10, 12, R), vma(12, 14, RW), vma(14, 20, R)]);
    change(&mut map, 12, 14, Some(R));
    assert_eq!(all(&map), [vma(10, 20, R)]);
}

#[test]
fn removal_reaches_over_holes_and_keeps_the_ends() {
    let mut map = VmaMap::default();
    add(&mut map, vma(10, 14, R));
    add(&mut map, vma(16, 20, R));
    assert!(!map.covers(page(12), page(18)) && map.covers(page(16), page(20)));
    change(&mut map, 12, 18, None);
    assert_eq!(all(&map), [vma(10, 12, R), vma(18, 20, R)]);
    assert!(map.vma(page(12)).is_none() && map.vma(page(18)).is_some());
}

/// What the map is to be: rights and key of each page.
type Reference = BTreeMap<u64, (Rights, u8)>;

/// The pages that the random operations are about.
const PAGES: u64 = 2000;

#[derive(Clone, Debug)]
enum Step {
    /// VMAs of one page each, at every `stride`-th page.
    AddMany {
        first: u64,
        count: u64,
        stride: u64,
        alternate: bool,
    },
    Add {
        first: u64,
        pages: u64,
        rights: Rights,
        key: u8,
    },
    Change {
        first: u64,
        pages: u64,
        rights: Option<Rights>,
    },
    Fork,
}

fn step() -> impl Strategy<Value = Step> {
    let rights = prop_oneof![Just(R), Just(RW)];
    let pages = prop_oneof![3 => 1u64..8, 1 => 8u64..400];
    let change = (0..PAGES, pages.clone(), proptest::option::of(rights.clone()));
    prop_oneof![
        1 => (0..PAGES, 1u64..400, 1u64..4, any::<bool>())
            .prop_map(|(first, count, stride, alternate)| Step::AddMany { first, count, stride, alternate }),
        3 => (0..PAGES, pages, rights, 0u8..2)
            .prop_map(|(first, pages, rights, key)| Step::Add { first, pages, rights, key }),
        6 => change.prop_map(|(first, pages, rights)| Step::Change { first, pages, rights }),
        1 => Just(Step::Fork),
    ]
}

impl Step {
    fn take(&self, map: &mut VmaMap, reference: &mut Reference) {
        match *self {
            Self::AddMany { first, count, stride, alternate } => {
                for i in 0..count {
                    let rights = if alternate && i % 2 == 1 { RW } else { R };
                    add_if_free(map, reference, (first + i * stride, 1), (rights, 0));
                }
            }
            Self::Add { first, pages, rights, key } => add_if_free(map, reference, (first, pages), (rights, key)),
            Self::Change { first, pages, rights } => {
                change(map, first, first + pages, rights);
                match rights {
                    Some(rights) => reference.range_mut(first..first + pages).for_each(|(_, page)| page.0 = rights),
                    None => reference.retain(|page, _| !(first..first + pages).contains(page)),
                }
            }
            Self::Fork => *map = map.try_fork().unwrap(),
        }
    }
}

fn add_if_free(map: &mut VmaMap, reference: &mut Reference, (first, pages): (u64, u64), (rights, key): (Rights, u8)) {
    let vma = vma(first, first + pages, MapOptions::new(rights).key(key));
    let free = reference.range(first..first + pages).next().is_none();
    assert_eq!(map.make_room(&vma), if free { Ok(()) } else { Err(SpaceError::Overlap) });
    if free {
        map.insert(vma);
        reference.extend((first..first + pages).map(|page| (page, (rights, key))));
    }
}

/// The VMAs that the reference's pages make.
fn vmas_of(reference: &Reference) -> Vec<Vma> {
    let mut vmas: Vec<Vma> = Vec::new();
    for (&page, &(rights, key)) in reference {
        let next = vma(page, page + 1, MapOptions::new(rights).key(key));
        match vmas.last_mut().and_then(|last| last.try_join(next).map(|joined| (last, joined))) {
            Some((last, joined)) => *last = joined,
            None => vmas.push(next),
        }
    }
    vmas
}

/// What the structure promises about itself.
fn check_chunks(map: &VmaMap) {
    assert_eq!(map.len, map.iter().count());
    for chunk in &map.chunks {
        assert!(chunk.vmas().len() <= CAPACITY);
        assert!(!chunk.vmas().is_empty() || map.chunks.len() == 1);
        assert_eq!(chunk.end(), chunk.vmas().last().map_or(page(0), Vma::end));
        assert_eq!(chunk.start(), chunk.vmas().first().map_or(page(0), Vma::start));
    }
    assert!(map.chunks.len() <= 1 + 4 * map.len.div_ceil(CAPACITY), "{} chunks, {} VMAs", map.chunks.len(), map.len);
}

/// The same VMAs, page by page and range by range.
fn check(map: &VmaMap, reference: &Reference) {
    check_chunks(map);
    let vmas = vmas_of(reference);
    assert_eq!(all(map), vmas);
    for number in (0..PAGES + 2).step_by(61) {
        let found = map.vma(page(number)).map(|vma| (vma.rights(), vma.key()));
        assert_eq!(found, reference.get(&number).copied());
        for length in [1, 5, 300] {
            let (start, end) = (page(number), page(number + length));
            let from = vmas.partition_point(|vma| vma.end() <= start);
            let touched = vmas[from..].iter().take_while(|vma| vma.start() < end);
            assert!(map.touching(start, end).eq(touched));
            let covered = reference.range(number..number + length).count() as u64 == length;
            assert_eq!(map.covers(start, end), covered);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_changes_agree_with_a_map_of_pages(steps in prop::collection::vec(step(), 1..40)) {
        let (mut map, mut reference) = (VmaMap::default(), Reference::new());
        for step in steps {
            step.take(&mut map, &mut reference);
            check(&map, &reference);
        }
    }
}

/// INV-14: no change outgrows the room that was made for it, however full the chunk is: the heap is not asked again.
#[test]
fn a_hole_in_any_vma_of_any_full_chunk_has_room() {
    for count in CAPACITY as u64 - 2..=CAPACITY as u64 + 2 {
        for i in 0..count {
            let mut map = VmaMap::default();
            (0..count).for_each(|i| add(&mut map, vma(4 * i, 4 * i + 3, RW)));
            change(&mut map, 4 * i + 1, 4 * i + 2, Some(R));
            check_chunks(&map);
            assert_eq!(map.len as u64, count + 2);
        }
    }
}

/// INV-14: room is made before what may fail, so it may stay unused: a full chunk is split, and neither half is empty.
#[test]
fn room_that_is_not_used_leaves_no_empty_chunk() {
    for count in [1, 2, 3].map(|chunks| chunks * CAPACITY as u64) {
        for place in 0..=count {
            let mut map = VmaMap::default();
            (0..count).for_each(|i| add(&mut map, vma(2 * i + 1, 2 * i + 2, RW)));
            let before = all(&map);
            map.make_room(&vma(2 * place, 2 * place + 1, R)).unwrap();
            check_chunks(&map);
            assert_eq!(all(&map), before);
            assert!(before.iter().all(|vma| map.vma(vma.start()) == Some(vma)));
        }
    }
}

/// `count` VMAs of two pages each, with two free ones after each.
fn apart(count: u64) -> VmaMap {
    let mut map = VmaMap::default();
    (0..count).for_each(|i| add(&mut map, vma(4 * i, 4 * i + 2, RW)));
    map
}

fn moves(run: impl FnOnce()) -> usize {
    MOVES.set(0);
    run();
    MOVES.get()
}

const MANY: u64 = 60_000;

/// INV-15: what one more VMA costs depends little on how many there are.
#[test]
fn a_change_moves_a_chunk_and_not_all_vmas() {
    let mut map = apart(MANY);
    check_chunks(&map);
    let mut most = 0;
    for i in (0..MANY).rev().step_by(13) {
        let new = vma(4 * i + 2, 4 * i + 3, R);
        most = most.max(moves(|| add(&mut map, new)));
        most = most.max(moves(|| change(&mut map, 4 * i, 4 * i + 1, Some(R))));
        most = most.max(moves(|| change(&mut map, 4 * i, 4 * i + 1, Some(RW))));
        most = most.max(moves(|| change(&mut map, 4 * i + 2, 4 * i + 3, None)));
    }
    check_chunks(&map);
    // Some chunks' VMAs, and when one is split or merged the list of chunks.
    assert!(most <= 4 * CAPACITY + map.chunks.len(), "{most} moves, {} chunks", map.chunks.len());
    assert_eq!(map.len as u64, MANY);
}

/// The same on average, where the list of chunks is moved seldom.
#[test]
fn adding_in_any_order_moves_few_vmas_each() {
    for order in [|i: u64| i, |i: u64| MANY - 1 - i, |i: u64| i * 7919 % MANY] {
        let mut map = VmaMap::default();
        let all = moves(|| (0..MANY).for_each(|i| add(&mut map, vma(2 * order(i), 2 * order(i) + 1, RW))));
        check_chunks(&map);
        assert_eq!(map.len as u64, MANY);
        assert!(all as u64 <= 2 * CAPACITY as u64 * MANY, "{all} moves");
        let all = moves(|| (0..MANY).for_each(|i| change(&mut map, 2 * order(i), 2 * order(i) + 1, None)));
        assert!(all as u64 <= 2 * CAPACITY as u64 * MANY, "{all} moves");
        assert_eq!((map.len, map.chunks.len()), (0, 1));
    }
}

/// INV-15: one call that joins many VMAs is linear in them.
#[test]
fn joining_many_vmas_moves_each_once() {
    let mut map = VmaMap::default();
    (0..MANY).for_each(|i| add(&mut map, vma(i, i + 1, if i % 2 == 0 { R } else { RW })));
    let half = moves(|| change(&mut map, 0, MANY / 2, Some(R)));
    assert_eq!(map.len as u64, MANY / 2);
    assert!(half as u64 <= MANY / 2, "{half} moves");
    let none = moves(|| change(&mut map, 0, MANY / 2, None));
    assert!(none <= 2 * CAPACITY + map.chunks.len(), "{none} moves");
    check_chunks(&map);
}

/// An address space that is emptied from both ends and the middle keeps few chunks.
#[test]
fn chunks_go_with_their_vmas() {
    let mut map = apart(MANY);
    // Every tenth is left.
    (0..MANY).filter(|i| i % 10 != 0).for_each(|i| change(&mut map, 4 * i, 4 * i + 2, None));
    check_chunks(&map);
    assert_eq!(map.len as u64, MANY / 10);
    change(&mut map, 0, 4 * MANY, None);
    assert_eq!((map.len, map.chunks.len()), (0, 1));
}

/// INV-15: a search for free addresses passes chunks, not VMAs, and looks again at those alone that were changed.
#[test]
fn a_search_for_free_addresses_passes_chunks() {
    let mut map = apart(MANY);
    let find = |map: &mut VmaMap, pages| {
        LOOKS.set(0);
        let gap = Gap { pages, align: PAGE_SIZE, guard_pages: 0 };
        (map.find_gap(page(1), page(8 * MANY), gap), LOOKS.get())
    };
    assert_eq!(find(&mut map, 2).0, Some(page(2)), "the lowest");
    assert_eq!(find(&mut map, 3).0, Some(page(4 * MANY - 2)));
    let chunks = map.chunks.len();
    let (found, looks) = find(&mut map, 3);
    assert!(found == Some(page(4 * MANY - 2)) && looks <= chunks, "{looks} looks, {chunks} chunks");
    for i in (1..MANY).rev().step_by(997) {
        change(&mut map, 4 * i, 4 * i + 2, None);
        let (found, looks) = find(&mut map, 4);
        assert_eq!(found, Some(page(4 * i - 2)));
        assert!(looks <= chunks + 4 * CAPACITY, "{looks} looks, {chunks} chunks");
    }
}

#[test]
fn what_lies_next_to_a_stretch_that_is_leaving_is_free() {
    let mut map = VmaMap::default();
    map.leave(page(10), page(12)).unwrap();
    let leaving = [9, 10, 11, 12].map(|number| map.has_pages(page(number)));
    assert_eq!(leaving, [false, true, true, false]);
    let gap = Gap { pages: 2, align: PAGE_SIZE, guard_pages: 0 };
    let found = [8, 9, 12].map(|from| map.find_gap(page(from), page(100), gap));
    assert_eq!(found, [8, 12, 12].map(|at| Some(page(at))));
    assert_eq!(map.make_room(&vma(9, 11, R)), Err(SpaceError::Overlap));
    add(&mut map, vma(8, 10, R));
    add(&mut map, vma(12, 14, R));
    map.left(page(10), page(12));
    add(&mut map, vma(10, 12, R));
    assert_eq!(all(&map), [vma(8, 14, R)]);
}

#[test]
fn a_part_ends_at_a_hole_and_at_what_is_not_wanted() {
    let mut map = VmaMap::default();
    let keyed = |start, end, key| vma(start, end, MapOptions::new(R).key(key));
    for vma in [keyed(1, 3, 0), keyed(3, 5, 1), vma(5, 7, RW), keyed(7, 9, 0), keyed(10, 12, 0)] {
        add(&mut map, vma);
    }
    let part = |from| map.next_part(page(from), page(11), 8, |vma| vma.rights() == R);
    assert_eq!(part(0), Some((page(1), page(5))), "two that are alike to who asks");
    assert_eq!(part(2), Some((page(2), page(5))));
    assert_eq!(part(5), Some((page(7), page(9))));
    assert_eq!(part(9), Some((page(10), page(11))));
}
