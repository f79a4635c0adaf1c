//! What this kernel's address spaces show: the file on the disk, behind a cache that is smaller than it, and memory that processes share. Each
//! has pages of its own, so that the one does not take the other's places.

use pagepin::{Access, Env, ObjectError, ObjectId, ObjectStore, PAGE_SIZE, Pfn, StoredPage};
use pagepin_abi::SHARED_MEMORY_PAGES;
use pagepin_store::{Cache, Properties};
use spin::Once;

use super::store::Queue;

/// Numbers from here on are memory's.
const MEMORY: u32 = 1 << 31;

/// The memory that all processes can show. It goes with the last of them.
static MEMORY_ID: Once<ObjectId> = Once::new();

pub struct Objects {
    pub files: Cache<Queue>,
    memory: Cache<()>,
}

impl Objects {
    pub fn new(files: Cache<Queue>) -> Option<Self> {
        Some(Self { files, memory: Cache::new((), 1, SHARED_MEMORY_PAGES as u32)? })
    }

    /// Once there is a kernel.
    pub fn create_memory(&self, kernel: &impl Env) {
        let id = self.memory.create(kernel, Properties::memory(), SHARED_MEMORY_PAGES * PAGE_SIZE);
        MEMORY_ID.call_once(|| id.expect("room for an object"));
    }

    /// Gives the pages of memory back, when no process is left that shows them.
    pub fn clear_memory(&self, kernel: &impl Env) {
        let id = *MEMORY_ID.get().expect("it was created");
        for length in [0, SHARED_MEMORY_PAGES * PAGE_SIZE] {
            self.memory.set_length(kernel, &(), id, length).expect("nobody else changes it");
        }
    }
}

/// The number by which address spaces know it.
pub fn memory() -> ObjectId {
    ObjectId(MEMORY_ID.get().expect("it was created").0 | MEMORY)
}

/// Does `work` with the store of an object, and the number that it has there.
macro_rules! with_store {
    ($self:ident, $id:ident, $store:ident => $work:expr) => {
        match $id.0 {
            memory @ MEMORY.. => {
                let ($store, $id) = (&$self.memory, ObjectId(memory - MEMORY));
                $work
            }
            _ => {
                let $store = &$self.files;
                $work
            }
        }
    };
}

impl ObjectStore for Objects {
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, access: Access) -> Result<StoredPage, ObjectError> {
        with_store!(self, id, store => store.page(kernel, id, page, access))
    }

    fn will_write(&self, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError> {
        with_store!(self, id, store => store.will_write(id, page, frame))
    }

    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool {
        with_store!(self, id, store => store.still(id, page, frame))
    }

    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError> {
        with_store!(self, id, store => store.may_pin(id, page))
    }

    fn is_written_back(&self, id: ObjectId) -> bool {
        with_store!(self, id, store => store.is_written_back(id))
    }

    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError> {
        with_store!(self, id, store => store.mapped(id, pages))
    }

    fn unmapped(&self, id: ObjectId, pages: u64) {
        with_store!(self, id, store => store.unmapped(id, pages));
    }
}
