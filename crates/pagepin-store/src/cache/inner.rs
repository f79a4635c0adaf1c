//! What the lock of a cache protects.

use alloc::vec::Vec;
use core::ops::Range;

use pagepin::{Env, FreshPage, NotReady, ObjectError, ObjectId, PAGE_SIZE, Pfn, StoredPage};

use super::Properties;
use crate::device::{FilePage, ReadRequest};
use crate::error::StoreError;
use crate::index::Index;

/// The most pages that one hold of the lock frees, or looks at.
pub(super) const STEP: usize = 64;

/// The key of a page.
pub(super) fn key(id: ObjectId, page: u32) -> u64 {
    u64::from(id.0) << 32 | u64::from(page)
}

/// What a page of an object waits for, as the kernel is told.
pub(super) fn wait_for(id: ObjectId, page: u32) -> NotReady {
    NotReady(key(id, page))
}

/// What waits for pages of an object, whichever.
pub(super) fn wait_for_some(id: ObjectId) -> NotReady {
    NotReady(key(id, u32::MAX))
}

/// The number of the page in a key.
pub(super) fn page_of(key: u64) -> u32 {
    key as u32
}

/// The number of the object in a key.
pub(super) fn object_of(key: u64) -> ObjectId {
    ObjectId((key >> 32) as u32)
}

/// What there is of a page.
pub(super) enum Contents {
    /// The device reads it.
    Reading(u64),
    /// It could not. The next who asks is told.
    Failed,
    Here(StoredPage),
}

pub(super) struct Record {
    pub(super) contents: Contents,
    /// Since it was last written back an address space was permitted to write it.
    pub(super) written: bool,
    /// Closed to pins and writes, while it is written back where it is.
    pub(super) closed: bool,
    /// The device writes it, or its copy.
    pub(super) writing: Option<u64>,
    /// It was looked up since the search for pages to evict has passed it.
    pub(super) used: bool,
}

impl Record {
    fn new(contents: Contents) -> Self {
        Self { contents, written: false, closed: false, writing: None, used: true }
    }

    /// The page, if it is there.
    pub(super) fn here(&self) -> Option<&StoredPage> {
        match &self.contents {
            Contents::Here(page) => Some(page),
            _ => None,
        }
    }
}

pub(super) struct Object {
    pub(super) properties: Properties,
    /// In bytes.
    pub(super) length: u64,
    /// Pages of address spaces that show it.
    pub(super) shown: u64,
    /// Pages in memory, or on their way.
    pub(super) pages: u32,
    /// Pages that are written back at the moment.
    pub(super) writes: u32,
    /// Pages that are about to go, since its length changes, a hole is punched, or it goes: their write-back does not begin.
    pub(super) going: Option<Range<u32>>,
    /// It is going: nobody may show it any more.
    pub(super) leaving: bool,
    /// The device has failed to write a page, and nobody was told.
    pub(super) failed: bool,
}

impl Object {
    /// The pages it has.
    pub(super) fn end(&self) -> u32 {
        self.length.div_ceil(PAGE_SIZE) as u32
    }
}

enum Place {
    Used(Object),
    /// And the next that is free.
    Free(u32),
}

pub(super) struct Inner {
    objects: Vec<Place>,
    free: u32,
    pub(super) index: Index<Record>,
    /// Where the search for a page to evict goes on.
    hand: usize,
    ticket: u64,
}

/// What a look at a page comes to.
pub(super) enum Look {
    Here(StoredPage),
    /// Nobody has it, or reads it: it needs a frame, of an object that is a file or not.
    Absent,
}

impl Inner {
    pub(super) fn new(objects: u32, pages: u32) -> Option<Self> {
        let mut all = Vec::new();
        all.try_reserve_exact(objects as usize).ok()?;
        all.extend((1..=objects).map(Place::Free));
        Some(Self { objects: all, free: 0, index: Index::new(pages)?, hand: 0, ticket: 0 })
    }

    pub(super) fn next_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    pub(super) fn create(&mut self, properties: Properties, length: u64) -> Result<ObjectId, StoreError> {
        check_length(length)?;
        let id = self.free;
        let place = self.objects.get_mut(id as usize).ok_or(StoreError::Full)?;
        let Place::Free(next) = *place else { return Err(StoreError::Full) };
        let (shown, pages, writes) = (0, 0, 0);
        let (going, leaving, failed) = (None, false, false);
        *place = Place::Used(Object { properties, length, shown, pages, writes, going, leaving, failed });
        self.free = next;
        Ok(ObjectId(id))
    }

