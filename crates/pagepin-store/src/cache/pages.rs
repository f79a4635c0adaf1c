//! Pages: looked up, read by the device, evicted; and bytes for who has a file open.

use pagepin::{Access, Env, FreshPage, NotReady, ObjectError, ObjectId, ObjectStore, PAGE_SIZE, Pfn, StoredPage};

use super::Cache;
use super::inner::{Contents, Look, finish, key, wait_for};
use crate::device::{Answer, DeviceError, FileDevice, FilePage, ReadRequest};
use crate::error::StoreError;

/// Pages that are evicted for a frame, at most: the frame source may give the first to somebody else.
const EVICTED_FOR_ONE: usize = 4;

impl<D: FileDevice> Cache<D> {
    /// A reference to the page; it is read, or made, if it is not there.
    fn obtain<K: Env>(&self, kernel: &K, id: ObjectId, page: u32) -> Result<StoredPage, ObjectError> {
        if let Look::Here(found) = self.with(kernel, |inner| inner.look(kernel, id, page))? {
            return Ok(found);
        }
        let frame = self.frame_for_one(kernel).ok_or(ObjectError::NoMemory)?;
        let request = match self.with(kernel, |inner| inner.fill(kernel, id, page, frame)) {
            Ok(request) => request,
            Err(frame) => {
                // Another thread was first, with this page or the last place for one.
                frame.put(kernel);
                None
            }
        };
        if let Some(Answer::Done(request, result)) = request.map(|request| self.device.read(kernel, request)) {
            self.read_ended(kernel, request, result);
        }
        match self.with(kernel, |inner| inner.look(kernel, id, page))? {
            Look::Here(found) => Ok(found),
            // Evicted, or never there: the last place is taken.
            Look::Absent => Err(ObjectError::NotReady(wait_for(id, page))),
        }
    }

    /// A frame, and a place for a page, which another thread may take first.
    fn frame_for_one<K: Env>(&self, kernel: &K) -> Option<FreshPage> {
        if self.with(kernel, |inner| inner.index.is_full()) && self.evict(kernel, 1) == 0 {
            return None;
        }
        let evicted = || self.evict(kernel, 1) > 0;
        FreshPage::of_object(kernel)
            .or_else(|| (0..EVICTED_FOR_ONE).take_while(|_| evicted()).find_map(|_| FreshPage::of_object(kernel)))
    }

    /// Gives up to `most` pages of files back that are clean and that nobody else has; how many. For who is short of memory. Each search
    /// looks at some places and goes on where the last one ended.
    pub fn evict<K: Env>(&self, kernel: &K, most: u32) -> u32 {
        let mut evicted = 0;
        while evicted < most {
            let Some(page) = self.with(kernel, |inner| inner.evict(kernel)) else { break };
            page.put(kernel);
            evicted += 1;
        }
        evicted
    }

    /// The device is done with a page that it [was to read](crate::Device::read). Who waits for it can go on.
    pub fn read_ended<K: Env>(
        &self,
        kernel: &K,
        mut request: ReadRequest<FilePage>,
        result: Result<(), DeviceError>,
    ) -> NotReady {
        let FilePage { object: id, page } = request.at;
        let unused = self.with(kernel, |inner| {
            let reads =
                |contents: &Contents| matches!(contents, Contents::Reading(ticket) if *ticket == request.ticket);
            let Some(length) = inner.object(id).ok().map(|object| object.length) else { return Some(request.page) };
            let Ok(properties) = inner.object(id).map(|object| object.properties) else { return Some(request.page) };
            // Cut off meanwhile, and perhaps read once more.
            let Some(record) = inner.index.get_mut(key(id, page)).filter(|record| reads(&record.contents)) else {
                return Some(request.page);
            };
            if result.is_err() {
                record.contents = Contents::Failed;
                return Some(request.page);
            }
            // What is behind the end is nobody's to see.
            let rest = length.saturating_sub(u64::from(page) * PAGE_SIZE).min(PAGE_SIZE) as usize;
            if let Some(bytes) = request.page.bytes(kernel) {
                bytes[rest..].fill(0);
            }
            record.contents = Contents::Here(finish(kernel, request.page, properties));
            None
        });
        unused.into_iter().for_each(|page| page.put(kernel));
        wait_for(id, page)
    }

