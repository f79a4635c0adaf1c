//! How long the mm lock is held at a time by what user space can make large: a million pages, 65,000 VMAs, a range of 1 TiB.
//!
//! A kernel of its own: a million frames, whose bytes nobody looks at, and a guard against preemption that measures, since it is
//! taken before the lock and dropped after it. What else the machine does can only lengthen a section, so of some rounds the
//! shortest counts.

use std::cell::Cell;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pagepin::fault::Fault;
use pagepin::frame::PageFrame;
use pagepin::pin::{PhysRun, PinFlags, Write, pin_user_pages};
use pagepin::space::{Advice, KernelHalf, SpaceOptions, UserSpace};
use pagepin::{
    Access, Counters, Extras, FlatFrameTable, FrameRequest, FrameSource, Levels, NoPreempt, OffsetPhysMap, PAGE_SIZE,
    Pfn, PhysMap, Platform, Rights, Zone,
};
use spin::relax::Spin;

use crate::linux::memory;
use crate::machine::{NoTlbs, NoWalkers};
use crate::report::Hold;

const ROUNDS: usize = 3;
/// What no section should take longer than.
const GOAL: f64 = 1000.0;

const TABLES: u64 = 8 * 1024;
const PAGES: u64 = 1 << 20;
/// First frame.
const FIRST: u64 = 512;
const FIRST_PAGE: u64 = FIRST + TABLES;
const END: u64 = FIRST_PAGE + PAGES;

const VMAS: u64 = 65_000;
const BASE: u64 = 0x100_0000_0000;
const TIB: u64 = 1 << 40;
const GIB: u64 = 1 << 30;
const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);

type Kernel = Platform<Tables, FlatFrameTable<'static>, Frames, NoWalkers, NoTlbs, Spin, Extras<Timer, Counters>>;
type Space = UserSpace<&'static Kernel>;

/// Only tables have memory.
#[derive(Debug)]
struct Tables(OffsetPhysMap);

// SAFETY: forwards to the direct map. No page's bytes are looked at.
unsafe impl PhysMap for Tables {
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        self.0.frame_ptr(frame)
    }

    unsafe fn copy_frames(&self, _: Pfn, _: Pfn, _: u8) {}

    unsafe fn clear_frames(&self, frame: Pfn, order: u8) {
        if frame.number() < FIRST_PAGE {
            // SAFETY: forwarded from the caller.
            unsafe { self.0.clear_frames(frame, order) }
        }
    }
}

/// Pages and tables that nobody has.
#[derive(Debug)]
struct Frames {
    pages: Mutex<Vec<u64>>,
    tables: Mutex<Vec<u64>>,
}

impl Frames {
    fn of(&self, frame: u64) -> &Mutex<Vec<u64>> {
        if frame < FIRST_PAGE { &self.tables } else { &self.pages }
    }
}

// SAFETY: a frame is in one stack, or handed out.
unsafe impl FrameSource for Frames {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        let stack = if request.zone == Zone::Movable { &self.pages } else { &self.tables };
        (request.order == 0).then(|| stack.lock().ok()?.pop().map(Pfn::new))?
    }

    unsafe fn free(&self, frame: Pfn, _: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { self.free_run(frame, 1) };
    }

    unsafe fn free_run(&self, first: Pfn, count: u64) {
        let first = first.number();
        self.of(first).lock().expect("no panic").extend(first..first + count);
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static BEGIN: Cell<Option<Instant>> = const { Cell::new(None) };
    static LONGEST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Times the outermost guard of a thread.
#[derive(Debug)]
struct Timer;

struct Timed;

// SAFETY: threads here are not moved to another slot: there are none.
unsafe impl NoPreempt for Timer {
    type Guard<'a> = Timed;

    fn enter(&self) -> Timed {
        if DEPTH.replace(DEPTH.get() + 1) == 0 {
            BEGIN.set(Some(Instant::now()));
        }
        Timed
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if DEPTH.replace(DEPTH.get() - 1) == 1 {
            let took = BEGIN.take().map_or(Duration::ZERO, |begin| begin.elapsed());
            LONGEST.set(LONGEST.get().max(took));
        }
    }
}

fn kernel() -> &'static Kernel {
    let tables = memory::populated((FIRST_PAGE - FIRST) * PAGE_SIZE);
    // SAFETY: the memory stays for ever, is page-aligned, far above the first frame's address, and the bytes of other frames than
    // these are looked at by nobody.
    let map = unsafe { OffsetPhysMap::new(tables.expose_provenance().get() as u64 - FIRST * PAGE_SIZE) };
    let words: &'static [PageFrame] = (FIRST..END).map(|_| PageFrame::new()).collect::<Vec<_>>().leak();
    // SAFETY: the words are of the frames that `Frames` hands out, and stay for ever.
    let table = unsafe { FlatFrameTable::new(Pfn::new(FIRST), words) };
    let stack = |frames: std::ops::Range<u64>| Mutex::new(frames.rev().collect());
    let frames = Frames { pages: stack(FIRST_PAGE..END), tables: stack(FIRST..FIRST_PAGE) };
    // SAFETY: the parts are those of one memory; one thread uses them.
    let platform = unsafe { Platform::new(Tables(map), table, frames, NoWalkers, NoTlbs) };
    Box::leak(Box::new(platform.with_extras(Extras::new().no_preempt(Timer))))
}

