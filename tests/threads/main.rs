//! Real threads over the library's locked and lockless parts: for a second or two in every test run, and for longer
//! under ThreadSanitizer (`cargo xtask tsan`).
//!
//! Some address spaces belong to all threads, and each thread forks children off them. Memory is read and written only
//! through pins, and what is found there is checked; see `marks`. The tests add no ordering of their own between
//! threads but that of the frame source's lock, which every kernel has.

mod kernel;
#[path = "../kit/mod.rs"]
#[expect(dead_code, unused_imports, reason = "no thread plays a user; the host tests do")]
mod kit;
mod marks;
mod worker;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagepin::frame::{Layout, Split23x8, Wide};
use pagepin::pin::{PhysRun, PinnedRange, Write};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{Env, Levels, ReadSide, Rights};

use kernel::{Memory, NoGrace, THREADS, epochs, frame_words, kernel};
use worker::{Space, Worker};

/// Operations between two looks at the clock.
const BATCH: u64 = 64;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// All threads stop in the middle of what they do: one may hold a lock that the others wait for.
fn give_up(thread: usize, seed: u64, why: &(dyn std::any::Any + Send)) -> ! {
    let text = why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
    // Not captured by the test harness, which does not come to show it.
    let _ = writeln!(
        std::io::stderr(),
        "\nthread {thread} (PAGEPIN_STRESS_SEED={seed}): {}",
        text.unwrap_or("it panicked")
    );
    std::process::exit(101);
}

fn stress<L: Layout, R: ReadSide + Sync>(memory: &Memory, read_side: R) {
    let length = Duration::from_secs(setting("PAGEPIN_STRESS_SECONDS").unwrap_or(1));
    let seed = setting("PAGEPIN_STRESS_SEED").unwrap_or(1);
    let words = frame_words::<L>();
    let kernel = kernel(memory, &words, read_side);
    let first = Space::new(&kernel);
    let shared = [first.fork(), first.fork(), first];
    let (stop, operations) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        // Joined one by one: otherwise the threads drop what `std` shares with them, ordered by a fence that
        // ThreadSanitizer does not know.
        let workers: [_; THREADS] = std::array::from_fn(|index| {
            let (kernel, shared, stop, operations) = (&kernel, &shared[..], &stop, &operations);
            scope.spawn(move || {
                let run = AssertUnwindSafe(|| {
                    let mut worker = Worker::new(kernel, shared, index, seed);
                    while !stop.load(Ordering::Relaxed) {
                        (0..BATCH).for_each(|_| worker.step());
                        operations.fetch_add(BATCH, Ordering::Relaxed);
                    }
                    worker.finish();
                });
                if let Err(why) = catch_unwind(run) {
                    give_up(index, seed, &*why);
                }
            })
        });
        let start = Instant::now();
        let mut next = Duration::from_secs(5);
        while start.elapsed() < length {
            thread::sleep(Duration::from_millis(50));
            if start.elapsed() >= next {
                println!("{:4} s: {} operations", start.elapsed().as_secs(), operations.load(Ordering::Relaxed));
                next += Duration::from_secs(5);
            }
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
    });
    // All have ended: what is left is what the shared spaces map.
    let roots: Vec<_> = shared.iter().map(Space::root).collect();
    kit::audit(&kernel, &roots, &kit::Held::new());
    drop(shared);
    kit::check_balance(&kernel, (0, 0));
    let counters = kernel.statistics();
    println!(
        "{THREADS} threads, seed {seed}: {} operations, {} pages pinned, {} referenced",
        operations.into_inner(),
        counters.pins_acquired,
        counters.gets_acquired
    );
}

/// Two threads hold one page and write to it at once, `write` 8 bytes a time: copies through pins are safe code, so they must
/// not race.
fn two_holders(write: impl Fn(&Pinned<'_, '_>, [u8; 8]) + Sync) {
    let memory = Memory::new(false);
    let words = frame_words::<Wide>();
    let kernel = kernel(&memory, &words, epochs());
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    space.map(0x10000, 4096, Rights::READ | Rights::WRITE).unwrap();
    thread::scope(|scope| {
        let holders: [_; 2] = std::array::from_fn(|index| {
            let (space, write) = (&space, &write);
            scope.spawn(move || {
                kernel::run_as_cpu(index);
                let range = space.range(0x10000, 64).unwrap();
                let pin = space.pin(Write, range, [PhysRun::default(); 1]).unwrap();
                let mut seen = [0; 64];
                for value in 0..20_000u32 {
                    write(&pin, [value as u8; 8]);
                    pin.copy_to(0, &mut seen).unwrap();
                }
            })
        });
        // Joined one by one: the standard library's own way to let go of a thread is not instrumented.
        for holder in holders {
            holder.join().unwrap();
        }
    });
    drop(space);
    kit::check_balance(&kernel, (0, 0));
}

type Pinned<'s, 'k> = PinnedRange<&'s UserSpace<&'k kernel::Kernel<'k, Wide, kernel::Epochs>>, Write, [PhysRun; 1]>;

/// Tests of the library.
const TESTS: [(&str, fn()); 3] = [
    ("holders_of_one_page_copy_at_once", || two_holders(|pin, bytes| pin.copy_from(0, &bytes).unwrap())),
    ("threads_agree_with_wide_words", || stress::<Wide, _>(&Memory::new(false), epochs())),
    ("threads_agree_with_split_words", || stress::<Split23x8, _>(&Memory::new(false), epochs())),
];
/// Kernels with a mistake that ThreadSanitizer must report; they run only when named.
const TWINS: [(&str, fn()); 3] = [
    // What `byte_mut` asks for is not so: a volatile access is not an atomic one.
    ("twin_with_volatile_copies", || {
        two_holders(|pin, bytes| {
            // SAFETY: none, on purpose.
            (0..8).for_each(|at| unsafe { pin.byte_mut(at).unwrap().write(bytes[at as usize]) });
        });
    }),
    // INV-13: tables are freed although walkers may be in them.
    ("twin_without_a_grace_period", || stress::<Wide, _>(&Memory::new(false), NoGrace(epochs()))),
    // Entries are visible before what they point to.
    ("twin_with_relaxed_entries", || stress::<Wide, _>(&Memory::new(true), epochs())),
];

/// In place of the test harness, whose channels are not instrumented and would be reported themselves. Takes a part of
/// a test's name, as the harness does, and prints the same last line.
fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let chosen = TESTS.iter().filter(|(name, _)| name.contains(&wanted));
    let chosen: Vec<_> = chosen.chain(TWINS.iter().filter(|(name, _)| *name == wanted)).collect();
    println!("\nrunning {} tests", chosen.len());
    for (name, test) in &chosen {
        test();
        println!("test {name} ... ok");
    }
    let filtered = TESTS.len() + TWINS.len() - chosen.len();
    println!("\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; {filtered} filtered out\n", chosen.len());
}
