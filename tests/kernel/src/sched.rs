//! The scheduler loop, the same on every CPU: take a ready thread, run it until it
//! waits, yields or ends. There is no preemption.

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};
use core::{ptr, sync::atomic::Ordering};

use pagepin::fault::FaultError;
use pagepin_abi::{FAULT_PROBE, Status, USER_END, USER_START};
use spin::mutex::SpinMutex;
use x86_64::instructions::interrupts;

use crate::{
    apic, ipi, mm, percpu,
    poll::Poll,
    process::{self, Process, Thread},
    shootdown, smp, syscall, time,
    trap::{self, PAGE_FAULT, Trap},
};

static READY: SpinMutex<VecDeque<Box<Thread>>, Poll> = SpinMutex::new(VecDeque::new());
/// Threads that wait for a time, in microseconds since boot.
static SLEEPING: SpinMutex<Vec<(u64, Box<Thread>)>, Poll> = SpinMutex::new(Vec::new());

/// How often an idle CPU looks whether a sleeper is due.
const SLEEP_CHECK_NS: u32 = 1_000_000;

/// What becomes of a thread after its trap.
pub enum Next {
    /// Back to ring 3.
    Resume,
    /// To the end of the queue.
    Yield,
    /// Ready again at this time.
    SleepUntil(u64),
    /// Ready again when this process is over.
    WaitFor(Arc<Process>),
    /// No longer.
    End,
}

/// Queues a thread, and wakes a CPU for it.
pub fn make_ready(thread: Box<Thread>) {
    READY.lock().push_back(thread);
    // An idle CPU has raised its flag before it looked at the queue, under the lock.
    let this = percpu::index();
    let idle = percpu::online().find(|&(index, cpu)| index != this && cpu.idle.swap(false, Ordering::SeqCst));
    if let Some((index, _)) = idle {
        ipi::send(index, ipi::KICK);
    }
}

/// Makes the sleeping threads of a process ready.
pub fn rouse(process: &Process) {
    take_sleepers(|_, thread| ptr::eq(&*thread.process, process));
}

fn take_sleepers(chosen: impl Fn(u64, &Thread) -> bool) {
    let mut sleeping = SLEEPING.lock();
    let mut taken = Vec::new();
    let mut index = 0;
    while index < sleeping.len() {
        if chosen(sleeping[index].0, &sleeping[index].1) {
            taken.push(sleeping.swap_remove(index).1);
        } else {
            index += 1;
        }
    }
    drop(sleeping);
    taken.into_iter().for_each(make_ready);
}

fn sleep(thread: Box<Thread>, deadline: u64) {
    let mut sleeping = SLEEPING.lock();
    // `Process::kill` sets the flag before it takes this lock.
    if thread.process.is_dying() {
        drop(sleeping);
        make_ready(thread);
    } else {
        sleeping.push((deadline, thread));
    }
}

/// Serves until `done`, which is asked again after each interrupt and each thread.
pub fn run_until(mut done: impl FnMut() -> bool) {
    loop {
        shootdown::answer();
        smp::take_part();
        if done() {
            break;
        }
        let now = time::now();
        take_sleepers(|deadline, _| deadline <= now);
        let next = READY.lock().pop_front();
        match next {
            Some(thread) => run(thread),
            None => idle(),
        }
    }
}

fn idle() {
    let cpu = percpu::shared(percpu::index());
    cpu.idle.store(true, Ordering::SeqCst);
    // Interrupts are off from here to the halt, so one that is sent after these
    // checks ends the halt.
    if READY.lock().is_empty() && !smp::is_called() {
        if !SLEEPING.lock().is_empty() {
            apic::arm_timer(SLEEP_CHECK_NS);
        }
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
    cpu.idle.store(false, Ordering::SeqCst);
}

/// Runs a thread, and gives it to whoever has to do with it next: always after this
/// CPU has left the address space, of which it would otherwise keep a share.
fn run(mut thread: Box<Thread>) {
    mm::enter(&thread.space);
    let next = turn(&mut thread);
    mm::leave();
    match next {
        // A turn does not end with it; running once more is right in any case.
        Next::Resume | Next::Yield => make_ready(thread),
        Next::SleepUntil(deadline) => sleep(thread, deadline),
        Next::WaitFor(process) => {
            if let Some(back) = process::park(thread, &process) {
                make_ready(back);
            }
        }
        Next::End => process::retire(thread),
    }
}

/// Ring 3 and system calls, until the thread has to give up the CPU.
fn turn(thread: &mut Thread) -> Next {
    loop {
        if thread.process.is_dying() {
            return Next::End;
        }
        let next = if core::mem::take(&mut thread.retry) {
            syscall::call(thread)
        } else {
            let trap = trap::enter(&mut thread.context);
            handle(thread, trap)
        };
        match next {
            Next::Resume => {}
            other => return other,
        }
    }
}

#[inline]
fn handle(thread: &mut Thread, trap: Trap) -> Next {
    match trap {
        Trap::PageFault { address, code } => {
            if (USER_START..USER_END).contains(&address) {
                match thread.space.fault(address, code) {
                    Ok(_) => return Next::Resume,
                    // Perhaps somebody else gives some back.
                    Err(FaultError::NoMemory) => return Next::Yield,
                    // The page is on the disk, or on its way there or back.
                    Err(FaultError::NotReady(_)) => {
                        mm::store::work();
                        return Next::Yield;
                    }
                    Err(_) => {}
                }
            } else if address == FAULT_PROBE {
                // Over the two-byte instruction that reads there.
                thread.context.rip += 2;
                return Next::Resume;
            }
            thread.process.kill(Status::Killed(PAGE_FAULT));
            Next::Resume
        }
        Trap::Syscall => syscall::call(thread),
        Trap::Exception { vector } => {
            thread.process.kill(Status::Killed(vector));
            Next::Resume
        }
        Trap::Interrupt { vector } => {
            ipi::acknowledge(vector);
            if smp::is_called() { Next::Yield } else { Next::Resume }
        }
    }
}
