//! A disk that reads and writes user memory, by the drivers of `virtio-drivers`: the buffer lies in three frames, which are not
//! side by side, and the device does not reach one of them. Console and exit are in `examples/machine`.
#![no_std]
#![no_main]

extern crate alloc;

mod disk;
mod hal;
mod memory;

use bootloader::BootInfo;
use machine::println;
use pagepin::fault::Fault;
use pagepin::pin::{PhysRun, Read, Write};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{Access, Env, FrameSource, PAGE_SIZE, Reach, Rights, UserRange};
use pagepin_dma::{Device, Within};

use disk::{Disk, SECTOR};
use memory::Kernel;

const BUFFER: u64 = 0x1000_0e00;
const SECTORS: u64 = 10;
const BYTES: usize = (SECTORS * SECTOR) as usize;

bootloader::entry_point!(main);

fn main(boot: &'static BootInfo) -> ! {
    machine::init(boot.physical_memory_offset);
    memory::init(boot);
    let (kernel, half) = memory::kernel();
    let space = UserSpace::new(kernel, SpaceOptions::new(*half)).expect("memory for a root");
    let mut disk = Disk::find().expect("a disk");

    // A frame that the device reaches, and a buffer of which one frame lies above it, whatever the boot loader has left free.
    let reached = kernel.source().allocate_within(Reach::Below4GiB, 0).expect("memory");
    let (range, limit) = (0..)
        .map(|number| buffer(&space, BUFFER + number * 4 * PAGE_SIZE))
        .find(|(_, highest)| *highest > reached.address())
        .expect("memory above it");
    // SAFETY: nobody uses it.
    unsafe { kernel.source().free(reached, 0) };

    let pinned = space.pin(Write, range, [PhysRun::default(); 3]).expect("it was just touched");
    // The device does not reach the highest of the frames.
    let device = Device::new(kernel.phys_map(), Within(kernel.source(), Reach::Below4GiB), limit);
    let transfer = device.prepare(pinned).map_err(|(_, error)| error).expect("a frame that it reaches");
    let (pieces, bounced) =
        (transfer.pieces().len(), transfer.pieces().iter().filter(|piece| piece.is_bounced()).count());
    let read = disk.read(0, transfer.pieces());
    // SAFETY: the disk is done, whether or not it has done it.
    let pinned = unsafe { transfer.complete(if read.is_ok() { SECTORS * SECTOR } else { 0 }) };
    println!("read into {pieces} pieces, {bounced} of them bounced: {read:?}");

    // What the process would do.
    let mut bytes = [0; BYTES];
    pinned.copy_to(0, &mut bytes).expect("all of the range");
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    pinned.copy_from(0, &bytes).expect("all of the range");
    drop(pinned);

    let pinned = space.pin(Read, range, [PhysRun::default(); 3]).expect("it is there");
    let transfer = device.prepare(pinned).map_err(|(_, error)| error).expect("a frame that it reaches");
    let written = disk.write(SECTORS, transfer.pieces());
    // SAFETY: as above.
    drop(unsafe { transfer.complete() });
    println!("wrote its complement behind it: {written:?}");
    machine::exit(read.is_ok() && written.is_ok() && (pieces, bounced) == (3, 1))
}

/// A buffer at `start`, in three frames, and where the highest of these is.
fn buffer(space: &UserSpace<&Kernel>, start: u64) -> (UserRange, u64) {
    let pages = start - start % PAGE_SIZE;
    space.map(pages, 3 * PAGE_SIZE, Rights::READ | Rights::WRITE).expect("a free place");
    // The last page first: so the frames are in another order than the pages.
    for page in (0..3).rev() {
        let address = pages + page * PAGE_SIZE;
        let write = Fault { address, access: Access::Write, key_denied: false, malformed_table: false };
        space.fault(write).expect("it was just mapped");
    }
    let range = space.range(start, SECTORS * SECTOR).expect("user memory");
    let pinned = space.pin(Read, range, [PhysRun::default(); 3]).expect("it was just touched");
    let last = |run: &PhysRun| run.end().address() - PAGE_SIZE;
    (range, pinned.runs().iter().map(last).max().expect("three frames"))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    machine::exit(false)
}
