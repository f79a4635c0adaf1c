//! Write-back: pages are closed in the step that sees no pins, the address spaces write-protect them, and the device gets them as they
//! are; pinned ones as copies, or later.

use core::ops::Range;

use pagepin::frame::CountError;
use pagepin::{Env, FreshPage, NotReady, ObjectId, StoredPage};

use super::inner::{Inner, STEP, key, page_of, wait_for};
use super::{Cache, Shown};
use crate::device::{Answer, DeviceError, FileDevice, FilePage, WriteRequest};
use crate::error::StoreError;

/// What is done with a page that is pinned: its holder may write it at any moment, so it is not written as it is, and never called clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenPinned {
    /// A copy is written: for who must have all that was written before (`fsync`, `msync`).
    Bounce,
    /// It is written when it is not pinned any more: for who writes what is dirty from time to time.
    Defer,
}

/// What a write-back did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WrittenBack {
    /// Pages that the device got as they are.
    pub direct: u32,
    /// Pages that it got as copies, since they are pinned.
    pub bounced: u32,
    /// Pages that are pinned and stay for later; also such for whose copy there was no memory.
    pub deferred: u32,
    /// Pages that an earlier write-back has not finished with, and that may have been written since; or that are about to be cut off.
    pub busy: u32,
    /// Pages among the first two for which the device will answer later.
    pub started: u32,
    /// The device has failed to write a page of the object since this was last said. The page stays dirty.
    pub failed: bool,
}

/// Pages that one step has begun with.
struct Begun {
    pages: [Option<(u32, u64)>; STEP],
    count: usize,
}

impl Begun {
    const NONE: Self = Self { pages: [None; STEP], count: 0 };

    fn add(&mut self, page: u32, ticket: u64) {
        self.pages[self.count] = Some((page, ticket));
        self.count += 1;
    }

    fn range(&self) -> Range<u32> {
        let first = self.pages[0].map_or(0, |(page, _)| page);
        let end = self.count.checked_sub(1).and_then(|last| self.pages[last]).map_or(0, |(page, _)| page + 1);
        first..end
    }
}

impl<D: FileDevice> Cache<D> {
    /// Writes what was written of these pages of a file to the device. All of it is there when nothing was deferred or busy, nothing has failed,
    /// and what was started has ended. Memory objects have nothing to write.
    ///
    /// # Errors
    /// [`StoreError::NoObject`].
    pub fn write_back<K: Env>(
        &self,
        kernel: &K,
        shown: &impl Shown,
        id: ObjectId,
        pages: Range<u32>,
        when_pinned: WhenPinned,
    ) -> Result<WrittenBack, StoreError> {
        let mut done = WrittenBack::default();
        let mut next = Some(pages.start);
        while let Some(from) = next.filter(|from| *from < pages.end) {
            let (mut closed, mut pinned) = (Begun::NONE, Begun::NONE);
            let reached = self.with(kernel, |inner| {
                inner.begin(kernel, id, from..pages.end, when_pinned, (&mut closed, &mut pinned), &mut done)
            })?;
            if closed.count > 0 {
                // From here on who writes asks, and is told to wait.
                shown.write_protect(id, closed.range());
            }
            for (page, ticket) in closed.pages.into_iter().flatten() {
                let request = self.with(kernel, |inner| inner.direct(kernel, id, page, ticket));
                if let Some(request) = request {
                    done.direct += 1;
                    self.submit(kernel, request, &mut done);
                }
            }
            for (page, ticket) in pinned.pages.into_iter().flatten() {
                match self.bounce(kernel, id, page, ticket) {
                    Some(request) => {
                        done.bounced += 1;
                        self.submit(kernel, request, &mut done);
                    }
                    None => done.deferred += 1,
                }
            }
            next = reached;
        }
        done.failed =
            self.with(kernel, |inner| inner.object_mut(id).map(|object| core::mem::take(&mut object.failed)))?;
        Ok(done)
    }

    fn submit<K: Env>(&self, kernel: &K, request: WriteRequest<FilePage>, done: &mut WrittenBack) {
        match self.device.write(kernel, request) {
            Answer::Later => done.started += 1,
            Answer::Done(request, result) => _ = self.write_ended(kernel, request, result),
        }
    }

