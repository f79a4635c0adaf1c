//! The ready-made parts of an environment: epoch read side, flat frame table, offset map, allocator adapter, entries.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pagepin::Access;
use pagepin::frame::PageFrame;
use pagepin::pin::PhysRun;
use pagepin::{
    CurrentCpu, Entry, EntryAddr, EntryChange, EpochReadSide, FlatFrameTable, FrameAllocatorSource, FrameRequest,
    FrameSource, FrameTable, LeafSize, OffsetPhysMap, PAGE_SIZE, PageAddr, Pfn, PhysMap, ReadSide, Token,
    fault_from_error_code,
};
use x86_64::PhysAddr;
use x86_64::structures::idt::PageFaultErrorCode as Code;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

struct ThisThread;

// SAFETY: every thread of these tests sets a number of its own below the number of CPUs and keeps it.
unsafe impl CurrentCpu for ThisThread {
    fn current_cpu(&self) -> usize {
        CPU.get()
    }
}

/// INV-13: `synchronize` waits for the walk that was there before it, also through a nested one that ends.
#[test]
fn a_grace_period_waits_for_the_walks_before_it() {
    let read_side = EpochReadSide::<_, 2>::new(ThisThread, thread::yield_now);
    read_side.synchronize();
    drop(read_side.enter());
    read_side.synchronize();
    let (inside, left, over) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            CPU.set(1);
            let walk = read_side.enter();
            drop(read_side.enter());
            inside.store(true, Ordering::SeqCst);
            // Long enough for a wait that is none to show.
            for _ in 0..50 {
                thread::sleep(std::time::Duration::from_millis(1));
                assert!(!over.load(Ordering::SeqCst), "the grace period ended during the walk");
            }
            left.store(true, Ordering::SeqCst);
            drop(walk);
            // A new walk is not waited for.
            for _ in 0..1000 {
                drop(read_side.enter());
            }
        });
        while !inside.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        read_side.synchronize();
        over.store(true, Ordering::SeqCst);
        assert!(left.load(Ordering::SeqCst));
    });
}

/// INV-13, on one thread: `synchronize` would wait exactly while the outermost walk lasts, however many there were.
#[test]
fn every_walk_is_waited_for_and_nothing_else() {
    let read_side = EpochReadSide::<_, 2>::new(ThisThread, || panic!("a wait"));
    let waits = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read_side.synchronize())).is_err();
    for walk in 0..6 {
        assert!(!waits(), "before walk {walk}");
        let outer = read_side.enter();
        assert!(waits(), "walk {walk}");
        let inner = read_side.enter();
        assert!(waits(), "within walk {walk}");
        drop(inner);
        assert!(waits(), "walk {walk} goes on");
        drop(outer);
    }
    assert!(!waits());
}

#[test]
fn a_flat_frame_table_has_edges() {
    let words: Vec<PageFrame> = (0..4).map(|_| PageFrame::new()).collect();
    // SAFETY: the words describe no memory that anyone uses.
    let table = unsafe { FlatFrameTable::new(Pfn::new(100), &words) };
    let same =
        |number: u64, index: usize| std::ptr::eq(table.frame(Pfn::new(number)).unwrap(), &raw const words[index]);
    assert!(same(100, 0) && same(103, 3));
    assert!([0, 99, 104, u64::MAX].iter().all(|number| table.frame(Pfn::new(*number)).is_none()));
    let run = |first, count| table.run(Pfn::new(first), count).map(<[_]>::len);
    assert_eq!([run(100, 4), run(101, 2), run(103, 1), run(104, 0)], [Some(4), Some(2), Some(1), Some(0)]);
    assert_eq!([run(99, 2), run(101, 4), run(0, 1), run(103, u64::MAX), run(u64::MAX, 2)], [None; 5]);
}

#[test]
fn an_offset_map_reaches_memory_and_entries() {
    #[repr(align(4096))]
    struct Frames([u64; 1024]);
    let mut memory = Box::new(Frames([7; 1024]));
    let address = (&raw mut *memory).expose_provenance() as u64;
    // SAFETY: only the two frames at physical 0x5000 are ever asked for.
    let map = unsafe { OffsetPhysMap::new(address - 0x5000) };
    let (first, second) = (Pfn::new(5), Pfn::new(6));
    assert_eq!(map.frame_ptr(second).expose_provenance() as u64, address + PAGE_SIZE);
    let at = EntryAddr::new(first, 511);
    assert_eq!((at.table(), at.address()), (first, 0x5ff8));
    // SAFETY: both frames are this test's.
    unsafe {
        assert_eq!(map.load_entry(at), Entry::from_bits(7));
        map.store_entry(at, Entry::from_bits(0x61));
        assert_eq!(map.change_entry(at, EntryChange::Set(2)), Entry::from_bits(0x61));
        assert_eq!(map.change_entry(at, EntryChange::Clear(1)), Entry::from_bits(0x63));
        assert_eq!(map.exchange_entry(at, Entry::EMPTY, Entry::from_bits(1)), Err(Entry::from_bits(0x62)));
        assert_eq!(map.exchange_entry(at, Entry::from_bits(0x62), Entry::EMPTY), Ok(()));
        map.clear_frames(second, 0);
        map.copy_frames(first, second, 0);
    }
    assert_eq!((memory.0[511], memory.0[512], memory.0[1023]), (0, 7, 0));
}

