//! System calls, one function each. All of them are safe to *make*: what could break
//! this program (unmapping its own code, say) is the caller's own test.

use core::arch::asm;

use pagepin_abi::{BlockedAccess, Call, Error, Program, Status};

pub type Result<T = ()> = core::result::Result<T, Error>;

/// The raw call by number, through `syscall`.
pub fn raw(number: u64, [a, b, c, d, e]: [u64; 5]) -> u64 {
    let result;
    // SAFETY: the kernel changes no register but these and memory only where the
    // arguments say so, which the compiler must assume as memory is not excluded.
    unsafe {
        asm!("syscall", inlateout("rax") number => result,
             in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// The raw call without arguments, through `int 0x80`.
pub fn raw_interrupt(number: u64) -> u64 {
    let result;
    // SAFETY: as above.
    unsafe { asm!("int 0x80", inlateout("rax") number => result, options(nostack)) };
    result
}

/// Splits a result register into value and error.
pub fn decode(result: u64) -> Result<u64> {
    match Error::from_number(result.wrapping_neg()) {
        Some(error) => Err(error),
        None => Ok(result),
    }
}

fn call(call: Call, arguments: [u64; 5]) -> Result<u64> {
    decode(raw(call as u64, arguments))
}

pub fn null() -> Result {
    call(Call::Null, [0; 5]).map(drop)
}

pub fn map(addr: u64, len: u64, prot: u64) -> Result {
    call(Call::Map, [addr, len, prot, 0, 0]).map(drop)
}

/// One large leaf.
pub fn map_large(addr: u64, prot: u64) -> Result {
    call(Call::MapLarge, [addr, prot, 0, 0, 0]).map(drop)
}

/// The device's memory, from this page of it on.
pub fn map_device(addr: u64, len: u64, prot: u64, page: u64) -> Result {
    call(Call::MapDevice, [addr, len, prot, page, 0]).map(drop)
}

/// Pages of the file, from this one on, shared or not.
pub fn map_file(addr: u64, len: u64, prot: u64, page: u64, shared: bool) -> Result {
    call(Call::MapFile, [addr, len, prot, page, u64::from(shared)]).map(drop)
}

/// The memory that all processes can show, from this page of it on, or a private copy of it.
pub fn map_memory(addr: u64, len: u64, prot: u64, page: u64, shared: bool) -> Result {
    call(Call::MapMemory, [addr, len, prot, page, u64::from(shared)]).map(drop)
}

/// What was written of the file is on the disk when this returns.
pub fn sync_file() -> Result {
    call(Call::SyncFile, [0; 5]).map(drop)
}

/// How many pages went to swap.
pub fn swap_out(addr: u64, len: u64) -> Result<u64> {
    call(Call::SwapOut, [addr, len, 0, 0, 0])
}

/// All that is pinned, to or from the disk past the cache.
pub fn transfer_file(handle: u64, page: u64, direction: u64) -> Result {
    call(Call::TransferFile, [handle, page, direction, 0, 0]).map(drop)
}

pub fn unmap(addr: u64, len: u64) -> Result {
    call(Call::Unmap, [addr, len, 0, 0, 0]).map(drop)
}

pub fn protect(addr: u64, len: u64, prot: u64) -> Result {
    call(Call::Protect, [addr, len, prot, 0, 0]).map(drop)
}

pub fn discard(addr: u64, len: u64) -> Result {
    call(Call::Discard, [addr, len, 0, 0, 0]).map(drop)
}

/// 0 in the child, its number in the parent.
pub fn fork() -> Result<u64> {
    call(Call::Fork, [0; 5])
}

/// A thread that runs `entry` on the given stack, with `argument`.
pub fn spawn_thread(entry: extern "C" fn(u64) -> !, stack_top: u64, argument: u64) -> Result {
    // The entry expects the stack of a called function.
    let stack = (stack_top & !0xf) - 8;
    call(Call::SpawnThread, [entry as usize as u64, stack, argument, 0, 0]).map(drop)
}

pub fn exit_thread() -> ! {
    raw(Call::ExitThread as u64, [0; 5]);
    unreachable!()
}

pub fn exit(code: u32) -> ! {
    loop {
        raw(Call::Exit as u64, [u64::from(code), 0, 0, 0, 0]);
    }
}

pub fn wait(pid: u64) -> Result<Status> {
    call(Call::Wait, [pid, 0, 0, 0, 0]).map(Status::from_bits)
}

pub fn write(from: u64, len: u64) -> Result<u64> {
    call(Call::Write, [from, len, 0, 0, 0])
}

pub fn cpu() -> u64 {
    raw(Call::Cpu as u64, [0; 5])
}

pub fn yield_now() {
    raw(Call::Yield as u64, [0; 5]);
}

pub fn sleep(microseconds: u64) -> Result {
    call(Call::Sleep, [microseconds, 0, 0, 0, 0]).map(drop)
}

/// Microseconds since boot.
pub fn now() -> u64 {
    raw(Call::Now as u64, [0; 5])
}

pub fn spawn(program: Program, argument: u64) -> Result<u64> {
    call(Call::SpawnProcess, [program as u64, argument, 0, 0, 0])
}

pub fn dev_pin(addr: u64, len: u64, flags: u64) -> Result<u64> {
    call(Call::DevPin, [addr, len, flags, 0, 0])
}

/// Memory of another process.
pub fn dev_pin_remote(addr: u64, len: u64, flags: u64, pid: u64) -> Result<u64> {
    call(Call::DevPinRemote, [addr, len, flags, pid, 0])
}

pub fn dev_unpin(handle: u64) -> Result {
    call(Call::DevUnpin, [handle, 0, 0, 0, 0]).map(drop)
}

pub fn dev_dma_start(handle: u64, offset: u64, device_offset: u64, len: u64, direction: u64) -> Result {
    call(Call::DevDmaStart, [handle, offset, device_offset, len, direction]).map(drop)
}

pub fn dev_dma_wait() -> Result {
    call(Call::DevDmaWait, [0; 5]).map(drop)
}

/// Where the device finds `offset` of what was lent to it.
pub fn dev_address(handle: u64, offset: u64) -> Result<u64> {
    call(Call::DevAddress, [handle, offset, 0, 0, 0])
}

/// Makes the device use an address that it was not given.
pub fn dev_stray(address: u64, device_offset: u64, len: u64, direction: u64) -> Result {
    call(Call::DevStray, [address, device_offset, len, direction, 0]).map(drop)
}

/// The first blocked access since the last call.
pub fn dev_blocked() -> Result<BlockedAccess> {
    call(Call::DevBlocked, [0; 5]).map(BlockedAccess::from_bits)
}

pub fn dev_peek(handle: u64, offset: u64, to: &mut [u8]) -> Result {
    let (at, len) = (to.as_mut_ptr() as u64, to.len() as u64);
    call(Call::DevPeek, [handle, offset, at, len, 0]).map(drop)
}

pub fn dev_poke(handle: u64, offset: u64, from: &[u8]) -> Result {
    let (at, len) = (from.as_ptr() as u64, from.len() as u64);
    call(Call::DevPoke, [handle, offset, at, len, 0]).map(drop)
}

/// A call of the memory system's own.
pub fn mm(number: u64, a: u64, b: u64, c: u64) -> Result<u64> {
    call(Call::Mm, [number, a, b, c, 0])
}

pub fn note(slot: u64, value: u64) -> Result {
    call(Call::Note, [slot, value, 0, 0, 0]).map(drop)
}

pub fn read_note(slot: u64) -> Result<u64> {
    call(Call::ReadNote, [slot, 0, 0, 0, 0])
}