    pub(super) fn destroy(&mut self, id: ObjectId) {
        if let Some(place) = self.objects.get_mut(id.0 as usize) {
            *place = Place::Free(core::mem::replace(&mut self.free, id.0));
        }
    }

    pub(super) fn object(&self, id: ObjectId) -> Result<&Object, StoreError> {
        match self.objects.get(id.0 as usize) {
            Some(Place::Used(object)) => Ok(object),
            _ => Err(StoreError::NoObject),
        }
    }

    pub(super) fn object_mut(&mut self, id: ObjectId) -> Result<&mut Object, StoreError> {
        match self.objects.get_mut(id.0 as usize) {
            Some(Place::Used(object)) => Ok(object),
            _ => Err(StoreError::NoObject),
        }
    }

    /// The object of a page that it has.
    fn object_with(&self, id: ObjectId, page: u32) -> Result<&Object, ObjectError> {
        let object = self.object(id).map_err(|_| ObjectError::NoObject)?;
        if page < object.end() { Ok(object) } else { Err(ObjectError::PastEnd) }
    }

    /// A page that is there, and its object.
    pub(super) fn record(&self, id: ObjectId, page: u32) -> Result<(&Object, &Record), ObjectError> {
        let object = self.object_with(id, page)?;
        let record = self.index.get(key(id, page)).ok_or(ObjectError::NotReady(wait_for(id, page)))?;
        Ok((object, record))
    }

    /// The same, to be changed, and what its object is.
    pub(super) fn record_mut(&mut self, id: ObjectId, page: u32) -> Result<(Properties, &mut Record), ObjectError> {
        let properties = self.object_with(id, page)?.properties;
        let record = self.index.get_mut(key(id, page)).ok_or(ObjectError::NotReady(wait_for(id, page)))?;
        Ok((properties, record))
    }

    /// Whether this is the object's page.
    pub(super) fn is(&self, id: ObjectId, page: u32, frame: Pfn) -> bool {
        let record = self.record(id, page).ok();
        record.and_then(|(_, record)| record.here()).is_some_and(|page| page.frame() == frame)
    }

    pub(super) fn look<K: Env>(&mut self, kernel: &K, id: ObjectId, page: u32) -> Result<Look, ObjectError> {
        self.object_with(id, page)?;
        let record = self.index.get_mut(key(id, page));
        match record.map(|record| (&record.contents, &mut record.used)) {
            None => Ok(Look::Absent),
            Some((Contents::Here(page), used)) => {
                *used = true;
                page.get(kernel).map(Look::Here).ok_or(ObjectError::NoMemory)
            }
            Some((Contents::Reading(_), _)) => Err(ObjectError::NotReady(wait_for(id, page))),
            Some((Contents::Failed, _)) => {
                self.take(key(id, page));
                Err(ObjectError::Failed)
            }
        }
    }

    /// Gives an absent page a frame: a page of memory is there with that, one of a file is to be read.
    pub(super) fn fill<K: Env>(
        &mut self,
        kernel: &K,
        id: ObjectId,
        page: u32,
        frame: FreshPage,
    ) -> Result<Option<ReadRequest<FilePage>>, FreshPage> {
        let Ok(object) = self.object_with(id, page) else { return Err(frame) };
        let properties = object.properties;
        if self.index.is_full() || self.index.get(key(id, page)).is_some() {
            return Err(frame);
        }
        let ticket = self.next_ticket();
        let (contents, request) = if properties.file {
            let at = FilePage { object: id, page };
            (Contents::Reading(ticket), Some(ReadRequest { at, page: frame, ticket }))
        } else {
            (Contents::Here(finish(kernel, frame, properties)), None)
        };
        // There is room, and no such page.
        if self.index.insert(key(id, page), Record::new(contents)).is_ok() {
            if let Ok(object) = self.object_mut(id) {
                object.pages += 1;
            }
        }
        Ok(request)
    }

    /// Takes a page out.
    pub(super) fn take(&mut self, key: u64) -> Option<StoredPage> {
        let record = self.index.remove(key)?;
        if let Ok(object) = self.object_mut(object_of(key)) {
            object.pages -= 1;
        }
        match record.contents {
            Contents::Here(page) => Some(page),
            _ => None,
        }
    }

