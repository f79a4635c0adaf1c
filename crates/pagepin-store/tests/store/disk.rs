//! A device that is worse than any: it answers late and in any order, writes garbage before it fails to read, and looks whether the bytes that
//! it writes change.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use pagepin::{Env, ObjectId, PAGE_SIZE};
use pagepin_store::{Answer, Device, DeviceError, FileDevice, FilePage, ReadRequest, WriteRequest};

pub(crate) type Bytes = [u8; PAGE_SIZE as usize];

/// See the [module text](self).
pub(crate) struct Disk<At: 'static>(Mutex<Inner<At>>);

struct Inner<At> {
    pages: BTreeMap<At, Box<Bytes>>,
    late: bool,
    failing: bool,
    /// Who writes by a call changes what is being written.
    called: bool,
    reads: Vec<ReadRequest<At>>,
    writes: Vec<(WriteRequest<At>, Box<Bytes>)>,
    requests: u64,
}

impl<At: Copy + Ord> Disk<At> {
    pub(crate) fn new() -> Self {
        let (reads, writes) = (Vec::new(), Vec::new());
        let (late, failing, called, requests) = (false, false, false, 0);
        Self(Mutex::new(Inner { pages: BTreeMap::new(), late, failing, called, reads, writes, requests }))
    }

    /// From now on it answers late, or at once.
    pub(crate) fn answer_late(&self, late: bool) {
        self.0.lock().unwrap().late = late;
    }

    /// From now on it fails, or not.
    pub(crate) fn fail(&self, failing: bool) {
        self.0.lock().unwrap().failing = failing;
    }

    /// Pages are written by calls, too.
    pub(crate) fn expect_calls(&self) {
        self.0.lock().unwrap().called = true;
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> u64 {
        self.0.lock().unwrap().requests
    }

    pub(crate) fn put(&self, at: At, byte: u8) {
        self.0.lock().unwrap().pages.insert(at, Box::new([byte; PAGE_SIZE as usize]));
    }

    /// What is on it.
    pub(crate) fn get(&self, at: At) -> Bytes {
        self.0.lock().unwrap().pages.get(&at).map_or([0; PAGE_SIZE as usize], |bytes| **bytes)
    }

    /// Takes a request that is to be read, done so or so.
    pub(crate) fn end_read<K: Env>(&self, kernel: &K, which: usize) -> Option<Done<ReadRequest<At>>> {
        let mut inner = self.0.lock().unwrap();
        let count = inner.reads.len();
        let mut request = (count > 0).then(|| inner.reads.remove(which % count))?;
        let result = inner.read(kernel, &mut request);
        Some((request, result))
    }

    /// The same, to be written.
    pub(crate) fn end_write<K: Env>(&self, kernel: &K, which: usize) -> Option<Done<WriteRequest<At>>> {
        let mut inner = self.0.lock().unwrap();
        let count = inner.writes.len();
        let (request, before) = (count > 0).then(|| inner.writes.remove(which % count))?;
        assert!(inner.called || bytes(kernel, &request) == before, "it changes while it is written");
        let result = inner.write(kernel, &request);
        Some((request, result))
    }
}

/// A request that is over.
pub(crate) type Done<R> = (R, Result<(), DeviceError>);

fn bytes<K: Env, At: Copy>(kernel: &K, request: &WriteRequest<At>) -> Box<Bytes> {
    let mut bytes = Box::new([0; PAGE_SIZE as usize]);
    assert!(request.page().copy_to(kernel, 0, &mut *bytes));
    bytes
}

impl<At: Copy + Ord> Inner<At> {
    fn read<K: Env>(&self, kernel: &K, request: &mut ReadRequest<At>) -> Result<(), DeviceError> {
        let at = request.at();
        let to = request.page().bytes(kernel).expect("a page of this kernel");
        to.fill(0xee);
        if self.failing {
            return Err(DeviceError);
        }
        *to = self.pages.get(&at).map_or([0; PAGE_SIZE as usize], |bytes| **bytes);
        Ok(())
    }

    fn write<K: Env>(&mut self, kernel: &K, request: &WriteRequest<At>) -> Result<(), DeviceError> {
        if self.failing {
            return Err(DeviceError);
        }
        self.pages.insert(request.at(), bytes(kernel, request));
        Ok(())
    }
}

impl<At: Copy + Ord + Send + 'static> Device<At> for Disk<At> {
    fn read<K: Env>(&self, kernel: &K, mut request: ReadRequest<At>) -> Answer<ReadRequest<At>> {
        let mut inner = self.0.lock().unwrap();
        inner.requests += 1;
        if inner.late {
            inner.reads.push(request);
            return Answer::Later;
        }
        let result = inner.read(kernel, &mut request);
        Answer::Done(request, result)
    }

    fn write<K: Env>(&self, kernel: &K, request: WriteRequest<At>) -> Answer<WriteRequest<At>> {
        let mut inner = self.0.lock().unwrap();
        inner.requests += 1;
        if inner.late {
            let now = bytes(kernel, &request);
            inner.writes.push((request, now));
            return Answer::Later;
        }
        let result = inner.write(kernel, &request);
        Answer::Done(request, result)
    }
}

impl FileDevice for Disk<FilePage> {
    fn punch(&self, object: ObjectId, pages: Range<u32>) {
        self.0.lock().unwrap().pages.retain(|at, _| at.object != object || !pages.contains(&at.page));
    }

    fn cut(&self, object: ObjectId, length: u64) {
        let page = (length / PAGE_SIZE) as u32;
        for (at, bytes) in &mut self.0.lock().unwrap().pages {
            let from = (length % PAGE_SIZE) as usize;
            if at.object == object && at.page >= page {
                bytes[if at.page == page { from } else { 0 }..].fill(0);
            }
        }
    }
}
