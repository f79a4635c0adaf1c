//! What the library costs, per page, in ticks of the cycle counter: instructions, under
//! `-icount shift=0`. Each figure is the difference of two sizes; what a call costs
//! however few pages it is for stays in, where pages are passed in calls of a fixed
//! size (`_b512`, `_b1`), and drops out elsewhere.

mod kinds;

use alloc::{sync::Arc, vec, vec::Vec};
use core::{arch::asm, hint::black_box, mem};

use pagepin::frame::{FrameKind, Ownership};
use pagepin::pin::{PhysRun, PinFlags, Read, Write, pin_user_pages, pin_user_pages_fast, unpin_user_runs};
use pagepin::space::UserSpace;
use pagepin::{
    Access, Entry, FrameRequest, FrameSource, FrameTable, LeafSize, Rights, UserRange, fault::Fault, frame::Dirty,
    paging::Tables,
};
use pagepin::{AddressSpace as _, Env, LedgerTable, PageAddr, Pfn, PhysMap, PinLedger, PinRecord, PinTerm, Through};

use crate::{
    memory::PAGE,
    mm::{self, AddressSpace, Kernel, kernel},
    println,
    single_step::locked_instructions,
    time,
};

const VMA: u64 = 0x1_0000_0000;
/// Where pages are moved: elsewhere in a table.
const MOVED: u64 = 0x2_0000_7000;
const HUGE: u64 = 512 * PAGE;
/// Pages of the two sizes.
const SMALL: u64 = 512;
const LARGE: u64 = 5 * 512;
const CALL: u64 = 512;

/// Ticks that `work` takes, without the two looks at the counter.
fn ticks(work: impl FnOnce()) -> u64 {
    let empty = {
        let start = time::ticks();
        time::ticks() - start
    };
    let start = time::ticks();
    work();
    (time::ticks() - start).saturating_sub(empty)
}

/// `measure(LARGE) - measure(SMALL)`, per page.
fn per_page(mut measure: impl FnMut(u64) -> u64) -> f64 {
    // Once before, so that nothing is done for the first time.
    measure(SMALL);
    let (small, large) = (measure(SMALL), measure(LARGE));
    large.saturating_sub(small) as f64 / (LARGE - SMALL) as f64
}

fn report(key: &str, value: f64) {
    println!("@bench {key} {value:.2}");
}

/// Ticks that copying one page takes; clearing takes the same.
pub fn copy_ticks() -> u64 {
    let source = kernel().source();
    let (Some(from), Some(to)) = (source.allocate(FrameRequest::movable(0)), source.allocate(FrameRequest::movable(0)))
    else {
        return 0;
    };
    // SAFETY: both frames were just allocated, are nobody else's, and go back.
    unsafe {
        let once = ticks(|| kernel().phys_map().copy_frames(from, to, 0));
        let twice = ticks(|| {
            kernel().phys_map().copy_frames(from, to, 0);
            kernel().phys_map().copy_frames(from, to, 0);
        });
        source.free(from, 0);
        source.free(to, 0);
        twice - once
    }
}

/// An address space of its own, loaded on this CPU while it is measured.
struct Subject(Arc<AddressSpace>);

impl Subject {
    fn new() -> Self {
        let space = Arc::new(AddressSpace::new().expect("memory for a table"));
        mm::enter(&space);
        Self(space)
    }

    /// With `pages` pages of private memory, all written to, in the order given.
    fn touched(pages: u64, order: impl Fn(u64) -> u64) -> Self {
        let this = Self::new();
        this.space().map(VMA, pages * PAGE, Rights::READ | Rights::WRITE).expect("room for a VMA");
        this.touch(pages, order);
        this
    }

    /// Writes to the first pages, in the order given.
    fn touch(&self, pages: u64, order: impl Fn(u64) -> u64) {
        for page in 0..pages {
            let address = VMA + order(page) * PAGE;
            let fault = Fault { address, access: Access::Write, key_denied: false, malformed_table: false };
            self.space().fault(fault).expect("memory for a page");
        }
    }

