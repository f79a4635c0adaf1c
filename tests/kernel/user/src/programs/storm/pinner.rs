//! The second thread of a worker. It pins random pages of the same memory, looks at them as
//! a device does, sometimes writes its own place, and lets go. In between it stores and loads
//! through the pages themselves, by way of the kernel: it cannot know which of them are
//! mapped, and gets an error where the program would be killed.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pagepin_abi::{Call, Error, PIN_LONGTERM, PIN_PLAIN, PIN_READ, PIN_WRITE, PROT_WRITE, StormRun};

use super::{
    model::{self, Author, PAGE, PAGES, PINNED, STORED, WORDS},
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
/// The page that the worker is about to change.
static LURE: AtomicU32 = AtomicU32::new(0);
/// The run's argument, for the thread takes only one.
static RUN: AtomicU64 = AtomicU64::new(0);

pub fn start(run: StormRun, worker: u64) {
    RUN.store(run.to_bits(), Ordering::SeqCst);
    calls::map(STACK, STACK_BYTES, PROT_WRITE).unwrap();
    calls::map(SCRATCH, PAGE, PROT_WRITE).unwrap();
    calls::spawn_thread(work, STACK + STACK_BYTES, worker).unwrap();
}

/// Draws the stores to a page that the worker is about to change, and gives them time.
pub fn lure_to(page: usize) {
    LURE.store(page as u32, Ordering::SeqCst);
    (0..8).for_each(|_| _ = calls::null());
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
        if random.one_in(2) {
            turn(run, worker, &mut random, count);
        } else {
            burst(worker, &mut random, scratch, count);
        }
        calls::yield_now();
    }
    calls::dev_unpin(scratch).unwrap();
    STOPPED.store(1, Ordering::SeqCst);
    calls::exit_thread()
}

fn turn(run: StormRun, worker: u64, random: &mut Random, count: u32) {
    let page = random.below(PAGES as u64) as usize;
    let pages = 1 + random.below(3);
    let writes = random.one_in(2);
    let mut flags = if writes { PIN_WRITE } else { PIN_READ };
    if run.twin {
        flags |= PIN_PLAIN;
    } else if random.one_in(4) {
        flags |= PIN_LONGTERM;
    }
    let pin = match calls::dev_pin(model::address(page), pages * PAGE, flags) {
        Ok(pin) => pin,
        // A hole, no such right, or changing all the time.
        Err(Error::Fault | Error::Denied | Error::Busy) => return,
        Err(other) => panic!("pin: {other:?}"),
    };
    if random.one_in(2) {
        calls::yield_now();
    }
    let mut words = [0; WORDS];
    peek(pin, 0, &mut words);
    let implausible = |index: &usize| !model::is_plausible(words[*index], worker, page, *index);
    if let Some(index) = (0..WORDS).find(implausible) {
        WRONG.fetch_add(1, Ordering::SeqCst);
        if !run.twin {
            let found = words[index];
            println!("storm: seed {}, worker {worker}, page {page}: pin shows {found:#x} in word {index}", run.seed);
        }
    }
    if writes {
        let word = model::word(worker, Author::Pinner, page, PINNED, count);
        calls::dev_poke(pin, model::offset(PINNED), &word.to_le_bytes()).unwrap();
    }
    calls::dev_unpin(pin).unwrap();
}

/// Stores into this thread's place of a page, over and over, and reads it back.
fn burst(worker: u64, random: &mut Random, scratch: u64, first: u32) {
    let lured = LURE.load(Ordering::SeqCst) as usize;
    let page = if random.one_in(4) { random.below(PAGES as u64) as usize } else { lured };
    let place = model::address(page) + model::offset(STORED);
    for count in first..first + BURST {
        let word = model::word(worker, Author::Pinner, page, STORED, count);
        calls::dev_poke(scratch, 0, &word.to_le_bytes()).unwrap();
        for call in [Call::DevPeek, Call::DevPoke] {
            match calls::decode(calls::raw(call as u64, [scratch, 0, place, 8, 0])) {
                Ok(_) | Err(Error::Fault) => {}
                Err(other) => panic!("{call:?}: {other:?}"),
            }
        }
    }
}

/// Reads a page through a pin.
pub fn peek(pin: u64, offset: u64, words: &mut [u64; WORDS]) {
    // SAFETY: any bytes are words, and nothing is left over.
    let (_, bytes, _) = unsafe { words.align_to_mut::<u8>() };
    calls::dev_peek(pin, offset, bytes).unwrap();
}