struct Stack(Vec<PhysFrame>);

// SAFETY: the frames are only numbers here.
unsafe impl FrameAllocator<Size4KiB> for Stack {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.0.pop()
    }
}

impl FrameDeallocator<Size4KiB> for Stack {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        self.0.push(frame);
    }
}

#[test]
fn any_x86_64_frame_allocator_is_a_source() {
    let frame = PhysFrame::containing_address(PhysAddr::new(0x3000));
    // SAFETY: nobody accesses the frames.
    let source: FrameAllocatorSource<Stack> =
        unsafe { FrameAllocatorSource::new(Stack(vec![frame]), Some(Pfn::new(9))) };
    assert_eq!(
        (source.allocate(FrameRequest::movable(9)), source.zero_frame()),
        (None, Some(Pfn::new(9))),
        "single frames only"
    );
    assert_eq!(source.allocate(FrameRequest::movable(0)), Some(Pfn::new(3)));
    assert_eq!(source.allocate(FrameRequest::movable(0)), None);
    // SAFETY: allocated above.
    unsafe { source.free(Pfn::new(3), 0) };
    assert_eq!(source.with(|stack| stack.0.len()), 1);
    assert_eq!((Pfn::from(frame), PhysFrame::from(Pfn::new(3))), (Pfn::new(3), frame));
    assert_eq!(Pfn::new(0x207).block_start(9), Pfn::new(0x200));
    assert_eq!(format!("{:?} {:?}", Pfn::new(16), PageAddr::containing(0x1fff)), "Pfn(0x10) PageAddr(0x1000)");
}

/// SDM vol. 3, 4.7: the bits of the error code, for addresses of 4 and 5 levels.
#[test]
fn error_codes_are_understood() {
    let user = Code::USER_MODE;
    for address in [0x1234, 0x7fff_ffff_e000, (1 << 56) - 8192] {
        let access = |code| fault_from_error_code(address, user | code).access;
        assert_eq!(access(Code::empty()), Access::Read);
        assert_eq!(access(Code::CAUSED_BY_WRITE | Code::PROTECTION_VIOLATION), Access::Write);
        assert_eq!(access(Code::INSTRUCTION_FETCH), Access::Execute);
        let fault = fault_from_error_code(address, user | Code::PROTECTION_KEY);
        assert_eq!((fault.address, fault.key_denied, fault.malformed_table), (address, true, false));
        assert!(fault_from_error_code(address, user | Code::MALFORMED_TABLE).malformed_table);
    }
}

#[test]
fn entries_show_what_they_say() {
    assert_eq!(format!("{:?}", Entry::EMPTY), "Entry(empty)");
    let entry = Entry::from_bits(0x8000_0000_0012_3067 | 5 << 59);
    assert_eq!(format!("{entry:?}"), "Entry(0x123000 P W U A D NX key 5)");
    assert!(entry.is_present() && entry.is_writable() && entry.is_user() && entry.is_dirty() && !entry.is_executable());
    assert_eq!((entry.key(), entry.leaf_frame(LeafSize::Size4KiB)), (5, Pfn::new(0x123)));
    // Bit 12 of a large leaf is its memory type.
    let large = Entry::from_bits(0x20_1087);
    assert_eq!(large.leaf_frame(LeafSize::Size2MiB), Pfn::new(0x200));
    assert!(entry.same_mapping(Entry::from_bits(entry.bits() & !0x60)) && !entry.same_mapping(large));
}

#[test]
fn runs_and_tokens_show_what_they_are() {
    let (page, leaf) = (PhysRun::from_parts(Pfn::new(0x1f), 3, 0), PhysRun::from_parts(Pfn::new(0x200), 512, 9));
    assert_eq!(format!("{page:?}"), "PhysRun(0x1f + 3)");
    assert_eq!(format!("{leaf:?}"), "PhysRun(0x200 + 512, order 9)");
    assert_eq!(format!("{:?}", leaf.sole()), "PhysRun(0x200 + 512, order 9, sole)");
    assert!(leaf.sole().sole().is_sole() && leaf.sole().sole().order() == 9);
    assert_eq!(format!("{:?}", Token::new(0x1f).unwrap()), "token 0x1f");
}
