//! Frame table and frame source out of a boot loader's map: what is refused, what is in the table, and the buddy allocator
//! beside a reference that knows nothing but which frames are free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use pagepin::{
    BuddySource, FrameRequest, FrameSource, FrameTable, PAGE_SIZE, Pfn, PhysMap, Reach, Region, RegionError,
    SpanFrameTable, frames_from_regions,
};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The end of the largest stretch, where words are carved, and one page that stands for all others.
struct Memory {
    bytes: Box<[u64]>,
    end: u64,
    other: Box<[u64]>,
}

impl Memory {
    /// Of a map whose largest stretch ends at frame `end`.
    fn ending_at(end: u64, frames: u64) -> Self {
        let words = |pages: u64| vec![u64::MAX; (pages as usize + 1) * 512].into();
        Self { bytes: words(frames), end, other: words(1) }
    }

    fn of(regions: &[Region]) -> Self {
        let largest = stretches(regions).into_iter().max_by_key(|range| range.end - range.start).unwrap();
        let all: u64 = regions.iter().map(|region| (region.end() - region.start()) / PAGE_SIZE).sum();
        Self::ending_at(largest.end, (all / 100).max(8).min(largest.end))
    }

    fn page(words: &[u64], index: u64) -> *mut u8 {
        let aligned = words.as_ptr().addr().next_multiple_of(PAGE_SIZE as usize) - words.as_ptr().addr();
        words.as_ptr().cast::<u8>().wrapping_add(aligned + (index * PAGE_SIZE) as usize).cast_mut()
    }
}

// SAFETY: the tests use no memory but what is carved, which is in `bytes`, and the zero frame.
unsafe impl PhysMap for Memory {
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        let frames = self.bytes.len() as u64 / 512 - 1;
        match frame.number().checked_sub(self.end - frames) {
            Some(index) if index < frames => Self::page(&self.bytes, index),
            _ => Self::page(&self.other, 0),
        }
    }
}

/// The frames of the usable regions, neighbours together, by looking at each frame of each edge.
fn stretches(regions: &[Region]) -> Vec<Range<u64>> {
    let frames = |region: &Region| region.start() / PAGE_SIZE..region.end().div_ceil(PAGE_SIZE);
    let edges: BTreeSet<u64> = regions.iter().flat_map(|region| [frames(region).start, frames(region).end]).collect();
    let is_usable = |frame: u64| {
        let mut here = regions.iter().filter(|region| frames(region).contains(&frame)).peekable();
        here.peek().is_some() && here.all(|region| region.is_usable())
    };
    let edges: Vec<_> = edges.into_iter().collect();
    let mut result: Vec<Range<u64>> = Vec::new();
    for pair in edges.windows(2).filter(|pair| is_usable(pair[0])) {
        match result.last_mut() {
            Some(last) if last.end == pair[0] => last.end = pair[1],
            _ => result.push(pair[0]..pair[1]),
        }
    }
    result
}

type Frames<'a> = (SpanFrameTable<'a>, BuddySource<'a>);

fn made<'a>(memory: &'a Memory, regions: &[Region]) -> Result<Frames<'a>, RegionError> {
    // SAFETY: nobody uses the memory, and the source's frames are only numbers here.
    unsafe { frames_from_regions(memory, regions.iter().copied()) }
}

/// How much may be taken by what was carved: half a percent, rounded up, and the zero frame.
fn overhead(frames: u64) -> u64 {
    frames / 199 + 3
}

fn usable(start: u64, end: u64) -> Region {
    Region::usable(start, end)
}

/// A PC with 6 GiB: a hole below 1 MiB, the kernel, the PCI hole below 4 GiB.
fn pc() -> Vec<Region> {
    vec![
        usable(0, 0x9_f000),
        Region::reserved(0x9_fc00, MIB),
        Region::kernel(MIB, 3 * MIB + 0x123),
        usable(4 * MIB, 3 * GIB),
        Region::reserved(3 * GIB, 4 * GIB),
        usable(4 * GIB, 7 * GIB),
    ]
}

