//! Processes and threads, and how they end.
//!
//! A process ends when its last thread has retired. Threads hold the address space;
//! the process does not, so that the memory is free again before the end is announced.
//! Children die with their parent, so that nothing is left of a test that failed.

use alloc::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pagepin_abi::{Error, Program, STACK_BYTES, STACK_TOP, Status, USER_END};
use spin::mutex::SpinMutex;

use crate::{
    edu, ipi, loader,
    mm::{self, AddressSpace, Pin},
    poll::Poll,
    sched,
    trap::UserContext,
};

const PROCESSES_MAX: usize = 64;
const THREADS_MAX: u32 = 256;
const PINS_MAX: usize = 64;

pub struct Process {
    pub pid: u32,
    /// Who may wait for it; 0 is the kernel.
    parent: u32,
    /// Threads that may still run.
    threads: AtomicU32,
    /// Threads that may still hold the address space.
    holders: AtomicU32,
    dying: AtomicBool,
    /// Its threads hold it.
    space: Weak<AddressSpace>,
    end: SpinMutex<End, Poll>,
    /// What its devices may use, by handle.
    pins: SpinMutex<Vec<Option<Arc<Pin>>>, Poll>,
}

#[derive(Default)]
struct End {
    /// Set by the first exit or kill.
    status: Option<Status>,
    /// The last thread is gone.
    over: bool,
    #[expect(clippy::vec_box, reason = "threads move from queue to queue as boxes")]
    waiters: Vec<Box<Thread>>,
}

pub struct Thread {
    pub context: UserContext,
    pub process: Arc<Process>,
    pub space: Arc<AddressSpace>,
    /// The system call at which the thread stopped is to be made again.
    pub retry: bool,
}

static PROCESSES: SpinMutex<BTreeMap<u32, Arc<Process>>, Poll> = SpinMutex::new(BTreeMap::new());
static NEXT_PID: AtomicU32 = AtomicU32::new(1);
static THREADS: AtomicU32 = AtomicU32::new(0);

fn count_thread() -> Result<(), Error> {
    THREADS
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < THREADS_MAX).then_some(n + 1))
        .map(|_| ())
        .map_err(|_| Error::Limit)
}

/// Starts a program in a new process.
pub fn spawn(program: Program, argument: u64, parent: u32) -> Result<u32, Error> {
    let space = AddressSpace::new()?;
    let entry = loader::load(&space)?;
    space.map(STACK_TOP - STACK_BYTES, STACK_BYTES, pagepin_abi::PROT_WRITE)?;
    let mut context = UserContext::new(entry, STACK_TOP);
    context.rdi = program as u64;
    context.rsi = argument;
    adopt(Arc::new(space), context, parent)
}

/// Makes a process of an address space and the registers of its first thread.
pub fn adopt(space: Arc<AddressSpace>, context: UserContext, parent: u32) -> Result<u32, Error> {
    let process = {
        let mut processes = PROCESSES.lock();
        if processes.len() >= PROCESSES_MAX {
            return Err(Error::Limit);
        }
        count_thread()?;
        let pid = NEXT_PID.fetch_add(1, Ordering::Relaxed);
        let process = Arc::new(Process {
            pid,
            parent,
            threads: AtomicU32::new(1),
            holders: AtomicU32::new(1),
            dying: AtomicBool::new(false),
            space: Arc::downgrade(&space),
            end: SpinMutex::new(End::default()),
            pins: SpinMutex::new(Vec::new()),
        });
        processes.insert(pid, process.clone());
        process
    };
    let pid = process.pid;
    mm::register(&space);
    sched::make_ready(Box::new(Thread { context, process, space, retry: false }));
    Ok(pid)
}

/// Whether no process is left, not even one that nobody has waited for.
pub fn is_quiet() -> bool {
    PROCESSES.lock().is_empty()
}

pub fn find(pid: u32) -> Option<Arc<Process>> {
    PROCESSES.lock().get(&pid).cloned()
}

/// The address spaces of all processes.
pub fn spaces() -> Vec<Arc<AddressSpace>> {
    PROCESSES.lock().values().filter_map(|process| process.space()).collect()
}

/// How the process ended, if it has; it is forgotten then.
pub fn reap(pid: u32) -> Option<Status> {
    let process = find(pid)?;
    let status = {
        let end = process.end.lock();
        if !end.over {
            return None;
        }
        end.status
    };
    PROCESSES.lock().remove(&pid);
    status
}

