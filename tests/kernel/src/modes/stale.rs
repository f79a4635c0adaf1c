//! Whether a flush reaches every CPU: all of them read through one page of the boot
//! root while the first one keeps changing what is behind it. Whoever has been told of
//! a change and still reads what was there before has a stale translation.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::RelaxStrategy;

use crate::{
    memory::{self, PAGE},
    mm,
    modes::Outcome,
    percpu, poll, shootdown, smp,
};

const ADDRESS: u64 = 0x5000_0000;
const ROUNDS: u64 = 300;
const PRESENT_WRITABLE: u64 = 0b11;

static ANNOUNCED: AtomicU64 = AtomicU64::new(0);
static READING: AtomicU64 = AtomicU64::new(0);
static STALE: AtomicU64 = AtomicU64::new(0);
static LEAF_TABLE: AtomicU64 = AtomicU64::new(0);
static FRAMES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Makes round `round` visible at the address.
fn remap(round: u64) {
    let frame = FRAMES[(round % 2) as usize].load(Ordering::Relaxed);
    // SAFETY: a frame of ours in the direct map; others read it through a volatile load.
    unsafe { memory::direct(frame).cast::<u64>().write_volatile(round) };
    let index = ADDRESS / PAGE % 512;
    memory::write_entry(LEAF_TABLE.load(Ordering::Relaxed), index, frame | PRESENT_WRITABLE);
}

fn read() -> u64 {
    // SAFETY: mapped in the boot root, which every CPU uses outside of a thread's turn.
    unsafe { (ADDRESS as *const u64).read_volatile() }
}

fn change() {
    poll::until(|| READING.load(Ordering::Relaxed) >= percpu::online().count() as u64 - 1);
    for round in 1..=ROUNDS {
        remap(round);
        shootdown::flush(memory::boot_root(), ADDRESS / PAGE, 1);
        ANNOUNCED.store(round, Ordering::SeqCst);
        // Lets the others fill their TLBs before the next change. After the last one they end.
        let until = READING.load(Ordering::Relaxed) + 2;
        if round < ROUNDS && percpu::online().count() > 1 {
            poll::until(|| READING.load(Ordering::Relaxed) >= until);
        }
    }
}

fn watch() {
    READING.fetch_add(1, Ordering::Relaxed);
    loop {
        let announced = ANNOUNCED.load(Ordering::SeqCst);
        if read() < announced {
            STALE.fetch_add(1, Ordering::Relaxed);
        }
        READING.fetch_add(1, Ordering::Relaxed);
        if announced == ROUNDS {
            break;
        }
        // Interrupts are off, and the one who flushes waits for this.
        poll::Poll::relax();
    }
}

pub fn no_cpu_reads_through_a_flushed_translation() -> Outcome {
    let out_of_memory = |_| alloc::string::String::from("out of memory");
    let mut table = memory::boot_root();
    for shift in [39, 30, 21] {
        let next = mm::table().map_err(out_of_memory)?;
        memory::write_entry(table, ADDRESS >> shift & 511, next | PRESENT_WRITABLE);
        table = next;
    }
    LEAF_TABLE.store(table, Ordering::Relaxed);
    for frame in &FRAMES {
        frame.store(mm::table().map_err(out_of_memory)?, Ordering::Relaxed);
    }
    remap(0);
    smp::on_every_cpu(|cpu| if cpu == 0 { change() } else { watch() });
    memory::write_entry(memory::boot_root(), ADDRESS >> 39 & 511, 0);
    shootdown::flush(memory::boot_root(), 0, shootdown::ALL_PAGES);
    match STALE.load(Ordering::Relaxed) {
        0 => Ok(()),
        stale => Err(alloc::format!("{stale} stale reads")),
    }
}