#[test]
fn every_usable_frame_has_a_word_and_holes_and_devices_have_none() {
    let memory = Memory::of(&pc());
    let (table, source) = made(&memory, &pc()).unwrap();
    let has = |address: u64| table.frame(Pfn::containing(address)).is_some();
    assert!([0, 0x9_efff, 4 * MIB, 3 * GIB - 1, 4 * GIB, 6 * GIB].into_iter().all(has));
    let none = [0x9_f000, 0xb_8000, MIB, 2 * MIB, 4 * MIB - 1, 3 * GIB, 4 * GIB - 1, 7 * GIB - 1, 7 * GIB, u64::MAX];
    assert!(!none.into_iter().any(has), "the last of them but two is carved");
    let all: u64 = stretches(&pc()).into_iter().map(|range| range.end - range.start).sum();
    let words: u64 = table.spans().map(|(_, words)| words.len() as u64).sum();
    assert!((all - overhead(all)..all).contains(&words), "{words} of {all}");
    assert_eq!(source.free_frames(), words - 1, "all but the zero frame");
    for (first, words) in table.spans() {
        let last = first.offset(words.len() as u64 - 1);
        for (frame, word) in [(first, &words[0]), (last, &words[words.len() - 1])] {
            assert!(std::ptr::eq(table.frame(frame).unwrap(), word), "one word for each frame");
            assert!(word.snapshot().is_free());
        }
        assert!(table.frame(last.offset(1)).is_none());
        assert_eq!(table.run(first, words.len() as u64).unwrap().as_ptr(), words.as_ptr());
        assert!(table.run(first, words.len() as u64 + 1).is_none() && table.run(last, 2).is_none());
        assert!(table.run(last, u64::MAX).is_none());
    }
}

#[test]
fn the_zero_frame_is_zeroes_and_is_never_handed_out() {
    let regions = [usable(0, MIB)];
    let memory = Memory::ending_at(256, 256);
    let (table, source) = made(&memory, &regions).unwrap();
    let zero = source.zero_frame().unwrap();
    // SAFETY: the page is this test's, and nobody writes it.
    let bytes = unsafe { std::slice::from_raw_parts(memory.frame_ptr(zero), PAGE_SIZE as usize) };
    assert!(bytes.iter().all(|byte| *byte == 0) && table.frame(zero).is_some());
    let all: BTreeSet<_> = std::iter::from_fn(|| source.allocate(FrameRequest::movable(0))).collect();
    assert_eq!(all.len() as u64, 256 - 2 - 1, "two frames were carved, one is zero");
    assert!(!all.contains(&zero) && source.free_frames() == 0);
    assert!(source.may_stay(zero), "there are no zones that are emptied");
    assert!(format!("{source:?}").contains("free_frames: 0"), "{source:?}");
}

