//! Pinning user memory: by registering it with io_uring where that is permitted, else by vmsplice.

use std::os::fd::OwnedFd;

use io_uring::IoUring;
use rustix::io::Errno;
use rustix::pipe::{IoSliceRaw, SpliceFlags, fcntl_setpipe_size, pipe, vmsplice};

use super::memory::Region;
use crate::compare::nanoseconds;

/// Pages that a pipe takes, of an ordinary user.
const PIPE_PAGES: usize = 256;
const PAGE: usize = 4096;

pub(crate) enum Pins {
    IoUring(Box<IoUring>),
    /// And why io_uring is not used.
    Vmsplice(String),
}

/// A buffer as the host is given it.
pub(crate) struct Buffer<'r> {
    region: &'r Region,
    /// Bytes a call.
    call: usize,
}

impl<'r> Buffer<'r> {
    pub(crate) fn new(region: &'r Region, pages_per_call: u64) -> Self {
        Self { region, call: pages_per_call as usize * PAGE }
    }
}

impl Pins {
    pub(crate) fn new() -> Self {
        match try_io_uring() {
            Ok(ring) => Self::IoUring(Box::new(ring)),
            Err(why) => Self::Vmsplice(why),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::IoUring(_) => "io_uring",
            Self::Vmsplice(_) => "vmsplice",
        }
    }

    /// What the two figures contain.
    pub(crate) fn contains(&self) -> [String; 2] {
        match self {
            Self::IoUring(_) => [
                "io_uring_register, REGISTER_BUFFERS of one buffer: the system call, the buffer's table and accounting too",
                "io_uring_register, UNREGISTER_BUFFERS: the same",
            ]
            .map(str::to_owned),
            Self::Vmsplice(why) => [
                format!("vmsplice into a pipe, at most {PIPE_PAGES} pages a call: a plain reference a page (io_uring: {why})"),
                "closing the pipe".to_owned(),
            ],
        }
    }

    /// Nanoseconds of pinning and of unpinning all of `buffer`, or why it is refused.
    pub(crate) fn turn(&self, buffer: &Buffer<'_>) -> Result<[f64; 2], String> {
        let mut sum = [0.0; 2];
        for first in (0..buffer.region.length()).step_by(buffer.call) {
            let start = buffer.region.start().wrapping_byte_add(first);
            let figures = match self {
                Self::IoUring(ring) => register(ring, start, buffer.call).map_err(|error| error.to_string())?,
                Self::Vmsplice(_) => splice(start, buffer.call).map_err(|error| error.to_string())?,
            };
            sum = [sum[0] + figures[0], sum[1] + figures[1]];
        }
        Ok(sum)
    }
}

/// A ring that takes buffers.
fn try_io_uring() -> Result<IoUring, String> {
    let ring = IoUring::new(2).map_err(|error| error.to_string())?;
    let page = Region::new(PAGE, false);
    page.write_all();
    register(&ring, page.start(), PAGE).map_err(|error| error.to_string())?;
    Ok(ring)
}

fn register(ring: &IoUring, start: *mut libc::c_void, length: usize) -> std::io::Result<[f64; 2]> {
    let buffer = [libc::iovec { iov_base: start, iov_len: length }];
    let (mut registered, mut unregistered) = (Ok(()), Ok(()));
    // SAFETY: the memory stays until the buffer is unregistered below, and no operation is submitted.
    let pin = nanoseconds(|| registered = unsafe { ring.submitter().register_buffers(&buffer) });
    registered?;
    let unpin = nanoseconds(|| unregistered = ring.submitter().unregister_buffers());
    unregistered?;
    Ok([pin, unpin])
}

fn splice(start: *mut libc::c_void, length: usize) -> rustix::io::Result<[f64; 2]> {
    let mut figures = [0.0; 2];
    for first in (0..length).step_by(PIPE_PAGES * PAGE) {
        let (reader, writer): (OwnedFd, OwnedFd) = pipe()?;
        let part = (length - first).min(PIPE_PAGES * PAGE);
        fcntl_setpipe_size(&writer, PIPE_PAGES * PAGE)?;
        // SAFETY: the memory stays mapped until the pipe is closed below, and nobody writes it meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>().wrapping_add(first), part) };
        let bytes = [IoSliceRaw::from_slice(bytes)];
        let mut spliced = Err(Errno::INVAL);
        // SAFETY: as above, and nobody reads the pipe.
        figures[0] += nanoseconds(|| spliced = unsafe { vmsplice(&writer, &bytes, SpliceFlags::empty()) });
        if spliced? != part {
            return Err(Errno::AGAIN);
        }
        figures[1] += nanoseconds(|| drop((reader, writer)));
    }
    Ok(figures)
}
