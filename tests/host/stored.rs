//! Stores in safe code that are wrong about what they hold: bytes may be lost, memory is not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pagepin::fault::{Fault, FaultError};
use pagepin::frame::{CountError, FrameKind};
use pagepin::pin::{PhysRun, Write};
use pagepin::space::{Sharing, SpaceOptions, UserSpace};
use pagepin::{
    Access, Env, Extras, FrameTable, FreshPage, Levels, ObjectError, ObjectId, ObjectStore, Objects, Pfn, Rights,
    SlotStore, Stored, StoredPage, Token, TokenError, Tokens,
};

use crate::inspect::doc_kernel;

const START: u64 = 0x10000;
const RW: Rights = Rights::READ.union(Rights::WRITE);

/// Hands out whatever it was given, for whatever it is asked, and forgets what it gets.
#[derive(Default)]
struct Any(Mutex<Vec<StoredPage>>);

impl Any {
    fn add(&self, page: StoredPage) {
        self.0.lock().unwrap().push(page);
    }

    fn take(&self) -> Option<StoredPage> {
        self.0.lock().unwrap().pop()
    }
}

impl ObjectStore for Any {
    fn page<K: Env>(&self, _: &K, _: ObjectId, _: u32, _: Access) -> Result<StoredPage, ObjectError> {
        self.take().ok_or(ObjectError::PastEnd)
    }
    fn will_write(&self, _: ObjectId, _: u32, _: Pfn) -> Result<(), ObjectError> {
        Ok(())
    }
    fn still(&self, _: ObjectId, _: u32, _: Pfn) -> bool {
        true
    }
    fn may_pin(&self, _: ObjectId, _: u32) -> Result<(), ObjectError> {
        Ok(())
    }
    fn mapped(&self, _: ObjectId, _: u64) -> Result<(), ObjectError> {
        Ok(())
    }
    fn unmapped(&self, _: ObjectId, _: u64) {}
}

impl SlotStore for Any {
    fn reserve(&self) -> Result<Token, TokenError> {
        Token::new(0).ok_or(TokenError::Full)
    }
    fn fill<K: Env>(&self, _: &K, _: Token, page: StoredPage) {
        self.add(page);
    }
    fn duplicate(&self, _: Token) -> Result<(), TokenError> {
        Ok(())
    }
    fn release<K: Env>(&self, _: &K, _: Token) {}
    fn fetch<K: Env>(&self, _: &K, _: Token) -> Result<(), TokenError> {
        Ok(())
    }
    fn bring<K: Env>(&self, _: &K, _: Token) -> Result<StoredPage, TokenError> {
        self.take().ok_or(TokenError::Lost)
    }
}

fn write(address: u64) -> Fault {
    Fault { address, access: Access::Write, key_denied: false, malformed_table: false }
}

fn page_of(kernel: &impl Env, fresh: Option<FreshPage>, byte: u8) -> StoredPage {
    let mut fresh = fresh.unwrap();
    assert_eq!(*fresh.bytes(kernel).unwrap(), [0; 4096]);
    fresh.bytes(kernel).unwrap().fill(byte);
    fresh.finish(kernel)
}

/// A page of the other kind, or of another kernel, is refused, counted as a bug, and not mapped.
#[test]
fn a_page_of_another_kind_or_kernel_is_refused() {
    let (objects, slots) = (Stored(Any::default()), Stored(Any::default()));
    let kernel = doc_kernel::kernel().with_extras(Extras::new().objects(&objects).tokens(&slots));
    let other = doc_kernel::kernel();
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    space.map_object(START, 4 * 4096, ObjectId(0), 0, Sharing::Shared, RW).unwrap();
    space.map(2 * START, 4096, RW).unwrap();
    let before = kernel.source().free_frames();

    objects.0.add(page_of(&kernel, FreshPage::of_slot(&kernel), 1));
    assert_eq!(space.fault(write(START)), Err(FaultError::Failed));
    assert_eq!(kernel.source().free_frames(), before, "nothing was mapped, and the page is back");
    assert_eq!(kernel.statistics().bugs_caught, 1);
    objects.0.add(page_of(&other, FreshPage::of_object(&other), 1));
    assert_eq!(space.fault(write(START)), Err(FaultError::Failed));

    space.fault(write(2 * START)).unwrap();
    assert_eq!(space.swap_out(2 * START, 4096).unwrap().pages, 1);
    let went = slots.0.take().unwrap();
    slots.0.add(page_of(&kernel, FreshPage::of_object(&kernel), 1));
    assert_eq!(space.fault(write(2 * START)), Err(FaultError::Failed));
    assert_eq!(kernel.statistics().bugs_caught, 3);
    slots.0.add(went);
    space.fault(write(2 * START)).unwrap();
}