    /// Takes pages of an object out, as many as one hold of the lock may. False: that was all.
    pub(super) fn take_some(
        &mut self,
        id: ObjectId,
        pages: &Range<u32>,
        taken: &mut [Option<StoredPage>; STEP],
    ) -> bool {
        for place in taken {
            match self.index.from(key(id, pages.start)) {
                Some((found, _)) if found < key(id, pages.end) => *place = self.take(found),
                _ => return false,
            }
        }
        true
    }

    /// Shows `look` pages of an object that are in memory or on their way, as many as one hold of the lock may. Where to go on.
    pub(super) fn each_of(&self, id: ObjectId, pages: Range<u32>, mut look: impl FnMut(u32, &Record)) -> Option<u32> {
        let mut next = pages.start;
        for _ in 0..STEP {
            let (found, record) = self.index.from(key(id, next)).filter(|(found, _)| *found < key(id, pages.end))?;
            look(page_of(found), record);
            // The last page that an object can have is not the last number.
            next = page_of(found) + 1;
        }
        Some(next)
    }

    /// Takes a page out that is clean and that nobody else has, if there is one among the next `STEP` places: one that was not looked up since the last
    /// search, or else the first.
    pub(super) fn evict<K: Env>(&mut self, kernel: &K) -> Option<StoredPage> {
        let mut second = None;
        for _ in 0..STEP.min(self.index.places()) {
            let Some((key, record)) = self.next_of_a_file() else { continue };
            if is_idle(kernel, record) {
                if !record.used {
                    return self.take(key);
                }
                second = second.or(Some(key));
                record.used = false;
            }
        }
        self.take(second?)
    }

    /// Pages of files among the next `STEP` places that could go and were not looked up since the last search, and whether anybody else has
    /// them. The others get their chance.
    pub(super) fn unused<K: Env>(&mut self, kernel: &K, found: &mut [Option<(u64, bool)>; STEP]) {
        let mut places = found.iter_mut();
        for _ in 0..STEP.min(self.index.places()) {
            let Some((key, record)) = self.next_of_a_file() else { continue };
            let word = record.here().and_then(|page| page.snapshot(kernel));
            let Some(word) = word.filter(|word| record.writing.is_none() && word.pins == 0 && !word.dirty) else {
                continue;
            };
            if record.used {
                record.used = false;
            } else if let Some(place) = places.next() {
                *place = Some((key, !word.is_sole()));
            }
        }
    }

    /// The page at the place to which the hand goes on, if there is one of a file.
    fn next_of_a_file(&mut self) -> Option<(u64, &mut Record)> {
        self.hand = (self.hand + 1) % self.index.places();
        let (key, _) = self.index.at(self.hand)?;
        self.object(object_of(key)).ok().filter(|object| object.properties.file)?;
        Some((key, self.index.get_mut(key)?))
    }

    /// Takes this page out, if it is clean and nobody else has it.
    pub(super) fn take_idle<K: Env>(&mut self, kernel: &K, key: u64) -> Option<StoredPage> {
        if self.index.get(key).is_some_and(|record| is_idle(kernel, record)) { self.take(key) } else { None }
    }
}

/// Whether nothing would be lost with a page of a file. Who has it, has a reference, and gets it under the lock; an entry that went has
/// noted in the word whether it was written, in the step that gave its reference back.
fn is_idle<K: Env>(kernel: &K, record: &Record) -> bool {
    let is_sole = || {
        let word = record.here().and_then(|page| page.snapshot(kernel));
        word.is_some_and(|word| word.is_sole() && !word.dirty)
    };
    record.writing.is_none() && is_sole()
}

/// The page as its object has pages.
pub(super) fn finish<K: Env>(kernel: &K, frame: FreshPage, properties: Properties) -> StoredPage {
    if properties.pinnable { frame.finish(kernel) } else { frame.finish_closed() }
}

/// Pages are numbered by a `u32`, and so is the end of the last.
pub(super) fn check_length(length: u64) -> Result<(), StoreError> {
    if length.div_ceil(PAGE_SIZE) <= u64::from(u32::MAX) { Ok(()) } else { Err(StoreError::PastEnd) }
}
