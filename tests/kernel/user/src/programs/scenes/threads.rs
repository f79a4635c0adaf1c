//! Three threads of a process, each on a CPU of its own, and one page that fork has
//! shared (golang/go issue 34988).
//!
//! A writes to the page, which has to be copied. B writes 1 into it and then raises a flag
//! in another page. C waits for the flag without any call, so that its CPU keeps the
//! translations it has, and then reads the page: it must find the 1.

use core::sync::atomic::{AtomicU64, Ordering};

use pagepin_abi::{MmCall, PROT_WRITE, TWIN_PUBLISH_FIRST};

use super::stage::{PAGE, Stage, THE_PAGE, fill_page, say};
use crate::calls;

const ROUNDS: u64 = 10;
/// How long a flush waits before it begins: makes the time between a changed entry and
/// the last CPU's acknowledgement long enough to look into it.
const DELAY_US: u64 = 30_000;
/// When B writes: A's write is under way, the flush has not begun.
const HEAD_START_US: u64 = 5_000;

/// Far from the page, so that no TLB puts them in one place.
const BOARD: u64 = THE_PAGE + 5 * PAGE;
const STACKS: u64 = THE_PAGE + 16 * PAGE;
const STACK_BYTES: u64 = 4 * PAGE;
/// Slot and note that the child waits for.
const CHILD: u64 = 0;

/// What the threads share beside the page. Mapped after the fork, so that no write to it
/// is ever a fault.
#[repr(C)]
struct Board {
    /// How many of B and C have read the page.
    ready: AtomicU64,
    /// A is about to write.
    begin: AtomicU64,
    /// B has written.
    flag: AtomicU64,
    /// What C has found, and then once more.
    found: [AtomicU64; 2],
    /// How many of B and C are done.
    done: AtomicU64,
}

fn board() -> &'static Board {
    // SAFETY: mapped, aligned, and atomics may hold any value; unmapped only when the
    // threads that use it are gone.
    unsafe { &*(BOARD as *const Board) }
}

/// Words of the page: B's, and the one that A writes.
fn word(index: u64) -> &'static AtomicU64 {
    // SAFETY: as for the board.
    unsafe { &*((THE_PAGE + 8 * index) as *const AtomicU64) }
}

const OF_B: u64 = 0;
const OF_A: u64 = 64;

extern "C" fn thread_b(_: u64) -> ! {
    // The translation is in this CPU's TLB now.
    word(OF_B).load(Ordering::Relaxed);
    let board = board();
    board.ready.fetch_add(1, Ordering::SeqCst);
    while board.begin.load(Ordering::SeqCst) == 0 {
        core::hint::spin_loop();
    }
    let start = calls::now();
    while calls::now() < start + HEAD_START_US {}
    word(OF_B).store(1, Ordering::SeqCst);
    board.flag.store(1, Ordering::SeqCst);
    board.done.fetch_add(1, Ordering::SeqCst);
    calls::exit_thread()
}

extern "C" fn thread_c(_: u64) -> ! {
    word(OF_B).load(Ordering::Relaxed);
    let board = board();
    board.ready.fetch_add(1, Ordering::SeqCst);
    while board.flag.load(Ordering::SeqCst) == 0 {
        core::hint::spin_loop();
    }
    board.found[0].store(word(OF_B).load(Ordering::SeqCst), Ordering::Relaxed);
    board.found[1].store(word(OF_B).load(Ordering::SeqCst), Ordering::Relaxed);
    board.done.fetch_add(1, Ordering::SeqCst);
    calls::exit_thread()
}

pub fn three_threads(stage: &Stage) -> bool {
    say!(stage, "A page is shared by fork. Threads B and C have read it: their CPUs remember the frame.");
    say!(stage, "A writes to the page, which has to be copied. B writes 1 to it and raises a flag.");
    say!(stage, "C has waited for the flag, and reads the page. {ROUNDS} rounds:");
    if stage.twin {
        calls::mm(MmCall::Twin as u64, TWIN_PUBLISH_FIRST, 0, 0).unwrap();
    }
    let mut wrong = 0;
    for number in 1..=ROUNDS {
        let found = round(stage, number);
        if found != [1, 1] {
            wrong += 1;
        }
    }
    let verdict = if wrong == 0 { "as it should be" } else { "WRONG" };
    if stage.verbose || (wrong != 0 && !stage.twin) {
        crate::println!("    what C finds after B has raised the flag: {verdict}");
        crate::println!("      found    0 in {wrong} rounds, 1 in {} rounds", ROUNDS - wrong);
        crate::println!("      expected 1 in {ROUNDS} rounds");
    }
    wrong == 0
}

fn round(stage: &Stage, number: u64) -> [u64; 2] {
    let show = number == 1;
    fill_page(THE_PAGE, &[], 0);
    let child = calls::fork().unwrap();
    if child == 0 {
        stage.await_note(CHILD, number);
        calls::exit(u32::from(word(OF_B).load(Ordering::Relaxed) != 0));
    }
    fill_page(BOARD, &[], 0);
    // New stacks in each round: nobody knows when the last ones are not used any more.
    let stacks = STACKS + 2 * number * STACK_BYTES;
    calls::map(stacks, 2 * STACK_BYTES, PROT_WRITE).unwrap();
    calls::spawn_thread(thread_b, stacks + STACK_BYTES, 0).unwrap();
    calls::spawn_thread(thread_c, stacks + 2 * STACK_BYTES, 0).unwrap();
    let board = board();
    while board.ready.load(Ordering::SeqCst) < 2 {
        calls::yield_now();
    }
    if show {
        stage.picture("before");
    }
    calls::mm(MmCall::DelayFlushes as u64, DELAY_US, 0, 0).unwrap();
    board.begin.store(1, Ordering::SeqCst);
    word(OF_A).store(1, Ordering::SeqCst);
    calls::mm(MmCall::DelayFlushes as u64, 0, 0, 0).unwrap();
    while board.done.load(Ordering::SeqCst) < 2 {
        calls::yield_now();
    }
    if show {
        stage.picture("after");
    }
    calls::note(CHILD, number).unwrap();
    assert!(stage.child_is_content(child), "the child's page was written");
    let found = [0, 1].map(|index: usize| board.found[index].load(Ordering::Relaxed));
    for addr in [THE_PAGE, BOARD] {
        calls::unmap(addr, PAGE).unwrap();
    }
    found
}
