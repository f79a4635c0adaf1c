//! A block device with one request at a time, of as many pieces as the buffer has (VirtIO 1.2, 5.2.6).

use alloc::vec::Vec;

use pagepin_dma::Piece;
use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Error, Hal};
use x86_64::instructions::port::Port;

use crate::hal::KernelHal;

pub const SECTOR: u64 = 512;

const READ: u32 = 0;
const WRITE: u32 = 1;
/// A request's header, and where its status byte is behind it.
const HEADER_BYTES: usize = 16;

struct ConfigPorts;

fn select(function: DeviceFunction, register: u8) {
    let function = u32::from(function.bus) << 16 | u32::from(function.device) << 11 | u32::from(function.function) << 8;
    // SAFETY: chooses a configuration register, and no more.
    unsafe { Port::<u32>::new(0xcf8).write(1 << 31 | function | u32::from(register & 0xfc)) };
}

impl ConfigurationAccess for ConfigPorts {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        select(function, register);
        // SAFETY: reading a header changes nothing.
        unsafe { Port::new(0xcfc).read() }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, value: u32) {
        select(function, register);
        // SAFETY: the caller chose register and value.
        unsafe { Port::new(0xcfc).write(value) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

pub struct Disk {
    transport: PciTransport,
    queue: VirtQueue<KernelHal, 16>,
    /// Header and status of the request.
    request: &'static mut [u8],
}

impl Disk {
    pub fn find() -> Option<Self> {
        let mut root = PciRoot::new(ConfigPorts);
        let is_disk = |info: &_| virtio_device_type(info) == Some(DeviceType::Block);
        let (function, _) = root.enumerate_bus(0).find(|(_, info)| is_disk(info))?;
        root.set_command(function, Command::BUS_MASTER | Command::MEMORY_SPACE);
        let mut transport = PciTransport::new::<KernelHal, _>(&mut root, function).ok()?;
        let _features = transport.begin_init(Feature::VERSION_1);
        let queue = VirtQueue::new(&mut transport, 0, false, false).ok()?;
        transport.finish_init();
        let (address, mut start) = KernelHal::dma_alloc(1, BufferDirection::Both);
        // SAFETY: the block is this disk's for ever, and in the direct map.
        let request = (address != 0).then(|| unsafe { core::slice::from_raw_parts_mut(start.as_mut(), 4096) })?;
        Some(Self { transport, queue, request })
    }

    /// Reads sectors into the pieces.
    pub fn read(&mut self, sector: u64, pieces: &[Piece]) -> Result<(), Error> {
        self.transfer(READ, sector, pieces)
    }

    /// Writes what is in the pieces to the sectors.
    pub fn write(&mut self, sector: u64, pieces: &[Piece]) -> Result<(), Error> {
        self.transfer(WRITE, sector, pieces)
    }

    fn transfer(&mut self, kind: u32, sector: u64, pieces: &[Piece]) -> Result<(), Error> {
        let (header, status) = self.request.split_at_mut(HEADER_BYTES);
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..8].fill(0);
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let status = &mut status[..1];
        status[0] = 0xff;
        // SAFETY: no process runs and no other code of this kernel looks at the pieces before the disk is done.
        let data = pieces.iter().map(|piece| unsafe { piece.memory().as_mut() });
        if kind == READ {
            let mut outputs: Vec<&mut [u8]> = data.chain([&mut *status]).collect();
            self.queue.add_notify_wait_pop(&[header], &mut outputs, &mut self.transport)?;
        } else {
            let inputs: Vec<&[u8]> = core::iter::once(&*header).chain(data.map(|data| &*data)).collect();
            self.queue.add_notify_wait_pop(&inputs, &mut [&mut *status], &mut self.transport)?;
        }
        if status[0] == 0 { Ok(()) } else { Err(Error::IoError) }
    }
}
