//! Threads, processes, time.

use core::sync::atomic::{AtomicU64, Ordering};

use pagepin_abi::{PROT_WRITE, Program, Status};

use crate::{calls, println};

const STACKS: u64 = 0x1000_0000;
const STACK_BYTES: u64 = 32 * 1024;
const THREADS: u64 = 3;
/// Longer than any meeting takes.
const PATIENCE_US: u64 = 20_000_000;

static ARRIVED: AtomicU64 = AtomicU64::new(0);
static FINISHED: AtomicU64 = AtomicU64::new(0);
static CPUS: AtomicU64 = AtomicU64::new(0);

fn start(entry: extern "C" fn(u64) -> !, count: u64) {
    calls::map(STACKS, count * STACK_BYTES, PROT_WRITE).unwrap();
    for index in 0..count {
        calls::spawn_thread(entry, STACKS + (index + 1) * STACK_BYTES, index).unwrap();
    }
}

/// Meets the others without any call that would let them run on this CPU, so that
/// it succeeds only if all run at once.
extern "C" fn meet(_index: u64) -> ! {
    CPUS.fetch_or(1 << calls::cpu(), Ordering::Relaxed);
    ARRIVED.fetch_add(1, Ordering::SeqCst);
    while ARRIVED.load(Ordering::SeqCst) < THREADS {
        core::hint::spin_loop();
    }
    FINISHED.fetch_add(1, Ordering::SeqCst);
    calls::exit_thread()
}

pub fn at_the_same_time() {
    start(meet, THREADS);
    let end = calls::now() + PATIENCE_US;
    while FINISHED.load(Ordering::SeqCst) < THREADS {
        assert!(calls::now() < end, "{} threads arrived", ARRIVED.load(Ordering::SeqCst));
        calls::yield_now();
    }
    let cpus = CPUS.load(Ordering::Relaxed);
    println!("{THREADS} threads met, running on cpus {cpus:#b}");
    assert!(cpus.count_ones() as u64 == THREADS);
}

pub fn children() {
    let mut pids = [0; 6];
    for (index, pid) in pids.iter_mut().enumerate() {
        *pid = calls::spawn(Program::Hello, index as u64).unwrap();
    }
    for pid in pids {
        assert_eq!(calls::wait(pid), Ok(Status::Exited(42)));
    }
    // Nobody waits for these: they must not outlive this process.
    for _ in 0..3 {
        if calls::fork().unwrap() == 0 {
            let _ = calls::sleep(u64::MAX);
        }
    }
    calls::spawn(Program::Hello, 100).unwrap();
    let dies = calls::spawn(Program::PageFault, 0).unwrap();
    assert_eq!(calls::wait(dies), Ok(Status::Killed(14)));
}

extern "C" fn spin(_index: u64) -> ! {
    ARRIVED.fetch_add(1, Ordering::SeqCst);
    loop {
        calls::yield_now();
    }
}

/// One waits for a process that does not end by itself, one sleeps, others run; then
/// one faults.
pub fn one_dies() {
    extern "C" fn sleeps(_index: u64) -> ! {
        ARRIVED.fetch_add(1, Ordering::SeqCst);
        let _ = calls::sleep(u64::MAX);
        unreachable!()
    }
    start(spin, THREADS);
    let extra = STACKS + 16 * STACK_BYTES;
    calls::map(extra, STACK_BYTES, PROT_WRITE).unwrap();
    calls::spawn_thread(sleeps, extra + STACK_BYTES, 0).unwrap();
    while ARRIVED.load(Ordering::SeqCst) < THREADS + 1 {
        calls::yield_now();
    }
    crate::programs::basics::page_fault();
}

pub fn sleep() {
    let before = calls::now();
    calls::sleep(20_000).unwrap();
    let elapsed = calls::now() - before;
    assert!(elapsed >= 20_000, "{elapsed} us");
}
