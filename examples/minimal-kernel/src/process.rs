//! Processes and their system calls. The SMP kernel has the same file: what differs is in `memory.rs`.

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use machine::program::{self, call};
use machine::trap::{self, Context, Trap};
use machine::{edu, println};
use pagepin::uaccess::{copy_from_user, copy_to_user};
use pagepin::{Access, Rights};
use spin::mutex::SpinMutex;

use crate::Relax;
use crate::memory::{self, CURRENT, Lent, Space};

struct Process {
    number: u64,
    context: Context,
    space: Arc<Space>,
    /// What the device is using.
    lent: Option<Lent>,
}

/// What becomes of a process after its turn.
enum Next {
    GoesOn,
    Waits,
    Ends(u64),
}

static READY: SpinMutex<VecDeque<Box<Process>>, Relax> = SpinMutex::new(VecDeque::new());
/// Number and status of those that have ended.
static ENDED: SpinMutex<Vec<(u64, u64)>, Relax> = SpinMutex::new(Vec::new());
static NUMBERS: AtomicU64 = AtomicU64::new(1);
/// The device has one transfer at a time.
static DEVICE: SpinMutex<(), Relax> = SpinMutex::new(());

const PAGE: u64 = 4096;
const ERROR: u64 = u64::MAX;

fn new(context: Context, space: Space) -> u64 {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    READY.lock().push_back(Box::new(Process { number, context, space: Arc::new(space), lent: None }));
    number
}

/// Starts the program, and gives its number.
pub fn start() -> u64 {
    let space = memory::new_space().expect("memory for a root");
    space.map(program::START, PAGE, Rights::READ | Rights::WRITE).expect("a free place");
    space.map(program::STACK_END - PAGE, PAGE, Rights::READ | Rights::WRITE).expect("a free place");
    let space = Arc::new(space);
    CURRENT.enter(space.clone()).expect("it has a kernel half");
    copy_to_user(&*space, program::START, program::bytes()).expect("it was just mapped");
    space.protect(program::START, PAGE, Rights::READ | Rights::EXECUTE).expect("it was just mapped");
    CURRENT.leave();
    let space = Arc::into_inner(space).expect("the CPU has left it");
    new(Context::new(program::START, program::STACK_END), space)
}

/// With which status the process has ended.
pub fn status(number: u64) -> Option<u64> {
    ENDED.lock().iter().find(|ended| ended.0 == number).map(|ended| ended.1)
}

/// Runs processes until that one has ended.
pub fn run_until_end_of(number: u64) -> u64 {
    loop {
        if let Some(status) = status(number) {
            return status;
        }
        run_one();
    }
}

/// Gives a process that is ready a turn.
pub fn run_one() {
    let Some(mut process) = READY.lock().pop_front() else {
        return <Relax as spin::RelaxStrategy>::relax();
    };
    CURRENT.enter(process.space.clone()).expect("it has a kernel half");
    let next = turn(&mut process);
    CURRENT.leave();
    match next {
        Next::GoesOn | Next::Waits => READY.lock().push_back(process),
        Next::Ends(status) => {
            let number = process.number;
            while process.lent.is_some() && edu::is_busy() {
                <Relax as spin::RelaxStrategy>::relax();
            }
            drop(process);
            ENDED.lock().push((number, status));
        }
    }
}

fn turn(process: &mut Process) -> Next {
    loop {
        match trap::enter(&mut process.context) {
            Trap::PageFault { address, code } => {
                if let Err(error) = memory::page_fault(address, code, process.context.rip) {
                    println!("process {} at {address:#x}: {error}", process.number);
                    return Next::Ends(ERROR);
                }
            }
            Trap::SystemCall => match system_call(process) {
                Next::GoesOn => {}
                next => return next,
            },
            Trap::Interrupt => return Next::GoesOn,
            Trap::Exception(vector) => {
                println!("process {}: exception {vector}", process.number);
                return Next::Ends(ERROR);
            }
        }
    }
}

fn system_call(process: &mut Process) -> Next {
    let Context { rax: number, rdi: first, rsi: second, rdx: third, .. } = process.context;
    let result = match number {
        call::EXIT => return Next::Ends(first),
        call::PRINT => print(&process.space, first, second),
        call::MAP => process.space.map(first, second, Rights::READ | Rights::WRITE).map(|()| 0).ok(),
        call::FORK => fork(process),
        call::WAIT => match status(first) {
            Some(status) => Some(status),
            None => return waits(process),
        },
        call::TRANSFER => match transfer(process, first, second, third) {
            Some(false) => return waits(process),
            started => started.map(|_| 0),
        },
        call::FINISH if process.lent.is_some() && edu::is_busy() => return waits(process),
        call::FINISH => {
            // The device has stopped: the pages are the process's alone again, and marked dirty.
            process.lent = None;
            Some(0)
        }
        _ => None,
    };
    process.context.rax = result.unwrap_or(ERROR);
    Next::GoesOn
}

/// The call is made again, at the end of the queue.
fn waits(process: &mut Process) -> Next {
    process.context.again();
    Next::Waits
}

fn print(space: &Space, text: u64, length: u64) -> Option<u64> {
    let mut buffer = [0; 256];
    let bytes = buffer.get_mut(..usize::try_from(length).ok()?)?;
    copy_from_user(space, bytes, text).ok()?;
    println!("{}", core::str::from_utf8(bytes).ok()?);
    Some(0)
}

fn fork(process: &Process) -> Option<u64> {
    let mut context = process.context.clone();
    context.rax = 0;
    Some(new(context, process.space.fork().ok()?))
}

/// Whether the device has begun; nothing: it cannot.
fn transfer(process: &mut Process, start: u64, length: u64, into_memory: u64) -> Option<bool> {
    let _one_at_a_time = DEVICE.lock();
    if process.lent.is_some() {
        return None;
    }
    if edu::is_busy() {
        return Some(false);
    }
    let access = if into_memory == 0 { Access::Read } else { Access::Write };
    let lent = memory::lend(&process.space, start, length, access).ok()?;
    let mut runs = lent.byte_runs();
    // The device takes one run at a time.
    let (Some(run), None) = (runs.next(), runs.next()) else { return None };
    drop(runs);
    // SAFETY: the bytes are pinned, for this access, until the device is done: `FINISH` and the end of the process wait for it.
    let started = unsafe { edu::start(run.address, run.length, access == Access::Write) };
    process.lent = started.then_some(lent);
    started.then_some(true)
}