    /// A copy of a pinned page, to be written. `None`: there is no memory for it.
    fn bounce<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, ticket: u64) -> Option<WriteRequest<FilePage>> {
        let at = FilePage { object: id, page };
        let original = self.with(kernel, |inner| inner.index.get(key(id, page))?.here()?.get(kernel));
        let copy = original.and_then(|original| {
            let copy = copied(kernel, &original);
            original.put(kernel);
            copy
        });
        if copy.is_none() {
            self.with(kernel, |inner| inner.written(kernel, at, ticket, Ok(())));
        }
        copy.map(|page| WriteRequest { at, page, ticket })
    }

    /// The device is done with a page that it [was to write](crate::Device::write). Who waits for it can go on.
    pub fn write_ended<K: Env>(
        &self,
        kernel: &K,
        request: WriteRequest<FilePage>,
        result: Result<(), DeviceError>,
    ) -> NotReady {
        self.with(kernel, |inner| inner.written(kernel, request.at, request.ticket, result));
        request.page.put(kernel);
        wait_for(request.at.object, request.at.page)
    }
}

fn copied<K: Env>(kernel: &K, original: &StoredPage) -> Option<StoredPage> {
    let mut copy = FreshPage::of_object(kernel)?;
    if let Some(bytes) = copy.bytes(kernel) {
        original.copy_to(kernel, 0, bytes);
    }
    Some(copy.finish_closed())
}

impl Inner {
    /// Begins with the next pages of a range that were written, as many as one hold of the lock may: those that nobody has pinned are closed. Where
    /// to go on.
    fn begin<K: Env>(
        &mut self,
        kernel: &K,
        id: ObjectId,
        pages: Range<u32>,
        when_pinned: WhenPinned,
        (closed, pinned): (&mut Begun, &mut Begun),
        done: &mut WrittenBack,
    ) -> Result<Option<u32>, StoreError> {
        let object = self.object(id)?;
        if !object.properties.file {
            return Ok(None);
        }
        let (end, going) = (key(id, pages.end.min(object.end())), object.going.clone());
        let mut next = key(id, pages.start);
        for _ in 0..STEP {
            let Some((found, record)) = self.index.from(next).filter(|(found, _)| *found < end) else {
                return Ok(None);
            };
            next = found + 1;
            let page = record.here();
            let is_dirty =
                || record.written || page.and_then(|page| page.snapshot(kernel)).is_some_and(|word| word.dirty);
            let Some(page) = page.filter(|_| is_dirty()) else { continue };
            let goes = going.as_ref().is_some_and(|going| going.contains(&page_of(found)));
            if record.writing.is_some() || goes {
                done.busy += 1;
                continue;
            }
            let is_closed = match page.close(kernel) {
                Ok(was_dirty) => {
                    if was_dirty {
                        // `direct` takes the note again, with what the address spaces add to it.
                        page.mark_dirty(kernel);
                    }
                    true
                }
                Err(CountError::Pinned) if when_pinned == WhenPinned::Bounce => false,
                Err(_) => {
                    done.deferred += 1;
                    continue;
                }
            };
            let ticket = self.next_ticket();
            (if is_closed { &mut *closed } else { &mut *pinned }).add(page_of(found), ticket);
            if let Some(record) = self.index.get_mut(found) {
                (record.writing, record.closed) = (Some(ticket), is_closed);
                // While it is pinned nobody knows whether it is written.
                record.written &= !is_closed;
            }
            self.object_mut(id)?.writes += 1;
        }
        Ok(Some(page_of(next)))
    }

    /// A page that is closed and that the address spaces have write-protected, to be written as it is: unless nobody has written it.
    fn direct<K: Env>(&mut self, kernel: &K, id: ObjectId, page: u32, ticket: u64) -> Option<WriteRequest<FilePage>> {
        let at = FilePage { object: id, page };
        let found = self.index.get(key(id, page)).and_then(|record| record.here());
        let reference = found.filter(|found| found.close(kernel) == Ok(true)).and_then(|found| {
            let reference = found.get(kernel);
            if reference.is_none() {
                found.mark_dirty(kernel);
            }
            reference
        });
        if reference.is_none() {
            self.written(kernel, at, ticket, Ok(()));
        }
        reference.map(|page| WriteRequest { at, page, ticket })
    }

    /// The device has written a page, or not. It is open again.
    fn written<K: Env>(&mut self, kernel: &K, at: FilePage, ticket: u64, result: Result<(), DeviceError>) {
        let Ok(object) = self.object_mut(at.object) else { return };
        let pinnable = object.properties.pinnable;
        let Some(record) = self.index.get_mut(key(at.object, at.page)) else { return };
        if record.writing.take_if(|writing| *writing == ticket).is_none() {
            return;
        }
        let was_closed = core::mem::take(&mut record.closed);
        if let Some(page) = record.here() {
            if was_closed && pinnable {
                page.open(kernel);
            }
            if result.is_err() {
                page.mark_dirty(kernel);
            }
        }
        if let Ok(object) = self.object_mut(at.object) {
            object.writes -= 1;
            object.failed |= result.is_err();
        }
    }
}
