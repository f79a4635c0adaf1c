//! The second thread of a worker. It pins random pages of the same memory, looks at them as
//! a device does, sometimes writes its own place, and lets go. In between it stores and loads
//! through the pages themselves, by way of the kernel: it cannot know which of them are
//! mapped, and gets an error where the program would be killed. Some of its pins are of the
//! memory of the worker's children.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pagepin_abi::{Call, Error, PIN_LONGTERM, PIN_PLAIN, PIN_READ, PIN_WRITE, PROT_WRITE, StormRun};

use super::{
    layout::{self, PAGE, PAGES, PINNED, STORED, WORDS},
    memory::peek,
    model::{self, Author, MARKS, Memory},
    random::Random,
};
use crate::{calls, println};

const STACK: u64 = 0x3800_0000;
const STACK_BYTES: u64 = 8 * PAGE;
/// A page of this thread's own, pinned while it runs.
const SCRATCH: u64 = 0x3900_0000;
/// Stores in a row: without a pause, so that this CPU's TLB keeps what it knows.
const BURST: u32 = 24;

static STOP: AtomicU32 = AtomicU32::new(0);
static STOPPED: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);
/// No page.
const NONE: u32 = u32::MAX;
/// The page that the worker is about to change.
static LURE: AtomicU32 = AtomicU32::new(NONE);
/// The page that is being stored into.
static BUSY: AtomicU32 = AtomicU32::new(NONE);
/// How many stores were tried.
static STORES: AtomicU32 = AtomicU32::new(0);
/// Calls for which the worker waits for stores to begin: this thread may not be running at all.
const PATIENCE: u32 = 100;
/// Calls for which it waits for those that have begun: the CPU may be an emulated one that has to wait for a real one.
const LONG_PATIENCE: u32 = 400;
/// The children that are alive, or 0.
static CHILDREN: [AtomicU64; MARKS.len()] = [const { AtomicU64::new(0) }; MARKS.len()];
/// The run's argument, for the thread takes only one.
static RUN: AtomicU64 = AtomicU64::new(0);

pub fn start(run: StormRun, worker: u64) {
    RUN.store(run.to_bits(), Ordering::SeqCst);
    calls::map(STACK, STACK_BYTES, PROT_WRITE).unwrap();
    calls::map(SCRATCH, PAGE, PROT_WRITE).unwrap();
    calls::spawn_thread(work, STACK + STACK_BYTES, worker).unwrap();
}

/// Draws the stores to a page that the worker is about to change, and gives them time to begin.
pub fn lure_to(page: usize) {
    LURE.store(page as u32, Ordering::SeqCst);
    for _ in 0..PATIENCE {
        let _ = calls::null();
        if BUSY.load(Ordering::SeqCst) == page as u32 {
            break;
        }
    }
}

/// Waits until one more store was tried from beginning to end, if this page is being stored into.
pub fn await_store_to(page: usize) {
    let seen = STORES.load(Ordering::SeqCst);
    for _ in 0..LONG_PATIENCE {
        if BUSY.load(Ordering::SeqCst) != page as u32 || STORES.load(Ordering::SeqCst).wrapping_sub(seen) > 1 {
            break;
        }
        calls::yield_now();
    }
}

/// A child to pin the memory of, from now on.
pub fn show_child(slot: usize, pid: u64) {
    CHILDREN[slot].store(pid, Ordering::SeqCst);
}

/// Ends the thread; how many wrong words it has seen.
pub fn stop() -> u32 {
    STOP.store(1, Ordering::SeqCst);
    while STOPPED.load(Ordering::SeqCst) == 0 {
        calls::yield_now();
    }
    WRONG.load(Ordering::SeqCst)
}

