//! Flushing stale translations on other CPUs.
//!
//! One request at a time, guarded by a lock: who wants to flush writes the request,
//! marks each CPU that may hold translations of that root, interrupts it, and waits
//! until all marks are gone. A CPU answers from the interrupt (ring 3, idle) or, as
//! the kernel runs with interrupts off, from [`crate::poll::Poll`].

use core::sync::atomic::{AtomicU64, Ordering, fence};

use spin::mutex::SpinMutex;
use x86_64::{VirtAddr, instructions::tlb};

use crate::{ipi, memory::PAGE, percpu, poll, poll::Poll};

/// As a number of pages: the whole address space.
pub const ALL_PAGES: u64 = u64::MAX;
/// From here on, one flush of everything is cheaper than page by page.
const PAGEWISE_MAX: u64 = 32;

static TURN: SpinMutex<(), Poll> = SpinMutex::new(());
static ROOT: AtomicU64 = AtomicU64::new(0);
static FIRST_PAGE: AtomicU64 = AtomicU64::new(0);
static PAGES: AtomicU64 = AtomicU64::new(0);

fn flush_local(first_page: u64, pages: u64) {
    if pages > PAGEWISE_MAX {
        tlb::flush_all();
        return;
    }
    for page in first_page..first_page.saturating_add(pages) {
        tlb::flush(VirtAddr::new_truncate(page.wrapping_mul(PAGE)));
    }
}

/// Whether the CPU may hold translations of the root.
fn uses(cpu: &percpu::Shared, root: u64) -> bool {
    let used = cpu.root.load(Ordering::SeqCst);
    used == root || used == percpu::ANY_ROOT
}

/// When this returns, no CPU has a translation of these pages under `root` that is
/// older than the call. The caller has already changed the entries.
pub fn flush(root: u64, first_page: u64, pages: u64) {
    let this = percpu::index();
    if percpu::shared(this).root.load(Ordering::Relaxed) == root {
        flush_local(first_page, pages);
    }
    // Between the changed entries and the roots read below; pairs with the first
    // store of `percpu::load_root`. Either we see that the CPU uses the root, or that
    // CPU loads the root after our change and cannot read an old entry.
    fence(Ordering::SeqCst);
    if !percpu::online().any(|(index, cpu)| index != this && uses(cpu, root)) {
        return;
    }
    let _turn = TURN.lock();
    // Published to the targets by the release store of their mark.
    ROOT.store(root, Ordering::Relaxed);
    FIRST_PAGE.store(first_page, Ordering::Relaxed);
    PAGES.store(pages, Ordering::Relaxed);
    for (index, cpu) in percpu::online().filter(|&(index, _)| index != this) {
        if uses(cpu, root) {
            // Release: the request. Pairs with `answer`.
            cpu.flush_pending.store(true, Ordering::Release);
            ipi::send(index, ipi::FLUSH);
        }
    }
    for (_, cpu) in percpu::online() {
        // Acquire pairs with the release in `answer`: the flush has happened.
        poll::until(|| !cpu.flush_pending.load(Ordering::Acquire));
    }
}

/// Does what a request asks this CPU for, if there is one.
pub fn answer() {
    let cpu = percpu::shared(percpu::index());
    // Acquire pairs with the release in `flush`: the request is readable.
    if !cpu.flush_pending.load(Ordering::Acquire) {
        return;
    }
    if cpu.root.load(Ordering::Relaxed) == ROOT.load(Ordering::Relaxed) {
        flush_local(FIRST_PAGE.load(Ordering::Relaxed), PAGES.load(Ordering::Relaxed));
    }
    cpu.flush_pending.store(false, Ordering::Release);
}
