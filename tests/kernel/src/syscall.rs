//! System calls. Whatever a program passes, the worst it gets is an error.

use alloc::sync::{Arc, Weak};

use pagepin::uaccess::{copy_from_user, copy_to_user};
use pagepin_abi::{BlockedAccess, Call, Error, FROM_DEVICE, Program, Status, TO_DEVICE, WRITE_MAX};
use spin::mutex::SpinMutex;

use crate::{
    console,
    edu::{self, Direction},
    iommu, memory,
    mm::{self, AddressSpace, Pin, Whose},
    notes, percpu,
    poll::Poll,
    process::{self, Thread},
    sched::Next,
    time,
};

/// How often a call that waits for the device looks at it.
const DEVICE_PERIOD_US: u64 = 1000;
/// Bytes that peek and poke move at a time.
const CHUNK: usize = 256;

/// Writes from here on are interrupts, which no IOMMU translates.
const INTERRUPTS: u64 = 0xfee0_0000;

/// What the last transfer was started on.
static IN_FLIGHT: SpinMutex<Weak<Pin>, Poll> = SpinMutex::new(Weak::new());

/// Makes the call that the thread's registers describe.
pub fn call(thread: &mut Thread) -> Next {
    let context = &thread.context;
    let arguments = [context.rdi, context.rsi, context.rdx, context.r10, context.r8];
    let result = match Call::from_number(context.rax) {
        None => Err(Error::NoSuchCall),
        Some(call) => match special(call, arguments, thread) {
            Some(next) => return next,
            None => plain(call, arguments, thread),
        },
    };
    answer(thread, result)
}

fn answer(thread: &mut Thread, result: Result<u64, Error>) -> Next {
    thread.context.rax = result.unwrap_or_else(|error| (error as u64).wrapping_neg());
    Next::Resume
}

/// Calls that do more than return a value.
fn special(call: Call, [a, ..]: [u64; 5], thread: &mut Thread) -> Option<Next> {
    Some(match call {
        Call::Yield => {
            thread.context.rax = 0;
            Next::Yield
        }
        Call::Sleep => {
            thread.context.rax = 0;
            Next::SleepUntil(time::now().saturating_add(a))
        }
        Call::ExitThread => Next::End,
        Call::Exit => {
            thread.process.kill(Status::Exited(a as u32));
            Next::Resume
        }
        Call::Wait => wait(a, thread),
        Call::DevDmaWait => match edu::is_busy() {
            Ok(true) => {
                thread.retry = true;
                Next::SleepUntil(time::now() + DEVICE_PERIOD_US)
            }
            other => answer(thread, other.map(|_| 0)),
        },
        _ => return None,
    })
}

fn wait(pid: u64, thread: &mut Thread) -> Next {
    let target = u32::try_from(pid).ok().and_then(process::find);
    let Some(target) = target else {
        return answer(thread, Err(Error::NotFound));
    };
    if target.pid == thread.process.pid {
        return answer(thread, Err(Error::Invalid));
    }
    match process::reap(target.pid) {
        Some(status) => answer(thread, Ok(status.to_bits())),
        None => {
            thread.retry = true;
            Next::WaitFor(target)
        }
    }
}

fn plain(call: Call, [a, b, c, d, e]: [u64; 5], thread: &Thread) -> Result<u64, Error> {
    let space = &thread.space;
    match call {
        Call::Null => Ok(0),
        Call::Map => space.map(a, b, c).map(|()| 0),
        Call::Unmap => space.unmap(a, b),
        Call::Protect => space.protect(a, b, c).map(|()| 0),
        Call::Discard => space.discard(a, b),
        Call::Fork => {
            let mut context = thread.context.clone();
            context.rax = 0;
            process::adopt(space.fork()?.into(), context, thread.process.pid).map(u64::from)
        }
        Call::SpawnThread => process::spawn_thread(thread, a, b, c).map(|()| 0),
        Call::SpawnProcess => {
            let program = Program::from_number(a).ok_or(Error::Invalid)?;
            process::spawn(program, b, thread.process.pid).map(u64::from)
        }
        Call::Write => write(space, a, b),
        Call::Cpu => Ok(percpu::index() as u64),
        Call::Now => Ok(time::now()),
        Call::MapLarge => space.map_large(a, b).map(|()| 0),
        Call::MapDevice => space.map_device(a, b, c, d).map(|()| 0),
        Call::MapFile => space.map_file(a, b, c, d, e != 0).map(|()| 0),
        Call::MapMemory => space.map_memory(a, b, c, d, e != 0).map(|()| 0),
        Call::SyncFile => mm::store::sync().map(|()| 0),
        Call::SwapOut => space.swap_out(a, b),
        Call::TransferFile => transfer_file(thread, a, b, c).map(|()| 0),
        Call::DevPin => thread.process.add_pin(mm::pin(space, Whose::Own, a, b, c)?),
        Call::DevPinRemote => {
            let target = u32::try_from(d).ok().and_then(process::find).and_then(|process| process.space());
            thread.process.add_pin(mm::pin(&target.ok_or(Error::NotFound)?, Whose::Others, a, b, c)?)
        }
        Call::DevUnpin => unpin(thread, a).map(|()| 0),
        Call::DevDmaStart => start_transfer(thread, a, b, c, d, e).map(|()| 0),
        Call::DevAddress => thread.process.pin(a)?.device_segment(b).map(|(address, _)| address).ok_or(Error::Invalid),
        Call::DevStray => start_stray(a, b, c, d).map(|()| 0),
        Call::DevBlocked => Ok(blocked().to_bits()),
        Call::DevPeek => move_pinned(thread, a, b, c, d, false).map(|()| 0),
        Call::DevPoke => move_pinned(thread, a, b, c, d, true).map(|()| 0),
        Call::Mm => space.call(a, [b, c, d]),
        Call::Note => notes::write(a, b).map(|()| 0),
        Call::ReadNote => notes::read(a),
        // `special` has answered them.
        Call::Yield | Call::Sleep | Call::ExitThread | Call::Exit | Call::Wait | Call::DevDmaWait => {
            Err(Error::NoSuchCall)
        }
    }
}

