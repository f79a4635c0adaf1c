//! A virtio block device (VirtIO 1.2, 5.2), by the queues of `virtio-drivers`: one request at a time, of as many pieces as the memory has.

use core::ptr::NonNull;

use alloc::vec::Vec;

use pagepin::{Env, FrameRequest, FrameSource, Pfn};
use pagepin_abi::Error;
use pci_types::PciAddress;
use spin::mutex::SpinMutex;
use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::edu::Direction;
use crate::memory::{self, PAGE};
use crate::mm::kernel;
use crate::pci;
use crate::poll::{self, Poll};

const SECTOR: u64 = 512;
const QUEUE: u16 = 0;

const READ: u32 = 0;
const WRITE: u32 = 1;
/// A request's header, and where its status byte is behind it.
const HEADER_BYTES: usize = 16;

struct DiskHal;

fn order(pages: usize) -> u8 {
    pages.next_power_of_two().ilog2() as u8
}

/// Where the kernel has this physical address: memory, or registers.
fn pointer(address: PhysAddr) -> NonNull<u8> {
    NonNull::new(memory::direct(address)).expect("the direct map is not at 0")
}

// SAFETY: blocks of the frame source are nobody else's, and the direct map has them; so it has registers.
unsafe impl Hal for DiskHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(first) = kernel().source().allocate(FrameRequest::unmovable(order(pages))) else {
            return (0, NonNull::dangling());
        };
        let start = pointer(first.address());
        // SAFETY: the block is this function's.
        unsafe { start.write_bytes(0, pages * PAGE as usize) };
        (first.address(), start)
    }

    unsafe fn dma_dealloc(address: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: it is a block of `dma_alloc`, which nobody uses any more, says the caller.
        unsafe { kernel().source().free(Pfn::containing(address), order(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        pointer(address)
    }

    /// All that is shared here is in the direct map.
    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.addr().get() as u64 - memory::direct_map_offset()
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

struct ConfigPorts;

fn address(function: DeviceFunction) -> PciAddress {
    PciAddress::new(0, function.bus, function.device, function.function)
}

impl ConfigurationAccess for ConfigPorts {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        pci::read(address(function), register.into())
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, value: u32) {
        pci::write(address(function), register.into(), value);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

struct Disk {
    transport: PciTransport,
    queue: VirtQueue<DiskHal, 16>,
    /// Header and status of the request.
    request: &'static mut [u8],
}

static DISK: SpinMutex<Option<Disk>, Poll> = SpinMutex::new(None);

/// Looks for the disk. Only called by the boot CPU. Whether there is one.
pub fn init() -> bool {
    let disk = Disk::find();
    let found = disk.is_some();
    *DISK.lock() = disk;
    found
}

/// Moves bytes between the disk, from a byte of it on, and pieces of memory.
///
/// # Safety
/// The pieces are physical memory that stays the caller's until this returns: address and length, whole sectors.
pub unsafe fn transfer(at: u64, pieces: &[(u64, u64)], direction: Direction) -> Result<(), Error> {
    if !at.is_multiple_of(SECTOR) || pieces.iter().any(|(_, length)| !length.is_multiple_of(SECTOR)) {
        return Err(Error::Invalid);
    }
    let mut disk = DISK.lock();
    // SAFETY: forwarded from the caller.
    unsafe { disk.as_mut().ok_or(Error::NoDevice)?.transfer(at / SECTOR, pieces, direction) }
}

impl Disk {
    fn find() -> Option<Self> {
        let mut root = PciRoot::new(ConfigPorts);
        let is_disk = |info: &_| virtio_device_type(info) == Some(DeviceType::Block);
        let (function, _) = root.enumerate_bus(0).find(|(_, info)| is_disk(info))?;
        root.set_command(function, Command::BUS_MASTER | Command::MEMORY_SPACE);
        let mut transport = PciTransport::new::<DiskHal, _>(&mut root, function).ok()?;
        let _features = transport.begin_init(Feature::VERSION_1);
        let queue = VirtQueue::new(&mut transport, QUEUE, false, false).ok()?;
        transport.finish_init();
        let (address, start) = DiskHal::dma_alloc(1, BufferDirection::Both);
        let request = NonNull::slice_from_raw_parts(start, PAGE as usize);
        // SAFETY: the block is this disk's for ever, and in the direct map.
        let request = (address != 0).then(|| unsafe { &mut *request.as_ptr() })?;
        Some(Self { transport, queue, request })
    }

    /// # Safety
    /// As for the function of that name.
    unsafe fn transfer(&mut self, sector: u64, pieces: &[(u64, u64)], direction: Direction) -> Result<(), Error> {
        let kind = if direction == Direction::FromDevice { READ } else { WRITE };
        let (header, status) = self.request.split_at_mut(HEADER_BYTES);
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..8].fill(0);
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let status = &mut status[..1];
        status[0] = 0xff;
        // SAFETY: the pieces are the caller's until the disk is done. What user code or another device does to pinned bytes meanwhile is between
        // them and this disk: nothing here looks at the bytes.
        let data = pieces.iter().map(|&(address, length)| unsafe {
            core::slice::from_raw_parts_mut(memory::direct(address), length as usize)
        });
        let (mut inputs, mut outputs): (Vec<&[u8]>, Vec<&mut [u8]>) = (Vec::from([&*header]), Vec::new());
        match direction {
            Direction::FromDevice => outputs.extend(data),
            Direction::ToDevice => inputs.extend(data.map(|piece| &*piece)),
        }
        outputs.push(&mut *status);
        // SAFETY: all of it stays until the request is taken back, below.
        let token = unsafe { self.queue.add(&inputs, &mut outputs) }.map_err(|_| Error::Limit)?;
        if self.queue.should_notify() {
            self.transport.notify(QUEUE);
        }
        poll::until(|| self.queue.can_pop());
        // SAFETY: the buffers that were added.
        unsafe { self.queue.pop_used(token, &inputs, &mut outputs) }.map_err(|_| Error::NoDevice)?;
        if status[0] == 0 { Ok(()) } else { Err(Error::NoDevice) }
    }
}