/// What a handle of the wrong kernel is asked is refused; nothing is done to the frame of that number.
#[test]
fn a_handle_is_of_one_kernel() {
    let (kernel, other) = (doc_kernel::kernel(), doc_kernel::kernel());
    let page = page_of(&kernel, FreshPage::of_object(&kernel), 7);
    let theirs = page_of(&other, FreshPage::of_object(&other), 8);
    assert_eq!(page.frame(), theirs.frame(), "the same number");
    let mut bytes = [0; 2];
    assert!(page.get(&other).is_none() && page.snapshot(&other).is_none());
    assert!(!page.copy_to(&other, 0, &mut bytes) && !page.copy_from(&other, 0, &bytes));
    assert_eq!(page.close(&other), Err(CountError::NotPinnable));
    page.open(&other);
    page.mark_dirty(&other);
    let word = other.frames().frame(theirs.frame()).unwrap().snapshot();
    assert_eq!((word.refs, word.dirty), (1, false));
    assert!(other.statistics().bugs_caught >= 7);
    let free = kernel.source().free_frames();
    let mut fresh = FreshPage::of_object(&kernel).unwrap();
    assert!(fresh.bytes(&other).is_none());
    fresh.put(&kernel);
    assert_eq!(kernel.source().free_frames(), free, "the frame is back");

    assert!(page.copy_to(&kernel, 4094, &mut bytes));
    assert_eq!(bytes, [7; 2]);
    assert!(!page.copy_to(&kernel, 4095, &mut bytes) && !page.copy_to(&kernel, usize::MAX, &mut bytes));
    assert!(!page.copy_from(&kernel, 4095, &bytes));
    assert!(!page.snapshot(&kernel).unwrap().dirty);
    assert!(page.copy_from(&kernel, 4094, &bytes) && page.snapshot(&kernel).unwrap().dirty);
    page.put(&kernel);
    theirs.put(&other);
    assert_eq!(kernel.statistics().bugs_caught, 0);
}

/// What is kept of a page that came from a slot cannot be written, and keeps others from taking the page for theirs alone.
#[test]
fn a_page_of_a_slot_stays_as_it_is() {
    let slots = Stored(Any::default());
    let kernel = doc_kernel::kernel().with_extras(Extras::new().tokens(&slots));
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    space.map(START, 4096, RW).unwrap();
    let page = space.range(START, 1).unwrap();
    space.pin(Write, page, [PhysRun::default(); 1]).unwrap().copy_from(0, &[5]).unwrap();
    assert_eq!(space.swap_out(START, 4096).unwrap().pages, 1);
    let went = slots.0.take().unwrap();
    assert_eq!(kernel.frames().frame(went.frame()).unwrap().kind(), FrameKind::Anonymous);
    assert_eq!(went.close(&kernel), Err(CountError::NotPinnable));
    assert!(!went.copy_from(&kernel, 0, &[6]));
    slots.0.add(went.get(&kernel).unwrap());
    let pinned = space.pin(Write, page, [PhysRun::default(); 1]).unwrap();
    pinned.copy_from(0, &[7]).unwrap();
    assert_ne!(pinned.runs()[0].first(), went.frame());
    let mut byte = [0];
    assert!(went.copy_to(&kernel, 0, &mut byte));
    assert_eq!(byte, [5]);
    went.put(&kernel);
}

/// Refuses what it can, and remembers what it is told.
#[derive(Default)]
struct Strict {
    told: AtomicU64,
}