    fn space(&self) -> &UserSpace<&'static Kernel> {
        self.0.user_space()
    }

    fn range(&self, first: u64, pages: u64) -> UserRange {
        self.space().range(VMA + first * PAGE, pages * PAGE).expect("a user range")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        mm::leave();
    }
}

fn in_order(page: u64) -> u64 {
    page
}

/// Neighbours in memory are far apart in the address space.
fn scattered(page: u64) -> u64 {
    page / 512 * 512 + page * 205 % 512
}

/// Pins the ranges for writing, one call each. The pins are left to `unpin_all`.
#[inline(never)]
fn pin_all(space: &UserSpace<&'static Kernel>, ranges: &[UserRange], buffers: &mut [PhysRun], slow: bool) {
    let per_call = buffers.len() / ranges.len();
    for (range, buffer) in ranges.iter().zip(buffers.chunks_exact_mut(per_call)) {
        let flags = PinFlags::empty();
        let pinned = match slow {
            false => pin_user_pages_fast(space, Write, *range, flags, buffer),
            true => pin_user_pages(space, Write, *range, flags, buffer),
        };
        // As a driver that keeps the runs and looks at nothing else.
        match pinned {
            Ok(pinned) => mem::forget(pinned),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Gives back what `pin_all` took, call by call.
#[inline(never)]
fn unpin_all(kernel: &Kernel, calls: &[&[PhysRun]]) {
    for runs in calls {
        // SAFETY: `pin_all` took these pins through this kernel; nobody else gives them back.
        unsafe { unpin_user_runs(kernel, runs, Dirty::Yes) };
    }
}

/// What is measured of some work. A type, so that the work is compiled into what is timed, as it is in a driver.
trait Meter {
    fn of(work: impl FnMut()) -> u64;
}

struct Ticks;
struct Locked;

impl Meter for Ticks {
    #[inline(always)]
    fn of(work: impl FnMut()) -> u64 {
        ticks(work)
    }
}

impl Meter for Locked {
    fn of(mut work: impl FnMut()) -> u64 {
        locked_instructions(&mut work)
    }
}

/// Pin and unpin of `ranges`: what each of them takes.
fn pin_and_unpin<M: Meter>(subject: &Subject, ranges: &[UserRange], per_call: usize, slow: bool) -> (u64, u64) {
    let mut buffers = vec![PhysRun::default(); ranges.len() * per_call];
    let pinned = M::of(|| pin_all(subject.space(), ranges, &mut buffers, slow));
    let held: u64 = buffers.iter().map(PhysRun::pages).sum();
    assert_eq!(held, ranges.iter().map(|range| range.pages()).sum::<u64>(), "everything was pinned");
    // Each call's runs are at the front of its part of the buffers.
    let used = |buffer: &[PhysRun]| buffer.iter().take_while(|run| run.pages() != 0).count();
    let calls: Vec<_> = buffers.chunks_exact(per_call).map(|buffer| &buffer[..used(buffer)]).collect();
    (pinned, M::of(|| unpin_all(kernel(), &calls)))
}

/// The same for `pages` base pages in calls of `call`.
fn base_pages(pages: u64, call: u64, order: fn(u64) -> u64, slow: bool) -> (u64, u64) {
    metered_pages::<Ticks>(pages, call, order, slow)
}

fn metered_pages<M: Meter>(pages: u64, call: u64, order: fn(u64) -> u64, slow: bool) -> (u64, u64) {
    let subject = Subject::touched(pages, order);
    let ranges: Vec<_> = (0..pages / call).map(|index| subject.range(index * call, call)).collect();
    pin_and_unpin::<M>(&subject, &ranges, call as usize, slow)
}

fn pins() {
    report("pin_fast_4k_b512", per_page(|pages| base_pages(pages, CALL, in_order, false).0));
    report("pin_fast_4k_b512_scattered", per_page(|pages| base_pages(pages, CALL, scattered, false).0));
    report("pin_fast_4k_b1", per_page(|pages| base_pages(pages, 1, in_order, false).0));
    report("pin_slow_4k_b512", per_page(|pages| base_pages(pages, CALL, in_order, true).0));
    report("pin_slow_4k_b1", per_page(|pages| base_pages(pages, 1, in_order, true).0));
    report("unpin_4k", per_page(|pages| base_pages(pages, CALL, in_order, false).1));
    report("unpin_4k_scattered", per_page(|pages| base_pages(pages, CALL, scattered, false).1));
    report("unpin_4k_b1", per_page(|pages| base_pages(pages, 1, in_order, false).1));
}

/// `leaves` leaves of 2 MiB, mapped by hand.
fn large_subject(leaves: u64) -> Subject {
    let subject = Subject::new();
    subject.space().map(VMA, leaves * HUGE, Rights::READ | Rights::WRITE).expect("room for a VMA");
    for leaf in 0..leaves {
        let size = LeafSize::Size2MiB;
        let block = kernel().source().allocate(FrameRequest::movable(size.order())).expect("a block");
        let head = kernel().frames().frame(block).expect("a frame of the pool");
        // SAFETY: the source has just given it to us.
        let word = unsafe { head.word() };
        word.hand_out(FrameKind::Anonymous, size.order(), Ownership::Exclusive).expect("a free frame");
        let page = PageAddr::containing(VMA + leaf * HUGE);
        // SAFETY: there is one thread, and it is in no operation.
        let mut tables = unsafe { Tables::under_mm_lock(subject.space().mm()) };
        // SAFETY: the VMA lies in the user half.
        let at = unsafe { tables.place(page, size) }.expect("memory for a table");
        // SAFETY: the VMA is new; the block is ours and exclusive, and the entry owns it now.
        unsafe { tables.fill(at, size, Entry::leaf(block, size, Rights::READ | Rights::WRITE, 0)) }
            .expect("nothing there");
    }
    subject
}

/// One call for each of `leaves` leaves.
fn large(leaves: u64) -> (u64, u64) {
    let subject = large_subject(leaves);
    let ranges: Vec<_> = (0..leaves).map(|leaf| subject.range(leaf * 512, 512)).collect();
    pin_and_unpin::<Ticks>(&subject, &ranges, 1, false)
}

/// A page of each of `leaves` leaves, which are pinned, loses the right to write: the leaves are split.
fn split_pinned(leaves: u64) -> u64 {
    let subject = large_subject(leaves);
    let range = subject.range(0, leaves * 512);
    let pins =
        pin_user_pages_fast(subject.space(), Read, range, PinFlags::empty(), vec![PhysRun::default(); leaves as usize]);
    let taken = ticks(|| {
        for leaf in 0..leaves {
            _ = black_box(subject.space().protect(VMA + leaf * HUGE, PAGE, Rights::READ));
        }
    });
    drop(black_box(pins));
    taken
}

fn large_leaves() {
    let of_one = |measure: fn(u64) -> u64| {
        measure(1);
        (measure(5) - measure(1)) as f64 / 4.0
    };
    report("pin_fast_2m_leaf", of_one(|leaves| large(leaves).0));
    report("unpin_2m_leaf", of_one(|leaves| large(leaves).1));
    report("split_pinned_4k", of_one(split_pinned) / 512.0);
    report(
        "fork_2m_leaf",
        of_one(|leaves| {
            let subject = large_subject(leaves);
            let mut child = None;
            let taken = ticks(|| child = subject.space().fork().ok());
            black_box(child);
            taken
        }),
    );
}

fn operations() {
    report(
        "fork_4k",
        per_page(|pages| {
            let subject = Subject::touched(pages, in_order);
            let mut child = None;
            let taken = ticks(|| child = subject.space().fork().ok());
            black_box(child);
            taken
        }),
    );
    report(
        "unmap_4k",
        per_page(|pages| {
            let subject = Subject::touched(pages, in_order);
            ticks(|| _ = black_box(subject.space().unmap(VMA, pages * PAGE)))
        }),
    );
    report(
        "move_4k",
        per_page(|pages| {
            let subject = Subject::touched(pages, in_order);
            ticks(|| subject.space().move_pages(VMA, pages * PAGE, MOVED).expect("free addresses"))
        }),
    );
    report(
        "exit_4k",
        per_page(|pages| {
            let subject = Subject::touched(pages, in_order);
            ticks(|| drop(black_box(subject)))
        }),
    );
    report(
        "protect_4k",
        per_page(|pages| {
            let subject = Subject::touched(pages, in_order);
            ticks(|| _ = black_box(subject.space().protect(VMA, pages * PAGE, Rights::READ)))
        }),
    );
}

/// A child pins for reading what it shares with its parent, `call` pages a call or all in one: a copy and a pin for each page.
fn unshare(key: &str, call: Option<u64>) {
    let gross = per_page(|pages| {
        let subject = Subject::touched(pages, in_order);
        let child = subject.space().fork().expect("memory for a child");
        let call = call.unwrap_or(pages);
        let ranges: Vec<_> = (0..pages / call)
            .map(|index| child.range(VMA + index * call * PAGE, call * PAGE).expect("a user range"))
            .collect();
        let mut buffers = vec![PhysRun::default(); pages as usize];
        let mut pinned = Vec::with_capacity(ranges.len());
        let taken = ticks(|| {
            for (range, buffer) in ranges.iter().zip(buffers.chunks_exact_mut(call as usize)) {
                pinned.extend(pin_user_pages_fast(&child, Read, *range, PinFlags::empty(), buffer));
            }
        });
        assert_eq!(pinned.iter().map(|pins| pins.pages()).sum::<u64>(), pages);
        taken
    });
    report(key, gross - copy_ticks() as f64);
}

/// What a ledger takes for one run: entered and struck out.
fn ledger() {
    static LEDGER: LedgerTable<64> = LedgerTable::new(time::ticks);
    let subject = Subject::new();
    let (range, mut rounds) = (subject.range(0, 1), 0);
    let runs = [PhysRun::from_parts(Pfn::new(1), 1, 0)];
    let through = Through::space(subject.space().root());
    let taken = per_page(|times| {
        rounds += times;
        ticks(|| {
            for _ in 0..times {
                let record = PinRecord {
                    through,
                    tag: 1,
                    range,
                    runs: black_box(&runs),
                    access: Access::Write,
                    term: PinTerm::Long,
                };
                LEDGER.forget(black_box(LEDGER.record(&record)));
            }
        })
    });
    assert_eq!((LEDGER.missed(), LEDGER.misused()), (0, 0), "{rounds} records came and went");
    report("ledger_run", taken);
}

/// Locked instructions per page, counted as they are executed: what a layout could differ in, and what other CPUs notice.
pub fn atomics() {
    let locked = |call, slow| move |pages| metered_pages::<Locked>(pages, call, in_order, slow);
    report("atomics_pin_b512", per_page(|pages| locked(CALL, false)(pages).0));
    report("atomics_pin_b1", per_page(|pages| locked(1, false)(pages).0));
    report("atomics_pin_slow_b1", per_page(|pages| locked(1, true)(pages).0));
    report("atomics_unpin", per_page(|pages| locked(CALL, false)(pages).1));
}

pub fn run() {
    let rounds = 10_000u64;
    let taken = ticks(|| {
        // SAFETY: counts a register down.
        unsafe { asm!("2:", "dec {0}", "jnz 2b", inout(reg) rounds => _, options(nomem, nostack)) };
    });
    report("calib_loop", taken as f64 / rounds as f64);
    report("copy_4k", copy_ticks() as f64);
    pins();
    large_leaves();
    operations();
    unshare("unshare_net", None);
    unshare("unshare_b64_net", Some(64));
    unshare("unshare_b1_net", Some(1));
    ledger();
    kinds::run();
}