    /// Reads bytes of the object, as by a file that is open; how many there are before its end. Pages that were read stay read when another is
    /// not ready: so the next attempt gets further.
    ///
    /// # Errors
    /// [`StoreError::NoObject`], `NotReady`, `NoMemory`, `Failed`.
    pub fn read<K: Env>(&self, kernel: &K, id: ObjectId, offset: u64, bytes: &mut [u8]) -> Result<usize, StoreError> {
        let rest = self.length(kernel, id)?.saturating_sub(offset);
        let length = bytes.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < length {
            let (page, within, part) = part_of(offset + done as u64, length - done);
            let found = self.obtain(kernel, id, page)?;
            found.copy_to(kernel, within, &mut bytes[done..done + part]);
            found.put(kernel);
            done += part;
        }
        Ok(length)
    }

    /// Writes bytes of the object, as by a file that is open. It does not become longer: see [`set_length`](Cache::set_length).
    ///
    /// # Errors
    /// [`StoreError::NoObject`], `PastEnd`, `Denied`: nothing was written. `NotReady`, `NoMemory`, `Failed`: what comes before the page in question
    /// was, and is written once more by the next attempt.
    pub fn write<K: Env>(&self, kernel: &K, id: ObjectId, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let (length, properties) =
            self.with(kernel, |inner| inner.object(id).map(|object| (object.length, object.properties)))?;
        if !properties.writable {
            return Err(StoreError::Denied);
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > length) {
            return Err(StoreError::PastEnd);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (page, within, part) = part_of(offset + done as u64, bytes.len() - done);
            let found = self.obtain(kernel, id, page)?;
            found.copy_from(kernel, within, &bytes[done..done + part]);
            found.put(kernel);
            done += part;
        }
        Ok(())
    }
}

/// The page that has the byte at `offset`, where in it, and how many of `length` bytes it has.
fn part_of(offset: u64, length: usize) -> (u32, usize, usize) {
    let within = (offset % PAGE_SIZE) as usize;
    ((offset / PAGE_SIZE) as u32, within, length.min(PAGE_SIZE as usize - within))
}

impl<D: FileDevice> ObjectStore for Cache<D> {
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, _: Access) -> Result<StoredPage, ObjectError> {
        self.obtain(kernel, id, page)
    }

    fn will_write(&self, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError> {
        let mut inner = self.inner.lock();
        let (properties, record) = inner.record_mut(id, page)?;
        if !properties.writable {
            return Err(ObjectError::Denied);
        }
        if record.closed || record.here().is_none_or(|page| page.frame() != frame) {
            return Err(ObjectError::NotReady(wait_for(id, page)));
        }
        record.written = true;
        Ok(())
    }

    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool {
        self.inner.lock().is(id, page, frame)
    }

    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError> {
        let inner = self.inner.lock();
        let (object, record) = inner.record(id, page)?;
        if !object.properties.pinnable {
            return Err(ObjectError::NotPinnable);
        }
        if record.closed { Err(ObjectError::NotReady(wait_for(id, page))) } else { Ok(()) }
    }

    fn is_written_back(&self, id: ObjectId) -> bool {
        self.inner.lock().object(id).is_ok_and(|object| object.properties.file)
    }

    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError> {
        let mut inner = self.inner.lock();
        let object = inner.object_mut(id).ok().filter(|object| !object.leaving).ok_or(ObjectError::NoObject)?;
        object.shown = object.shown.checked_add(pages).ok_or(ObjectError::NoObject)?;
        Ok(())
    }

    fn unmapped(&self, id: ObjectId, pages: u64) {
        if let Ok(object) = self.inner.lock().object_mut(id) {
            object.shown = object.shown.saturating_sub(pages);
        }
    }
}