/// What fails names the region, and not a byte of memory has changed.
#[test]
fn a_wrong_map_is_refused_by_name() {
    let check = |regions: &[Region], expected: RegionError| {
        let memory = Memory::ending_at(2048, 2048);
        assert_eq!(made(&memory, regions).map(|_| ()), Err(expected), "{expected}");
        assert!(memory.bytes.iter().all(|word| *word == u64::MAX), "{expected}: memory was written");
    };
    let good = usable(MIB, 8 * MIB);
    check(&[], RegionError::NoMemory);
    check(&[Region::reserved(0, MIB), usable(5, 5)], RegionError::NoMemory);
    let backwards = usable(2 * MIB, MIB);
    check(&[good, backwards], RegionError::Backwards(backwards));
    for unaligned in [usable(0x800, 0x2000), usable(0, 0x1fff), usable(0x800, 0x2800)] {
        check(&[unaligned, good], RegionError::Unaligned(unaligned));
    }
    let beyond = usable(GIB, (1 << 52) + PAGE_SIZE);
    check(&[good, beyond], RegionError::BeyondPhysicalMemory(beyond));
    let twice = usable(7 * MIB, 9 * MIB);
    check(&[twice, good], RegionError::Overlap(good, twice));
    let firmware = Region::reserved(2 * MIB + 1, 2 * MIB + 2);
    check(&[good, firmware], RegionError::Overlap(good, firmware));
    let around = Region::reserved(0, u64::MAX);
    check(&[good, around], RegionError::Overlap(around, good));
    for kernel in [Region::kernel(3 * MIB, 4 * MIB), Region::kernel(0, 2 * MIB), Region::kernel(8 * MIB - 1, 9 * MIB)] {
        check(&[kernel, good], RegionError::ContainsKernel(good, kernel));
    }
    let many: Vec<_> = (0..257).map(|index| Region::reserved(index * 0x2000, index * 0x2000 + 0x1000)).collect();
    check(&many, RegionError::TooManyRegions(256));
    let small = usable(0x1000, 0x2000);
    check(&[small], RegionError::TooSmall(small, 24 + 8 + 8 + 12));
    let islands: Vec<_> = (0..200).map(|index| usable(index * 0x2000, index * 0x2000 + 0x1000)).collect();
    check(&islands, RegionError::TooSmall(islands[199], 200 * (24 + 8 + 12) + 32));
    check(&[usable(0, 1 << 45)], RegionError::TooMuchMemory);
}

#[test]
fn each_error_says_which_region() {
    let (a, b) = (usable(0x1000, 0x3000), Region::kernel(0x2000, 0x2800));
    assert_eq!(format!("{a:?}"), "Region(0x1000..0x3000 usable)");
    let says = |error: RegionError, text: &str| assert_eq!(error.to_string(), text);
    says(
        RegionError::ContainsKernel(a, b),
        "the region 0x1000..0x3000 usable contains the kernel: 0x2000..0x2800 the kernel",
    );
    says(RegionError::Unaligned(a), "the region 0x1000..0x3000 usable is not one of whole frames");
    says(RegionError::TooManyRegions(256), "more than 256 regions");
    assert_eq!((RegionError::NoMemory.errno(), RegionError::Overlap(a, b).errno()), (12, 22));
}

#[test]
fn memory_without_holes_makes_a_flat_table() {
    let (pc, one) = (pc(), [usable(0, MIB)]);
    let memory = [Memory::of(&pc), Memory::of(&one)];
    assert_eq!(made(&memory[0], &pc).unwrap().0.into_flat().unwrap_err().spans().count(), 3);
    let (table, source) = made(&memory[1], &one).unwrap();
    let words = table.spans().next().unwrap().1;
    let flat = table.into_flat().unwrap();
    let frame = source.allocate(FrameRequest::movable(0)).unwrap();
    assert!(std::ptr::eq(flat.frame(frame).unwrap(), &raw const words[frame.number() as usize]));
    assert!(flat.frame(Pfn::new(words.len() as u64)).is_none());
}

#[test]
fn neighbours_of_one_kind_are_one_region_however_many_the_firmware_tells() {
    let parts: Vec<_> = (0..2000).map(|index| usable(index * 0x1000, (index + 1) * 0x1000)).collect();
    let memory = Memory::ending_at(2000, 2000);
    let (table, _) = made(&memory, &parts).unwrap();
    assert_eq!(table.spans().count(), 1);
}

#[test]
fn what_is_taken_is_cut_out() {
    let regions = [usable(0, 16 * MIB), Region::taken(0x8000, 0x8001), Region::taken(MIB, 2 * MIB + 1)];
    let memory = Memory::of(&regions);
    let (table, source) = made(&memory, &regions).unwrap();
    let firsts: Vec<_> = table.spans().map(|(first, words)| (first.number(), words.len())).collect();
    assert_eq!(firsts[1..], [(0, 8), (9, 247)]);
    assert_eq!(firsts[0].0, 513, "the largest comes first");
    // SAFETY: taken memory is not the source's, and it says so.
    unsafe { source.free(Pfn::new(8), 0) };
    assert_eq!(source.refused(), 1);
}

