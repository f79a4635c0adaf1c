//! Starting the other CPUs, one after the other, and making all of them do
//! something together.

mod trampoline;

use alloc::vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spin::mutex::SpinMutex;

use crate::{apic, cpu, fw_cfg, gdt, idt, ipi, memory, percpu, poll, poll::Poll, sched, shootdown, time};

const STACK_BYTES: usize = 64 * 1024;
const START_TIMEOUT_US: u64 = 10_000_000;

/// Sets up the calling CPU, whichever it is: what the first one does in `main` and
/// the others after the trampoline.
pub fn init_this_cpu(index: u32) {
    percpu::init(index, apic::id());
    gdt::init();
    idt::init();
    cpu::init();
    apic::init();
    shootdown::SMP.join();
    percpu::shared(index as usize).online.store(true, Ordering::SeqCst);
}

/// The local APICs of the other CPUs.
fn others() -> impl Iterator<Item = u32> {
    let count = usize::from(fw_cfg::cpu_count().unwrap_or(1)).min(percpu::MAX_CPUS);
    let this = apic::id();
    (0..count as u32).filter(move |&id| id != this)
}

/// Starts every CPU there is.
pub fn start_others() {
    trampoline::install(memory::boot_root());
    for apic_id in others() {
        let index = percpu::online().count();
        start(apic_id, index, ap_main, || percpu::shared(index).online.load(Ordering::SeqCst));
    }
    trampoline::remove();
}

/// Starts one of the other CPUs with tables of five levels, whose last entry leads to the boot loader's root, and waits until it is `done`. Later it is
/// started again. Does nothing if there is none.
pub fn start_one_with_five_levels(entry: extern "C" fn(u32) -> !, done: impl Fn() -> bool) {
    let Some(apic_id) = others().next() else { return };
    trampoline::install(memory::boot_root());
    trampoline::begin_with_five_levels();
    start(apic_id, percpu::online().count(), entry, done);
    trampoline::remove();
}

fn start(apic_id: u32, index: usize, entry: extern "C" fn(u32) -> !, done: impl Fn() -> bool) {
    let stack = vec![0u8; STACK_BYTES].leak();
    trampoline::aim(stack.as_ptr_range().end as u64 & !0xf, entry, index as u32);
    apic::start(apic_id, trampoline::PAGE);
    let deadline = time::now() + START_TIMEOUT_US;
    poll::until(|| done() || time::now() > deadline);
    assert!(done(), "cpu with apic id {apic_id} does not start");
}

extern "C" fn ap_main(index: u32) -> ! {
    init_this_cpu(index);
    sched::run_until(|| false);
    unreachable!("the scheduler loop of this CPU has no end")
}

/// What all CPUs run together.
pub type Job = fn(usize);

static JOB: SpinMutex<Option<Job>, Poll> = SpinMutex::new(None);
static GENERATION: AtomicU64 = AtomicU64::new(0);
static UNFINISHED: AtomicUsize = AtomicUsize::new(0);

/// Runs `job` with each CPU's index on all of them at once, and waits for all. Only
/// the boot CPU calls this, outside of jobs.
pub fn on_every_cpu(job: Job) {
    let others = percpu::online().count() - 1;
    *JOB.lock() = Some(job);
    UNFINISHED.store(others, Ordering::Relaxed);
    // Release: the count; the lock orders the job. Pairs with `take_part`.
    let generation = GENERATION.fetch_add(1, Ordering::Release) + 1;
    percpu::this().broadcast_seen.set(generation);
    ipi::kick_others();
    job(percpu::index());
    // Acquire pairs with the release in `take_part`: what the jobs did is visible.
    poll::until(|| UNFINISHED.load(Ordering::Acquire) == 0);
}

/// Whether a job waits for this CPU.
pub fn is_called() -> bool {
    GENERATION.load(Ordering::Acquire) != percpu::this().broadcast_seen.get()
}

/// Runs the job that waits for this CPU, if there is one.
pub fn take_part() {
    if !is_called() {
        return;
    }
    percpu::this().broadcast_seen.set(GENERATION.load(Ordering::Acquire));
    let job = *JOB.lock();
    if let Some(job) = job {
        job(percpu::index());
    }
    UNFINISHED.fetch_sub(1, Ordering::Release);
}
