//! A file against a plain vector of bytes: read and written by calls, by a process that shares it and through its pins, cut off and grown, while
//! the cache is small and the disk is late, or fails.

use std::ops::Range;

use pagepin::ObjectId;
use pagepin::fault::FaultError;
use pagepin::frame::Wide;
use pagepin::pin::{PinError, Write};
use pagepin::space::{Copies, Sharing};
use pagepin_store::{FilePage, Properties, Shown, StoreError, WhenPinned, WrittenBack};
use proptest::prelude::*;

use crate::machine::{A, PAGE, RW};

type Machine = crate::machine::Machine<Wide>;
type Process<'m> = crate::machine::Process<'m, Wide>;

/// More than the cache has room for.
const MOST: u64 = 20;

struct One<'p, 'm>(&'p Process<'m>);

impl Shown for One<'_, '_> {
    fn write_protect(&self, id: ObjectId, pages: Range<u32>) {
        self.0.write_protect_object(id, pages).unwrap();
    }

    fn forget(&self, id: ObjectId, pages: Range<u32>, copies: Copies) {
        self.0.forget_object(id, pages, copies).unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, usize, u8),
    Load(u64),
    Store(u64, u8),
    Pin(u64),
    Dma(u8),
    Unpin,
    SetLength(u64),
    WriteBack(bool),
    Discard,
    Evict(u32),
    Reclaim(u32),
    Punch(u32, u32),
    Late(bool),
    Fail(bool),
    EndRead(usize),
    EndWrite(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (at, page, byte) = (0..MOST * PAGE, 0..MOST, 1u8..);
    let step = prop_oneof![
        3 => (at.clone(), 1..9000usize).prop_map(|(at, length)| Step::Read(at, length)),
        3 => (at.clone(), 1..4000usize, byte.clone()).prop_map(|(at, length, byte)| Step::Write(at, length, byte)),
        3 => at.clone().prop_map(Step::Load),
        3 => (at.clone(), byte.clone()).prop_map(|(at, byte)| Step::Store(at, byte)),
        1 => page.prop_map(Step::Pin),
        2 => byte.prop_map(Step::Dma),
        1 => Just(Step::Unpin),
        1 => at.prop_map(Step::SetLength),
        2 => any::<bool>().prop_map(Step::WriteBack),
        1 => Just(Step::Discard),
        2 => (1..8u32).prop_map(Step::Evict),
        1 => (1..8u32).prop_map(Step::Reclaim),
        1 => (0..MOST as u32, 1..5u32).prop_map(|(first, pages)| Step::Punch(first, pages)),
        1 => any::<bool>().prop_map(Step::Late),
        1 => prop::bool::weighted(0.3).prop_map(Step::Fail),
        3 => (0..8usize).prop_map(Step::EndRead),
        3 => (0..8usize).prop_map(Step::EndWrite),
    ];
    proptest::collection::vec(step, 1..150)
}

fn may_wait(error: StoreError) -> bool {
    matches!(error, StoreError::NotReady(_) | StoreError::Failed | StoreError::NoMemory)
}

fn end_one(machine: &Machine, read: bool, which: usize) -> bool {
    let (cache, disk) = (machine.cache(), machine.cache().device());
    if read {
        disk.end_read(machine, which).map(|(request, result)| cache.read_ended(machine, request, result)).is_some()
    } else {
        disk.end_write(machine, which).map(|(request, result)| cache.write_ended(machine, request, result)).is_some()
    }
}

/// The file as it should be, which is as long as it is.
struct Reference {
    bytes: Vec<u8>,
    /// The page that is pinned, as long as the file has it.
    pinned: Option<u64>,
}

impl Reference {
    fn has(&self, at: u64) -> bool {
        at < self.bytes.len() as u64
    }

    fn punch(&mut self, first: u32, pages: u32) {
        let gone = u64::from(first) * PAGE..u64::from(first + pages) * PAGE;
        self.pinned = self.pinned.filter(|page| !gone.contains(&(page * PAGE)));
        let end = self.bytes.len();
        self.bytes[(gone.start as usize).min(end)..(gone.end as usize).min(end)].fill(0);
    }