#[test]
fn a_device_gets_what_it_reaches_and_nobody_else_takes_it_first() {
    let memory = Memory::of(&pc());
    let (_, source) = made(&memory, &pc()).unwrap();
    for _ in 0..1000 {
        assert!(source.allocate(FrameRequest::movable(0)).unwrap().address() >= 4 * GIB);
    }
    assert!(source.allocate_within(Reach::Below4GiB, 3).unwrap().address() < 4 * GIB - 8 * PAGE_SIZE);
    assert!(source.allocate_within(Reach::Below1MiB, 0).unwrap().address() < MIB);
    assert_eq!(source.allocate_within(Reach::Below1MiB, 8), None, "1 MiB less the hole");
    assert_eq!(source.allocate(FrameRequest::movable(18)).unwrap().number() % (1 << 18), 0);
    assert_eq!(source.allocate(FrameRequest::movable(19)), None);
    assert_eq!(source.allocate(FrameRequest::movable(255)), None);
}

/// 100 tables among 8 MiB of pages, in any order: the pages' large blocks come back whole.
#[test]
fn tables_do_not_break_up_the_memory_of_large_leaves() {
    let regions = [usable(4 * GIB, 4 * GIB + 16 * MIB)];
    let memory = Memory::of(&regions);
    let (_, source) = made(&memory, &regions).unwrap();
    let blocks = |source: &BuddySource<'_>| {
        let large: Vec<_> = std::iter::from_fn(|| source.allocate(FrameRequest::movable(9))).collect();
        // SAFETY: handed out just now.
        large.iter().for_each(|block| unsafe { source.free(*block, 9) });
        large.len()
    };
    let before = blocks(&source);
    let mut pages = Vec::new();
    for index in 0..2000 {
        pages.push(source.allocate(FrameRequest::movable(0)).unwrap());
        if index % 20 == 0 {
            source.allocate(FrameRequest::unmovable(0)).unwrap();
        }
    }
    // SAFETY: handed out above.
    pages.into_iter().for_each(|page| unsafe { source.free(page, 0) });
    assert!(before - blocks(&source) <= 1, "{before} blocks before, {} after", blocks(&source));
}

#[test]
fn what_was_not_handed_out_is_refused_and_counted() {
    let regions = [usable(0, 16 * MIB), usable(32 * MIB, 40 * MIB)];
    let memory = Memory::of(&regions);
    let (_, source) = made(&memory, &regions).unwrap();
    let block = source.allocate(FrameRequest::movable(4)).unwrap();
    let (free, mut refused) = (source.free_frames(), 0);
    let mut is_refused = |frame: Pfn, order: u8| {
        // SAFETY: wrong on purpose; the source looks before it believes.
        unsafe { source.free(frame, order) };
        refused += 1;
        assert_eq!((source.refused(), source.free_frames()), (refused, free), "{frame:?} order {order}");
    };
    is_refused(Pfn::new(5000), 0);
    is_refused(Pfn::new(u64::MAX), 0);
    is_refused(block, 5);
    is_refused(block.offset(1), 1);
    is_refused(block.offset(16), 0);
    is_refused(block, 19);
    is_refused(block, 200);
    is_refused(source.zero_frame().unwrap().offset(1), 0);
    // SAFETY: a part of the block.
    unsafe { source.free(block.offset(4), 2) };
    let (free, mut refused) = (source.free_frames(), source.refused());
    for (frame, order) in [(block, 4), (block.offset(4), 2), (block.offset(6), 0), (block, 3)] {
        // SAFETY: wrong on purpose.
        unsafe { source.free(frame, order) };
        refused += 1;
        assert_eq!((source.refused(), source.free_frames()), (refused, free), "{frame:?} order {order}");
    }
    // A run with one frame that is free already gives back the others.
    // SAFETY: wrong on purpose.
    unsafe { source.free_run(block, 16) };
    assert_eq!((source.refused(), source.free_frames()), (refused + 4, free + 12));
}