impl ObjectStore for Strict {
    fn page<K: Env>(&self, _: &K, _: ObjectId, _: u32, _: Access) -> Result<StoredPage, ObjectError> {
        Err(ObjectError::PastEnd)
    }
    fn will_write(&self, _: ObjectId, _: u32, _: Pfn) -> Result<(), ObjectError> {
        Err(ObjectError::Denied)
    }
    fn still(&self, _: ObjectId, page: u32, _: Pfn) -> bool {
        page == 1
    }
    fn may_pin(&self, _: ObjectId, _: u32) -> Result<(), ObjectError> {
        Err(ObjectError::NotPinnable)
    }
    fn is_written_back(&self, _: ObjectId) -> bool {
        true
    }
    fn mapped(&self, _: ObjectId, _: u64) -> Result<(), ObjectError> {
        Err(ObjectError::NoObject)
    }
    fn unmapped(&self, _: ObjectId, pages: u64) {
        self.told.store(pages, Ordering::Relaxed);
    }
}

impl SlotStore for Strict {
    fn reserve(&self) -> Result<Token, TokenError> {
        Err(TokenError::Full)
    }
    fn fill<K: Env>(&self, kernel: &K, _: Token, page: StoredPage) {
        page.put(kernel);
    }
    fn duplicate(&self, _: Token) -> Result<(), TokenError> {
        Err(TokenError::Full)
    }
    fn release<K: Env>(&self, _: &K, token: Token) {
        self.told.store(token.number(), Ordering::Relaxed);
    }
    fn fetch<K: Env>(&self, _: &K, _: Token) -> Result<(), TokenError> {
        Err(TokenError::Lost)
    }
    fn bring<K: Env>(&self, _: &K, _: Token) -> Result<StoredPage, TokenError> {
        Err(TokenError::Lost)
    }
}

#[test]
fn every_question_reaches_the_store() {
    let (kernel, store, id, frame) = (doc_kernel::kernel(), Stored(Strict::default()), ObjectId(1), Pfn::new(3));
    let told = || store.0.told.load(Ordering::Relaxed);
    assert_eq!(store.will_write(&kernel, id, 0, frame), Err(ObjectError::Denied));
    assert!(store.still(id, 1, frame) && !store.still(id, 2, frame));
    assert_eq!(store.may_pin(id, 0), Err(ObjectError::NotPinnable));
    assert!(store.is_written_back(id) && !Stored(Any::default()).is_written_back(id));
    assert_eq!(store.mapped(id, 4), Err(ObjectError::NoObject));
    store.unmapped(&kernel, id, 4);
    assert_eq!(told(), 4);
    let token = Token::new(9).unwrap();
    assert_eq!(store.duplicate(token), Err(TokenError::Full));
    assert_eq!(store.fetch(&kernel, token), Err(TokenError::Lost));
    store.release(&kernel, token);
    assert_eq!(told(), 9);
}

/// Says once that what it is asked for is lost.
#[derive(Default)]
struct LostOnce {
    pages: Any,
    said: AtomicBool,
}

impl SlotStore for LostOnce {
    fn reserve(&self) -> Result<Token, TokenError> {
        self.pages.reserve()
    }
    fn fill<K: Env>(&self, _: &K, _: Token, page: StoredPage) {
        self.pages.add(page);
    }
    fn duplicate(&self, _: Token) -> Result<(), TokenError> {
        Ok(())
    }
    fn release<K: Env>(&self, _: &K, _: Token) {}
    fn fetch<K: Env>(&self, _: &K, _: Token) -> Result<(), TokenError> {
        if self.said.swap(true, Ordering::Relaxed) { Ok(()) } else { Err(TokenError::Lost) }
    }
    fn bring<K: Env>(&self, _: &K, _: Token) -> Result<StoredPage, TokenError> {
        self.pages.take().ok_or(TokenError::Lost)
    }
}

/// It may have been said of what the slot held before.
#[test]
fn what_is_said_to_be_lost_is_asked_for_once_more() {
    let slots = Stored(LostOnce::default());
    let kernel = doc_kernel::kernel().with_extras(Extras::new().tokens(&slots));
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    space.map(START, 4096, RW).unwrap();
    space.fault(write(START)).unwrap();
    assert_eq!(space.swap_out(START, 4096).unwrap().pages, 1);
    space.fault(write(START)).unwrap();
    assert!(slots.0.said.load(Ordering::Relaxed));
}