fn space(kernel: &'static Kernel) -> Space {
    Space::new(kernel, SpaceOptions::new(KernelHalf::none(Levels::Four))).expect("memory for a table")
}

fn write(space: &Space, address: u64) {
    let fault = Fault { address, access: Access::Write, key_denied: false, malformed_table: false };
    space.fault(fault).expect("memory for a page");
}

/// Almost a million pages, all written.
fn many_pages(kernel: &'static Kernel) -> Space {
    let space = space(kernel);
    space.map(BASE, PAGES * PAGE_SIZE, READ_WRITE).expect("room for a VMA");
    (0..PAGES).for_each(|page| write(&space, BASE + page * PAGE_SIZE));
    space
}

/// 1 TiB with a page in each GiB.
fn wide(kernel: &'static Kernel) -> Space {
    let space = space(kernel);
    space.map(BASE, TIB, READ_WRITE).expect("room for a VMA");
    (0..TIB / GIB).for_each(|index| write(&space, BASE + index * GIB));
    space
}

/// One page each, with holes between, so that none are joined.
fn many_vmas(kernel: &'static Kernel) -> Space {
    let space = space(kernel);
    for index in 0..VMAS {
        space.map(BASE + 2 * index * PAGE_SIZE, PAGE_SIZE, READ_WRITE).expect("room for a VMA");
    }
    space
}

/// The same side by side, with numbers that keep them apart.
fn neighbours(kernel: &'static Kernel) -> Space {
    let space = space(kernel);
    for index in 0..VMAS {
        let options = pagepin::MapOptions::new(READ_WRITE).data(index as u16 % 2);
        space.map(BASE + index * PAGE_SIZE, PAGE_SIZE, options).expect("room for a VMA");
    }
    space
}

/// An operation on a space that was made ready for it.
struct Case {
    key: &'static str,
    title: &'static str,
    ready: fn(&'static Kernel) -> Space,
    work: fn(&Space),
}

const LENGTH: u64 = PAGES * PAGE_SIZE;

const CASES: [Case; 11] = [
    Case {
        key: "unmap_pages",
        title: "munmap of a million pages",
        ready: many_pages,
        work: |space| _ = space.unmap(BASE, LENGTH).expect("pages to unmap"),
    },
    Case {
        key: "discard_pages",
        title: "MADV_DONTNEED of a million pages",
        ready: many_pages,
        work: |space| _ = space.discard(BASE, LENGTH).expect("pages to discard"),
    },
    Case {
        key: "protect_pages",
        title: "mprotect of a million pages",
        ready: many_pages,
        work: |space| space.protect(BASE, LENGTH, Rights::READ).expect("a VMA"),
    },
    Case {
        key: "move_pages",
        title: "mremap of a million pages",
        ready: many_pages,
        work: |space| space.move_pages(BASE, LENGTH, BASE + TIB).expect("free addresses"),
    },
    Case {
        key: "pin_pages",
        title: "pin of a million pages under the lock",
        ready: many_pages,
        work: |space| {
            let range = space.range(BASE, LENGTH).expect("a user range");
            let mut runs = vec![PhysRun::default(); 4096];
            drop(pin_user_pages(space, Write, range, PinFlags::empty(), &mut runs[..]).expect("pages to pin"));
        },
    },
    Case {
        key: "resident_pages",
        title: "count of a million resident pages",
        ready: many_pages,
        work: |space| _ = space.resident().expect("tables that are whole"),
    },
    Case {
        key: "unmap_wide",
        title: "munmap of 1 TiB, a page in each GiB",
        ready: wide,
        work: |space| _ = space.unmap(BASE, TIB).expect("pages to unmap"),
    },
    Case {
        key: "protect_wide",
        title: "mprotect of 1 TiB, a page in each GiB",
        ready: wide,
        work: |space| space.protect(BASE, TIB, Rights::READ).expect("a VMA"),
    },
    Case {
        key: "unmap_vmas",
        title: "munmap of 65,000 VMAs",
        ready: many_vmas,
        work: |space| _ = space.unmap(BASE, 2 * VMAS * PAGE_SIZE).expect("VMAs to unmap"),
    },
    Case {
        key: "protect_vmas",
        title: "mprotect of 65,000 VMAs",
        ready: neighbours,
        work: |space| space.protect(BASE, VMAS * PAGE_SIZE, Rights::READ).expect("VMAs"),
    },
    Case {
        key: "advise_vmas",
        title: "MADV_DONTFORK of 65,000 VMAs",
        ready: neighbours,
        work: |space| space.advise(BASE, VMAS * PAGE_SIZE, Advice::DontFork).expect("VMAs"),
    },
];

pub(crate) fn measure() -> Vec<Hold> {
    let kernel = kernel();
    let longest = |case: &Case| {
        let round = |_| {
            let space = (case.ready)(kernel);
            LONGEST.set(Duration::ZERO);
            (case.work)(&space);
            LONGEST.get()
        };
        (0..ROUNDS).map(round).min().unwrap_or_default()
    };
    let hold = |case: &Case| Hold {
        key: case.key.to_owned(),
        title: case.title.to_owned(),
        microseconds: longest(case).as_secs_f64() * 1e6,
        goal: GOAL,
    };
    CASES.iter().map(hold).collect()
}