/// Frames on both sides of 1 MiB that come back together do not become a block that begins below.
#[test]
fn what_comes_back_across_a_zones_end_stays_in_its_zones() {
    let regions = [usable(0, 4 << 20)];
    let memory = Memory::of(&regions);
    let (_, source) = made(&memory, &regions).unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = source.allocate(FrameRequest::movable(6)) {
        blocks.push(block.number());
    }
    let first = (0..).map(|index| index * 64).find(|number| blocks.contains(number)).unwrap();
    // SAFETY: all of these were handed out.
    unsafe { source.free_run(Pfn::new(first), 512 - first) };
    let refused = source.refused();
    // SAFETY: they are free, and no block by the zones in any case.
    unsafe { source.free(Pfn::new(0), 9) };
    assert_eq!(source.refused(), refused + 1);
    // High memory first, then what a device or processor reaches.
    assert_eq!(source.allocate(FrameRequest::movable(8)).map(Pfn::number), Some(256));
    while let Some(frame) = source.allocate_within(Reach::Below1MiB, 0) {
        assert!(frame.number() < 256, "{frame:?}");
    }
}

/// Nor does a block that begins below and was handed out in pieces.
#[test]
fn a_block_over_a_zones_end_is_refused() {
    let regions = [usable(0, 2 * MIB), usable(4 * MIB, 16 * MIB)];
    let memory = Memory::of(&regions);
    let (_, source) = made(&memory, &regions).unwrap();
    let blocks: Vec<_> = std::iter::from_fn(|| source.allocate(FrameRequest::movable(6))).map(Pfn::number).collect();
    assert!((0..8).all(|index| blocks.contains(&(index * 64))), "all of the lower region");
    let free = source.free_frames();
    // SAFETY: these frames were handed out.
    unsafe { source.free(Pfn::new(0), 9) };
    assert_eq!((source.refused(), source.free_frames()), (1, free));
    // SAFETY: as above.
    unsafe { source.free(Pfn::new(0), 8) };
    assert_eq!((source.refused(), source.free_frames()), (1, free + 256), "it ends where the zone does");
}

#[test]
fn whole_frames_lie_within_a_region() {
    let whole = |start, end| {
        let whole = usable(start, end).whole_frames();
        (whole.start(), whole.end())
    };
    assert_eq!(whole(0x1000, 0x3000), (0x1000, 0x3000));
    assert_eq!(whole(0x1001, 0x3fff), (0x2000, 0x3000));
    assert_eq!(whole(0x1001, 0x2000), (0x2000, 0x2000));
    assert_eq!(whole(0x1001, 0x1fff), (0x1000, 0x1000), "none");
    assert_eq!(whole(u64::MAX - 1, u64::MAX), (u64::MAX - 0xfff, u64::MAX - 0xfff), "none, where addresses end");
}

/// A usable region right behind another: a block may lie in both.
#[test]
fn regions_side_by_side_are_one_memory() {
    let regions = [
        usable(4 * MIB, 7 * MIB),
        Region::taken(2 * MIB, 3 * MIB),
        usable(7 * MIB, 10 * MIB),
        usable(16 * MIB, 32 * MIB),
    ];
    let memory = Memory::of(&regions);
    let (table, source) = made(&memory, &regions).unwrap();
    assert_eq!(
        table
            .spans()
            .filter(|(first, _)| first.number() < 4096)
            .map(|(first, words)| (first.number(), words.len()))
            .collect::<Vec<_>>(),
        [(1024, 1536)]
    );
    let blocks: Vec<_> = std::iter::from_fn(|| source.allocate(FrameRequest::movable(9))).map(Pfn::number).collect();
    assert!(blocks.contains(&1536), "{blocks:?}");
}

#[test]
fn memory_may_end_where_addresses_end() {
    let end: u64 = 1 << 52;
    let regions = [usable(end - 16 * MIB, end)];
    let memory = Memory::of(&regions);
    let (table, source) = made(&memory, &regions).unwrap();
    assert!(table.frame(Pfn::containing(end - 16 * MIB)).is_some());
    assert!(source.allocate(FrameRequest::movable(9)).is_some());
}