impl Process {
    pub fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Acquire)
    }

    /// Its memory, until its last thread is gone.
    pub fn space(&self) -> Option<Arc<AddressSpace>> {
        self.space.upgrade()
    }

    /// Ends the process: running threads notice at their next trap, waiting ones are
    /// made ready to notice.
    pub fn kill(&self, status: Status) {
        self.end.lock().status.get_or_insert(status);
        // Release pairs with `is_dying`. Who parks a thread checks it once more under
        // the lock that the searches below take.
        self.dying.store(true, Ordering::Release);
        let processes: Vec<_> = PROCESSES.lock().values().cloned().collect();
        for process in processes {
            let mut end = process.end.lock();
            let mut found = Vec::new();
            let waiters = core::mem::take(&mut end.waiters);
            for thread in waiters {
                if core::ptr::eq(&*thread.process, self) {
                    found.push(thread);
                } else {
                    end.waiters.push(thread);
                }
            }
            drop(end);
            found.into_iter().for_each(sched::make_ready);
        }
        sched::rouse(self);
        ipi::kick_others();
    }

    /// A handle for the pin.
    pub fn add_pin(&self, pin: Pin) -> Result<u64, Error> {
        let mut pins = self.pins.lock();
        if let Some(free) = pins.iter().position(Option::is_none) {
            pins[free] = Some(Arc::new(pin));
            return Ok(free as u64);
        }
        if pins.len() >= PINS_MAX {
            return Err(Error::Limit);
        }
        pins.push(Some(Arc::new(pin)));
        Ok(pins.len() as u64 - 1)
    }

    pub fn pin(&self, handle: u64) -> Result<Arc<Pin>, Error> {
        let pins = self.pins.lock();
        let slot = usize::try_from(handle).ok().and_then(|handle| pins.get(handle));
        slot.and_then(Option::clone).ok_or(Error::NotFound)
    }

    pub fn take_pin(&self, handle: u64) -> Result<Arc<Pin>, Error> {
        let mut pins = self.pins.lock();
        let slot = usize::try_from(handle).ok().and_then(|handle| pins.get_mut(handle));
        slot.and_then(Option::take).ok_or(Error::NotFound)
    }
}

/// A further thread of the caller's process.
pub fn spawn_thread(parent: &Thread, entry: u64, stack: u64, argument: u64) -> Result<(), Error> {
    if entry >= USER_END || stack > USER_END {
        return Err(Error::Invalid);
    }
    count_thread()?;
    // The caller is one of both, so neither can be zero now.
    parent.process.threads.fetch_add(1, Ordering::Relaxed);
    parent.process.holders.fetch_add(1, Ordering::Relaxed);
    let mut context = UserContext::new(entry, stack);
    context.rdi = argument;
    sched::make_ready(Box::new(Thread {
        context,
        process: parent.process.clone(),
        space: parent.space.clone(),
        retry: false,
    }));
    Ok(())
}

/// Puts the thread to the waiters of a process, or gives it back when there is
/// nothing to wait for.
pub fn park(thread: Box<Thread>, on: &Process) -> Option<Box<Thread>> {
    let mut end = on.end.lock();
    if end.over || thread.process.is_dying() {
        return Some(thread);
    }
    end.waiters.push(thread);
    None
}

/// The end of a thread; of the process too, when it was the last one.
pub fn retire(thread: Box<Thread>) {
    let Thread { process, space, .. } = *thread;
    // AcqRel: the last one sees the pins of the others.
    if process.threads.fetch_sub(1, Ordering::AcqRel) == 1 {
        let pins = core::mem::take(&mut *process.pins.lock());
        if pins.iter().any(Option::is_some) {
            // The device may be using one of them.
            edu::wait_idle();
        }
        // Before the space they are in.
        drop(pins);
    }
    drop(space);
    THREADS.fetch_sub(1, Ordering::Relaxed);
    // AcqRel: when the last one is here, the others have let go of the space.
    if process.holders.fetch_sub(1, Ordering::AcqRel) == 1 {
        announce(&process);
    }
}

/// The end of a process, for those who wait for it and those it leaves behind.
fn announce(process: &Process) {
    let waiters = {
        let mut end = process.end.lock();
        end.status.get_or_insert(Status::Exited(0));
        end.over = true;
        core::mem::take(&mut end.waiters)
    };
    let orphans: Vec<_> = {
        let mut processes = PROCESSES.lock();
        // A parent that has itself ended will not wait.
        let abandoned =
            process.parent != 0 && processes.get(&process.parent).is_none_or(|parent| parent.end.lock().over);
        if abandoned {
            processes.remove(&process.pid);
        }
        processes.retain(|_, child| child.parent != process.pid || !child.end.lock().over);
        let children = processes.values().filter(|child| child.parent == process.pid);
        children.cloned().collect()
    };
    for orphan in orphans {
        orphan.kill(Status::Exited(0));
    }
    waiters.into_iter().for_each(sched::make_ready);
    ipi::kick_others();
}