extern "C" fn work(worker: u64) -> ! {
    let run = StormRun::from_bits(RUN.load(Ordering::SeqCst));
    let mut random = Random::new(run.seed, worker + 0x100);
    let plain = if run.twin { PIN_PLAIN } else { 0 };
    let scratch = calls::dev_pin(SCRATCH, PAGE, PIN_WRITE | plain).unwrap();
    let mut count = 0;
    while STOP.load(Ordering::SeqCst) == 0 {
        count += BURST;
        match LURE.swap(NONE, Ordering::SeqCst) {
            NONE if random.one_in(2) => turn(run, worker, &mut random, count),
            NONE => burst(worker, random.below(PAGES as u64) as usize, scratch, count),
            lured => burst(worker, lured as usize, scratch, count),
        }
        calls::yield_now();
    }
    calls::dev_unpin(scratch).unwrap();
    STOPPED.store(1, Ordering::SeqCst);
    calls::exit_thread()
}

/// Where a pin of a page begins, in base pages, and how many it is of.
fn some_base_pages(random: &mut Random, page: usize) -> (usize, u64) {
    let last = layout::words(page) / WORDS - 1;
    let first =
        if random.one_in(2) { layout::index(page, PINNED) / WORDS } else { random.below(last as u64 + 1) as usize };
    (first, 1 + random.below(3))
}

fn turn(run: StormRun, worker: u64, random: &mut Random, count: u32) {
    let page = random.below(PAGES as u64) as usize;
    let (first, pages) = some_base_pages(random, page);
    let writes = random.one_in(2);
    let mut flags = if writes { PIN_WRITE } else { PIN_READ };
    if run.twin {
        flags |= PIN_PLAIN;
    } else if random.one_in(4) {
        flags |= PIN_LONGTERM;
    }
    let child = CHILDREN[random.below(MARKS.len() as u64) as usize].load(Ordering::SeqCst);
    let (start, bytes) = (layout::address(page) + first as u64 * PAGE, pages * PAGE);
    let (memory, pin) = if child != 0 && random.one_in(3) {
        (Memory::Child, calls::dev_pin_remote(start, bytes, flags, child))
    } else {
        (Memory::Worker, calls::dev_pin(start, bytes, flags))
    };
    let pin = match pin {
        Ok(pin) => pin,
        // A hole, no such right, or changing all the time; a device's; a child that has ended; no memory for a copy.
        Err(Error::Fault | Error::Denied | Error::Busy) => return,
        Err(Error::NotSupported | Error::NotFound | Error::NoMemory) => return,
        Err(other) => panic!("pin: {other:?}"),
    };
    if random.one_in(2) {
        calls::yield_now();
    }
    let mut words = [0; WORDS];
    peek(pin, 0, &mut words);
    let implausible = |index: &usize| !memory.may_show(words[*index], worker, page, first * WORDS + index);
    if let Some(index) = (0..WORDS).find(implausible) {
        WRONG.fetch_add(1, Ordering::SeqCst);
        if !run.twin {
            let found = words[index];
            println!(
                "storm: seed {}, worker {worker}, page {page}: pin shows {found:#x} in word {index} of base page {first}",
                run.seed
            );
        }
    }
    let place = layout::index(page, PINNED);
    if writes && place / WORDS == first {
        let word = model::word(worker, Author::Pinner, page, PINNED, count);
        calls::dev_poke(pin, 8 * (place % WORDS) as u64, &word.to_le_bytes()).unwrap();
    }
    calls::dev_unpin(pin).unwrap();
}

/// Stores into this thread's place of a page, over and over, and reads it back.
fn burst(worker: u64, page: usize, scratch: u64, first: u32) {
    let place = layout::place_address(page, STORED);
    BUSY.store(page as u32, Ordering::SeqCst);
    for count in first..first + BURST {
        let word = model::word(worker, Author::Pinner, page, STORED, count);
        calls::dev_poke(scratch, 0, &word.to_le_bytes()).unwrap();
        STORES.fetch_add(1, Ordering::SeqCst);
        for call in [Call::DevPeek, Call::DevPoke] {
            match calls::decode(calls::raw(call as u64, [scratch, 0, place, 8, 0])) {
                Ok(_) | Err(Error::Fault) => {}
                Err(other) => panic!("{call:?}: {other:?}"),
            }
        }
    }
    BUSY.store(NONE, Ordering::SeqCst);
}