#[test]
fn what_lies_above_the_carved_memory_is_in_the_table() {
    let regions = [usable(0, 16 * MIB), usable(32 * MIB, 40 * MIB)];
    let memory = Memory::of(&regions);
    let (table, source) = made(&memory, &regions).unwrap();
    assert!([32 * MIB, 40 * MIB - 1].into_iter().all(|address| table.frame(Pfn::containing(address)).is_some()));
    let all = 24 * MIB / PAGE_SIZE;
    let words: u64 = table.spans().map(|(_, words)| words.len() as u64).sum();
    assert!((all - overhead(all)..all).contains(&words), "{words} of {all}");
    assert_eq!(source.free_frames(), words - 1);
}

#[test]
fn a_region_whose_beginning_is_taken_begins_behind_it() {
    let regions = [usable(0, 16 * MIB), Region::taken(0, 3 * PAGE_SIZE)];
    let memory = Memory::of(&regions);
    let (table, _) = made(&memory, &regions).unwrap();
    let firsts: Vec<_> = table.spans().map(|(first, _)| first.number()).collect();
    assert_eq!(firsts, [3]);
}

#[test]
fn blocks_of_the_largest_order_come_back_and_stay_apart() {
    let memory = Memory::of(&pc());
    let (_, source) = made(&memory, &pc()).unwrap();
    let free = source.free_frames();
    for _ in 0..2 {
        let blocks: Vec<_> = std::iter::from_fn(|| source.allocate(FrameRequest::movable(18))).collect();
        assert!([4, 5].into_iter().all(|gib| blocks.contains(&Pfn::containing(gib * GIB))), "{blocks:?}");
        // SAFETY: handed out just now.
        blocks.into_iter().for_each(|block| unsafe { source.free(block, 18) });
        assert_eq!((source.free_frames(), source.refused()), (free, 0));
    }
}

/// Places go on where the next stretch begins, and frames do not.
#[test]
fn a_block_that_would_reach_over_a_hole_is_refused() {
    let frames = |first: u64, count: u64| usable(first * PAGE_SIZE, (first + count) * PAGE_SIZE);
    let regions = [frames(0, 101), frames(103, 20), usable(MIB, 16 * MIB)];
    let memory = Memory::of(&regions);
    let (_, source) = made(&memory, &regions).unwrap();
    while source.allocate(FrameRequest::movable(0)).is_some() {}
    assert_eq!(source.free_frames(), 0);
    // SAFETY: wrong on purpose: frame 100 is the last before the hole.
    unsafe { source.free(Pfn::new(100), 1) };
    assert_eq!((source.free_frames(), source.refused()), (0, 1));
}

/// Which frames are free, one by one.
struct Reference {
    free: BTreeSet<u64>,
    blocks: BTreeMap<u64, u8>,
}

impl Reference {
    fn of(table: &SpanFrameTable<'_>, source: &BuddySource<'_>) -> Self {
        let zero = source.zero_frame().unwrap().number();
        let frames = table.spans().flat_map(|(first, words)| first.number()..first.number() + words.len() as u64);
        Self { free: frames.filter(|frame| *frame != zero).collect(), blocks: BTreeMap::new() }
    }

    /// Whether some aligned block of free frames has this order, in one zone.
    fn has(&self, order: u8, reach: u64) -> bool {
        let size = 1 << order;
        self.free.iter().any(|&first| {
            let last = first + size - 1;
            let one_zone = [256, 1 << 20].iter().all(|&edge| (first < edge) == (last < edge));
            first % size == 0 && last < reach && one_zone && (first..=last).all(|frame| self.free.contains(&frame))
        })
    }

    fn take(&mut self, frame: Pfn, order: u8) {
        let first = frame.number();
        assert_eq!(first % (1 << order), 0, "{frame:?} of order {order} is not aligned");
        for number in first..first + (1 << order) {
            assert!(self.free.remove(&number), "{number:#x} was handed out twice, or is nobody's");
        }
        self.blocks.insert(first, order);
    }

