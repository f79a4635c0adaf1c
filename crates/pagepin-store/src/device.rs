//! [`Device`]: what reads and writes pages.

use core::ops::Range;

use core::fmt;

use pagepin::{Env, FreshPage, ObjectId, StoredPage, TokenError};

/// The device could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceError;

impl DeviceError {
    /// The nearest Linux error number (positive): `EIO`.
    #[must_use]
    pub const fn errno(self) -> i32 {
        TokenError::Lost.errno()
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device failed")
    }
}

impl core::error::Error for DeviceError {}

/// A page of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePage {
    /// Which file.
    pub object: ObjectId,
    /// Its page, from 0.
    pub page: u32,
}

/// What a device says to a request.
#[must_use]
#[derive(Debug)]
pub enum Answer<R> {
    /// It is over, so or so.
    Done(R, Result<(), DeviceError>),
    /// The device has the request, and whoever hears of its end passes it on: to [`Cache::read_ended`](crate::Cache::read_ended) and its
    /// like.
    Later,
}

/// What reads and writes pages: of a swap area, by the number of the slot (`At` is `u64`), or of files ([`FilePage`]).
///
/// It is called with no lock of the store held, but for [`read`](Self::read) perhaps inside a section of an mm lock: a device that takes its time
/// answers [`Later`](Answer::Later). A request that is dropped keeps its frame, and whoever waits for it waits for ever.
pub trait Device<At: Copy>: Sync {
    /// Reads a page.
    fn read<K: Env>(&self, kernel: &K, request: ReadRequest<At>) -> Answer<ReadRequest<At>>;

    /// Writes a page.
    fn write<K: Env>(&self, kernel: &K, request: WriteRequest<At>) -> Answer<WriteRequest<At>>;
}

/// A device with files.
pub trait FileDevice: Device<FilePage> {
    /// A file was cut off, or became longer: from the smaller of its lengths on (in bytes) it reads as zeroes, until it is written there.
    fn cut(&self, object: ObjectId, length: u64);

    /// A hole was punched: these pages read as zeroes, until they are written.
    fn punch(&self, object: ObjectId, pages: Range<u32>);
}

/// None: there are memory objects only.
impl<At: Copy> Device<At> for () {
    fn read<K: Env>(&self, _: &K, request: ReadRequest<At>) -> Answer<ReadRequest<At>> {
        Answer::Done(request, Err(DeviceError))
    }

    fn write<K: Env>(&self, _: &K, request: WriteRequest<At>) -> Answer<WriteRequest<At>> {
        Answer::Done(request, Err(DeviceError))
    }
}

impl FileDevice for () {
    fn cut(&self, _: ObjectId, _: u64) {}
    fn punch(&self, _: ObjectId, _: Range<u32>) {}
}

impl<At: Copy, D: Device<At>> Device<At> for &D {
    fn read<K: Env>(&self, kernel: &K, request: ReadRequest<At>) -> Answer<ReadRequest<At>> {
        (**self).read(kernel, request)
    }

    fn write<K: Env>(&self, kernel: &K, request: WriteRequest<At>) -> Answer<WriteRequest<At>> {
        (**self).write(kernel, request)
    }
}

impl<D: FileDevice> FileDevice for &D {
    fn cut(&self, object: ObjectId, length: u64) {
        (**self).cut(object, length);
    }

    fn punch(&self, object: ObjectId, pages: Range<u32>) {
        (**self).punch(object, pages);
    }
}

/// A page that is to be read.
#[must_use = "whoever waits for it waits for ever"]
#[derive(Debug)]
pub struct ReadRequest<At> {
    pub(crate) at: At,
    pub(crate) page: FreshPage,
    /// Which request for this page of a cache; a slot has one at a time.
    pub(crate) ticket: u64,
}

impl<At: Copy> ReadRequest<At> {
    /// Which page.
    #[must_use]
    pub fn at(&self) -> At {
        self.at
    }

    /// Where it goes: the request's alone, and zeroed.
    pub fn page(&mut self) -> &mut FreshPage {
        &mut self.page
    }
}

/// A page that is to be written.
#[must_use = "whoever waits for it waits for ever"]
#[derive(Debug)]
pub struct WriteRequest<At> {
    pub(crate) at: At,
    pub(crate) page: StoredPage,
    /// Which request for this page of a cache; a slot has one at a time.
    pub(crate) ticket: u64,
}

impl<At: Copy> WriteRequest<At> {
    /// Which page.
    #[must_use]
    pub fn at(&self) -> At {
        self.at
    }

    /// Where its bytes are. Meanwhile nobody changes them but by [`Cache::write`](crate::Cache::write), and then it is written once more.
    pub fn page(&self) -> &StoredPage {
        &self.page
    }
}