fn write(space: &AddressSpace, from: u64, len: u64) -> Result<u64, Error> {
    let mut buffer = [0; WRITE_MAX as usize];
    let bytes = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len)).ok_or(Error::Invalid)?;
    copy_from_user(space.user_space(), bytes, from).map_err(|_| Error::Fault)?;
    for text in bytes.utf8_chunks() {
        console::print(format_args!("{}", text.valid()));
    }
    Ok(len)
}

fn direction_of(number: u64) -> Result<Direction, Error> {
    match number {
        TO_DEVICE => Ok(Direction::ToDevice),
        FROM_DEVICE => Ok(Direction::FromDevice),
        _ => Err(Error::Invalid),
    }
}

fn start_transfer(
    thread: &Thread,
    handle: u64,
    offset: u64,
    device_offset: u64,
    len: u64,
    direction: u64,
) -> Result<(), Error> {
    let direction = direction_of(direction)?;
    let pin = thread.process.pin(handle)?;
    let (address, available) = pin.device_segment(offset).ok_or(Error::Invalid)?;
    if len > available {
        return Err(Error::Invalid);
    }
    if direction == Direction::FromDevice && !pin.is_writable() {
        return Err(Error::Denied);
    }
    let mut in_flight = IN_FLIGHT.lock();
    // SAFETY: the frames are pinned, this handle cannot be given back while the device
    // is busy with it, and the end of the process waits for the device.
    unsafe { edu::start(address, device_offset, len, direction)? };
    *in_flight = Arc::downgrade(&pin);
    Ok(())
}

/// The disk reads or writes what is pinned, past the cache.
fn transfer_file(thread: &Thread, handle: u64, page: u64, direction: u64) -> Result<(), Error> {
    let (direction, pin) = (direction_of(direction)?, thread.process.pin(handle)?);
    if direction == Direction::FromDevice && !pin.is_writable() {
        return Err(Error::Denied);
    }
    // SAFETY: the frames are pinned until `pin` goes, which is after the transfer.
    unsafe { mm::store::direct(page, pin.segments(), direction) }
}

/// The device does what nobody told it to.
fn start_stray(address: u64, device_offset: u64, len: u64, direction: u64) -> Result<(), Error> {
    if !iommu::is_enabled() {
        return Err(Error::NotSupported);
    }
    let direction = direction_of(direction)?;
    if address.checked_add(len).is_none_or(|end| end > INTERRUPTS) {
        return Err(Error::Invalid);
    }
    // SAFETY: the IOMMU keeps the device off all memory that is not lent to it. With the
    // twin it does not, and what the device reaches then is a frame of a program that
    // waits for that.
    unsafe { edu::start(address, device_offset, len, direction) }
}

fn blocked() -> BlockedAccess {
    match iommu::take_fault() {
        None => BlockedAccess::None,
        Some(fault) if Some(fault.source) == edu::function().map(u16::from) => {
            BlockedAccess::OfDevice { page: fault.page, write: fault.write, reason: fault.reason }
        }
        Some(_) => BlockedAccess::OfOther,
    }
}

fn unpin(thread: &Thread, handle: u64) -> Result<(), Error> {
    let pin = thread.process.pin(handle)?;
    let in_flight = IN_FLIGHT.lock();
    if in_flight.as_ptr() == Arc::as_ptr(&pin) && edu::is_busy().unwrap_or(false) {
        return Err(Error::Busy);
    }
    // The table's reference goes first: the pin ends with the one above.
    thread.process.take_pin(handle).map(drop)
}

/// Between a user buffer and pinned frames, through the direct map: as a device would.
fn move_pinned(
    thread: &Thread,
    handle: u64,
    mut offset: u64,
    mut buffer: u64,
    mut len: u64,
    poke: bool,
) -> Result<(), Error> {
    let pin = thread.process.pin(handle)?;
    if poke && !pin.is_writable() {
        return Err(Error::Denied);
    }
    let mut chunk = [0; CHUNK];
    while len > 0 {
        let (phys, available) = pin.segment(offset).ok_or(Error::Invalid)?;
        let step = len.min(available).min(CHUNK as u64);
        if step == 0 {
            return Err(Error::Invalid);
        }
        let bytes = &mut chunk[..step as usize];
        let pinned = memory::direct(phys);
        if poke {
            copy_from_user(thread.space.user_space(), bytes, buffer).map_err(|_| Error::Fault)?;
            // SAFETY: pinned frames stay RAM of ours as long as `pin` lives; `available`
            // bytes follow `phys` in the same frame.
            unsafe { pinned.copy_from(bytes.as_ptr(), bytes.len()) };
        } else {
            // SAFETY: as above.
            unsafe { pinned.copy_to(bytes.as_mut_ptr(), bytes.len()) };
            copy_to_user(thread.space.user_space(), buffer, bytes).map_err(|_| Error::Fault)?;
        }
        offset = offset.checked_add(step).ok_or(Error::Invalid)?;
        buffer = buffer.checked_add(step).ok_or(Error::Invalid)?;
        len -= step;
    }
    Ok(())
}