    /// Gives all blocks back.
    fn drain(&mut self, source: &BuddySource<'_>) {
        for (first, order) in std::mem::take(&mut self.blocks) {
            // SAFETY: the source handed it out.
            unsafe { source.free(Pfn::new(first), order) };
            self.give(first, order);
        }
    }

    fn give(&mut self, first: u64, order: u8) {
        self.free.extend(first..first + (1 << order));
    }
}

fn request(order: u8, unmovable: bool) -> FrameRequest {
    if unmovable { FrameRequest::unmovable(order) } else { FrameRequest::movable(order) }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        order: u8,
        unmovable: bool,
        reach: usize,
    },
    Free {
        which: prop::sample::Index,
        piece: Option<(prop::sample::Index, u8)>,
    },
    FreeAll {
        which: prop::sample::Index,
    },
    /// All that there is of this order.
    Fill {
        order: u8,
        unmovable: bool,
    },
    /// Everything comes back.
    Drain,
    Wrong {
        frame: u64,
        order: u8,
    },
}

const REACHES: [(Reach, u64); 3] = [(Reach::Anywhere, u64::MAX), (Reach::Below4GiB, 1 << 20), (Reach::Below1MiB, 256)];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let order = prop_oneof![4 => Just(0u8), 4 => 0u8..6, 1 => 0u8..13];
    let step = prop_oneof![
        8 => (order, any::<bool>(), prop_oneof![8 => Just(0usize), 1 => 1usize..3])
            .prop_map(|(order, unmovable, reach)| Step::Allocate { order, unmovable, reach }),
        6 => (any::<prop::sample::Index>(), prop::option::of((any::<prop::sample::Index>(), 0u8..12)))
            .prop_map(|(which, piece)| Step::Free { which, piece }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::FreeAll { which }),
        1 => (0u8..12, any::<bool>()).prop_map(|(order, unmovable)| Step::Fill { order, unmovable }),
        1 => Just(Step::Drain),
        1 => (0u64..0x10_0800, 0u8..20).prop_map(|(frame, order)| Step::Wrong { frame, order }),
    ];
    prop::collection::vec(step, 1..120)
}

/// Small memories with odd edges: below 1 MiB, around a hole, and across 4 GiB.
fn regions() -> impl Strategy<Value = Vec<Region>> {
    (0u64..3, 100u64..700, 1u64..40, 700u64..3000, 0u64..300).prop_map(|(first, low, hole, middle, high)| {
        let frames = |first: u64, count: u64| usable(first * PAGE_SIZE, (first + count) * PAGE_SIZE);
        vec![frames(first, low), frames(first + low + hole, middle), frames((1 << 20) - high, 2 * high)]
    })
}