    fn cut(&mut self, length: u64) {
        self.bytes.resize(length as usize, 0);
        self.pinned = self.pinned.filter(|page| page * PAGE < length);
    }
}

fn faults(error: &FaultError) -> bool {
    matches!(error, FaultError::NotReady(_) | FaultError::Failed | FaultError::NoMemory)
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let machine = Machine::new(128);
    let cache = machine.cache();
    cache.device().expect_calls();
    let file = cache.create(&machine, Properties::file(), MOST / 2 * PAGE).unwrap();
    let process = machine.process();
    process.map_object(A, MOST * PAGE, file, 0, Sharing::Shared, RW).unwrap();
    let mut reference = Reference { bytes: vec![0; (MOST / 2 * PAGE) as usize], pinned: None };
    let mut pin = None;
    let shown = One(&process);
    for step in steps {
        match step {
            Step::Read(at, length) => {
                let mut found = vec![0; length];
                match cache.read(&machine, file, at, &mut found) {
                    Ok(count) => {
                        let rest = reference.bytes.get(at as usize..).unwrap_or_default();
                        prop_assert_eq!(count, rest.len().min(length));
                        prop_assert!(found[..count] == rest[..count]);
                    }
                    Err(error) => prop_assert!(may_wait(error), "{:?}", error),
                }
            }
            Step::Write(at, length, byte) => {
                // Within one page: so it is written or not.
                let length = length.min((PAGE - at % PAGE) as usize);
                match cache.write(&machine, file, at, &vec![byte; length]) {
                    Ok(()) => reference.bytes[at as usize..][..length].fill(byte),
                    Err(StoreError::PastEnd) => prop_assert!(at + length as u64 > reference.bytes.len() as u64),
                    Err(error) => prop_assert!(may_wait(error), "{:?}", error),
                }
            }
            Step::Load(at) => match machine.load(0, &process, A + at, 1) {
                Ok(byte) if reference.has(at) => prop_assert_eq!(byte as u8, reference.bytes[at as usize]),
                Ok(_) => prop_assert!(reference.has(at - at % PAGE)),
                Err(FaultError::PastEnd) => prop_assert!(!reference.has(at - at % PAGE)),
                Err(error) => prop_assert!(faults(&error), "{:?}", error),
            },
            // What is behind the end, in its page, is nobody's.
            Step::Store(at, byte) if !reference.has(at - at % PAGE) || reference.has(at) => {
                match machine.store(0, &process, A + at, u64::from(byte), 1) {
                    Ok(()) => reference.bytes[at as usize] = byte,
                    Err(FaultError::PastEnd) => prop_assert!(!reference.has(at)),
                    Err(error) => prop_assert!(faults(&error), "{:?}", error),
                }
            }
            Step::Store(..) => {}
            Step::Pin(page) => match machine.pin::<Write>(&process, A + page * PAGE, 1) {
                Ok(pins) if pins.pages() == 1 => (pin, reference.pinned) = (Some(pins), Some(page)),
                Ok(_) => {}
                Err(PinError::PastEnd) => prop_assert!(!reference.has(page * PAGE)),
                Err(error) => {
                    let waits = matches!(error, PinError::NotReady(_) | PinError::Failed | PinError::NoMemory);
                    prop_assert!(waits, "{:?}", error);
                }
            },
            // A device writes, also when the page is no file's any more.
            Step::Dma(byte) => {
                for run in pin.iter().flat_map(|pin| pin.runs()) {
                    machine.dma_write(run.first().address(), &[byte]);
                    if let Some(page) = reference.pinned {
                        reference.bytes[(page * PAGE) as usize] = byte;
                    }
                }
            }
            Step::Unpin => (pin, reference.pinned) = (None, None),
            Step::SetLength(length) => match cache.set_length(&machine, &shown, file, length) {
                Ok(()) => reference.cut(length),
                Err(error) => prop_assert!(matches!(error, StoreError::NotReady(_)), "{:?}", error),
            },
            Step::WriteBack(bounce) => {
                let when = if bounce { WhenPinned::Bounce } else { WhenPinned::Defer };
                cache.write_back(&machine, &shown, file, 0..u32::MAX, when).unwrap();
            }
            Step::Discard => _ = process.discard(A, MOST * PAGE).unwrap(),
            Step::Evict(most) => _ = cache.evict(&machine, most),
            Step::Reclaim(most) => _ = cache.reclaim(&machine, &shown, most),
            Step::Punch(first, pages) => match cache.punch(&machine, &shown, file, first..first + pages) {
                Ok(()) => reference.punch(first, pages),
                Err(error) => prop_assert!(matches!(error, StoreError::NotReady(_)), "{:?}", error),
            },
            Step::Late(late) => cache.device().answer_late(late),
            Step::Fail(failing) => cache.device().fail(failing),
            Step::EndRead(which) => _ = end_one(&machine, true, which),
            Step::EndWrite(which) => _ = end_one(&machine, false, which),
        }
        prop_assert!(cache.resident(&machine) <= crate::kept::PAGES as usize);
    }
    cache.device().answer_late(false);
    cache.device().fail(false);
    while end_one(&machine, true, 0) || end_one(&machine, false, 0) {}
    drop(pin);
    // What failed before is said once, and written now.
    let done = cache.write_back(&machine, &shown, file, 0..u32::MAX, WhenPinned::Bounce).unwrap();
    prop_assert_eq!((done.bounced, done.deferred, done.busy), (0, 0, 0));
    let again = cache.write_back(&machine, &shown, file, 0..u32::MAX, WhenPinned::Bounce).unwrap();
    prop_assert_eq!(again, WrittenBack::default());
    for (page, bytes) in reference.bytes.chunks(PAGE as usize).enumerate() {
        let found = cache.device().get(FilePage { object: file, page: page as u32 });
        prop_assert!(found[..bytes.len()] == *bytes, "page {} on the disk", page);
    }
    machine.audit(&[&process], &Default::default());
    drop(process);
    cache.remove(&machine, file).unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_file_is_its_bytes(steps in steps()) {
        run(steps)?;
    }
}