proptest! {
    #![proptest_config(crate::random_cases(200))]

    #[test]
    fn the_buddy_allocator_is_the_set_of_free_frames(regions in regions(), steps in steps()) {
        let memory = Memory::of(&regions);
        let (table, source) = made(&memory, &regions).unwrap();
        let mut reference = Reference::of(&table, &source);
        let (all, mut refused) = (reference.free.clone(), 0);
        for step in steps {
            match step {
                Step::Allocate { order, unmovable, reach } => {
                    let (reach, end) = REACHES[reach];
                    let got = match reach {
                        Reach::Anywhere => source.allocate(request(order, unmovable)),
                        _ => source.allocate_within(reach, order),
                    };
                    match got {
                        Some(frame) => {
                            prop_assert!(frame.number() < end);
                            reference.take(frame, order);
                        }
                        None => prop_assert!(!reference.has(order, end), "order {} {:?}", order, reach),
                    }
                }
                Step::Fill { order, unmovable } => {
                    while let Some(frame) = source.allocate(request(order, unmovable)) {
                        reference.take(frame, order);
                    }
                    prop_assert!(!reference.has(order, u64::MAX), "order {} is left", order);
                }
                Step::Drain => reference.drain(&source),
                Step::Free { which, piece } if !reference.blocks.is_empty() => {
                    let (&first, &order) = reference.blocks.iter().nth(which.index(reference.blocks.len())).unwrap();
                    reference.blocks.remove(&first);
                    let part = piece.map_or(order, |(_, part)| part.min(order));
                    let (at, rest) = (piece.map_or(0, |(at, _)| at.index(1 << (order - part))), order - part);
                    for index in 0..1u64 << rest {
                        let frame = first + (index << part);
                        if index == at as u64 {
                            // SAFETY: a part of a block that was handed out.
                            unsafe { source.free(Pfn::new(frame), part) };
                            reference.give(frame, part);
                        } else {
                            reference.blocks.insert(frame, part);
                        }
                    }
                }
                Step::FreeAll { which } if !reference.blocks.is_empty() => {
                    let from = which.index(reference.blocks.len());
                    let (&first, &order) = reference.blocks.iter().nth(from).unwrap();
                    let mut end = first + (1 << order);
                    reference.blocks.remove(&first);
                    reference.give(first, order);
                    while let Some(order) = reference.blocks.remove(&end) {
                        reference.give(end, order);
                        end += 1 << order;
                    }
                    // SAFETY: blocks that were handed out, side by side.
                    unsafe { source.free_run(Pfn::new(first), end - first) };
                }
                Step::Wrong { frame, order } => {
                    let whole = order <= 18 && frame % (1 << order) == 0
                        && (frame..frame + (1 << order)).all(|frame| all.contains(&frame) && !reference.free.contains(&frame));
                    if !whole {
                        // SAFETY: wrong on purpose; the source looks before it believes.
                        unsafe { source.free(Pfn::new(frame), order) };
                        refused += 1;
                    }
                }
                _ => {}
            }
            prop_assert_eq!((source.free_frames(), source.refused()), (reference.free.len() as u64, refused));
        }
        reference.drain(&source);
        prop_assert_eq!(&reference.free, &all);
        let largest = (0..=18).rev().find(|&order| reference.has(order, u64::MAX)).unwrap();
        prop_assert!(source.allocate(FrameRequest::movable(largest)).is_some(), "not all was merged");
    }
}

/// Each frame has one owner at a time, whoever allocates and frees beside.
#[test]
fn threads_never_get_the_same_frame() {
    const THREADS: u32 = 4;
    let regions = [usable(0, 2 * MIB), usable(3 * MIB, 24 * MIB)];
    let memory = Memory::of(&regions);
    let (table, source) = made(&memory, &regions).unwrap();
    let free = source.free_frames();
    let owners: Vec<_> = (0..24 * MIB / PAGE_SIZE).map(|_| AtomicU32::new(0)).collect();
    let change = |frame: Pfn, order: u8, from: u32, to: u32| {
        for owner in &owners[frame.number() as usize..][..1 << order] {
            assert_eq!(owner.swap(to, Ordering::Relaxed), from, "{frame:?} of order {order}");
        }
    };
    let (source, change) = (&source, &change);
    thread::scope(|scope| {
        for me in 1..=THREADS {
            scope.spawn(move || {
                let (mut mine, mut random) = (Vec::new(), u64::from(me));
                for _ in 0..30_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let (order, pick) = ((random >> 60) as u8 / 2, (random >> 33) as usize);
                    if random >> 40 & 1 == 0 && mine.len() < 60 {
                        let Some(frame) = source.allocate(FrameRequest::movable(order)) else { continue };
                        change(frame, order, 0, me);
                        mine.push((frame, order));
                    } else if !mine.is_empty() {
                        let (frame, order) = mine.swap_remove(pick % mine.len());
                        change(frame, order, me, 0);
                        // SAFETY: handed out above, to this thread.
                        unsafe { source.free_run(frame, 1 << order) };
                    }
                }
                for (frame, order) in mine {
                    change(frame, order, me, 0);
                    // SAFETY: as above.
                    unsafe { source.free(frame, order) };
                }
            });
        }
    });
    assert_eq!((source.free_frames(), source.refused()), (free, 0));
    assert!(table.spans().all(|(_, words)| words.iter().all(|word| word.snapshot().is_free())));
}
