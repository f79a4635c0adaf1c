//! What a kernel implements may be handed over by reference: every question then reaches who implements it.

use std::sync::Mutex;

use pagepin::frame::{PageFrame, Wide};
use pagepin::pin::PhysRun;
use pagepin::{
    Access, DeviceFrames, FlushRange, FrameRequest, FrameSource, FrameTable, LeafSize, ObjectError, ObjectId, Objects,
    Pfn, PinLedger, PinRecord, ReadSide, Shootdown, SwitchMm, Token, TokenError, Tokens,
};

use crate::machine::Machine;

/// Says what it was asked, and gives answers that no default gives.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl Asked {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

const FRAME: Pfn = Pfn::new(0x42);
const ROOT: Pfn = Pfn::new(0x7);
const ID: ObjectId = ObjectId(5);

// SAFETY: nobody maps what it answers.
unsafe impl Objects for Asked {
    fn page<K: pagepin::Env>(&self, _: &K, _: ObjectId, page: u32, _: Access) -> Result<Pfn, ObjectError> {
        self.note(format!("page {page}"));
        Ok(FRAME)
    }
    fn will_write<K: pagepin::Env>(&self, _: &K, _: ObjectId, page: u32, _: Pfn) -> Result<(), ObjectError> {
        self.note(format!("will write {page}"));
        Err(ObjectError::PastEnd)
    }
    fn still(&self, _: ObjectId, page: u32, _: Pfn) -> bool {
        self.note(format!("still {page}"));
        page == 1
    }
    fn may_pin(&self, _: ObjectId, page: u32) -> Result<(), ObjectError> {
        self.note(format!("may pin {page}"));
        Err(ObjectError::NotPinnable)
    }
    fn is_written_back(&self, _: ObjectId) -> bool {
        self.note("written back");
        true
    }
    fn mapped(&self, _: ObjectId, pages: u64) -> Result<(), ObjectError> {
        self.note(format!("mapped {pages}"));
        Err(ObjectError::NoObject)
    }
    fn unmapped<K: pagepin::Env>(&self, _: &K, _: ObjectId, pages: u64) {
        self.note(format!("unmapped {pages}"));
    }
}

#[test]
fn an_object_is_asked_through_a_reference() {
    fn ask(objects: impl Objects, kernel: &Machine) {
        assert_eq!(objects.page(&kernel, ID, 1, Access::Read), Ok(FRAME));
        assert_eq!(objects.will_write(&kernel, ID, 2, FRAME), Err(ObjectError::PastEnd));
        assert!(objects.still(ID, 1, FRAME) && !objects.still(ID, 3, FRAME));
        assert_eq!(objects.may_pin(ID, 4), Err(ObjectError::NotPinnable));
        assert!(objects.is_written_back(ID));
        assert_eq!(objects.mapped(ID, 6), Err(ObjectError::NoObject));
        objects.unmapped(&kernel, ID, 7);
    }
    let (asked, machine) = (Asked::default(), Machine::new(64));
    ask(&asked, &machine);
    let heard = ["page 1", "will write 2", "still 1", "still 3", "may pin 4", "written back", "mapped 6", "unmapped 7"];
    assert_eq!(asked.heard(), heard);
}

#[test]
fn without_objects_every_question_has_an_answer() {
    let machine = &Machine::<Wide>::new(64);
    assert_eq!(().page(&machine, ID, 0, Access::Read), Err(ObjectError::NoObject));
    assert_eq!(().will_write(&machine, ID, 0, FRAME), Err(ObjectError::NoObject));
    assert!(!Objects::still(&(), ID, 0, FRAME) && !().is_written_back(ID));
    assert_eq!(().may_pin(ID, 0), Err(ObjectError::NoObject));
    assert_eq!(().mapped(ID, 1), Err(ObjectError::NoObject));
}

// SAFETY: no entry holds its tokens.
unsafe impl Tokens for Asked {
    fn reserve(&self) -> Result<Token, TokenError> {
        self.note("reserve");
        Ok(Token::new(9).unwrap())
    }
    unsafe fn fill<K: pagepin::Env>(&self, _: &K, token: Token, _: Pfn) {
        self.note(format!("fill {}", token.number()));
    }
    fn duplicate(&self, token: Token) -> Result<(), TokenError> {
        self.note(format!("duplicate {}", token.number()));
        Err(TokenError::Full)
    }
    fn release<K: pagepin::Env>(&self, _: &K, token: Token) {
        self.note(format!("release {}", token.number()));
    }
    fn fetch<K: pagepin::Env>(&self, _: &K, token: Token) -> Result<(), TokenError> {
        self.note(format!("fetch {}", token.number()));
        Err(TokenError::Lost)
    }
    fn bring<K: pagepin::Env>(&self, _: &K, token: Token) -> Result<Pfn, TokenError> {
        self.note(format!("bring {}", token.number()));
        Ok(FRAME)
    }
}

#[test]
fn a_store_of_pages_is_asked_through_a_reference() {
    fn ask(tokens: impl Tokens, kernel: &Machine) {
        let of = |number| Token::new(number).unwrap();
        assert_eq!(tokens.reserve(), Ok(of(9)));
        // SAFETY: nobody looks.
        unsafe { tokens.fill(&kernel, of(1), FRAME) };
        assert_eq!(tokens.duplicate(of(2)), Err(TokenError::Full));
        tokens.release(&kernel, of(3));
        assert_eq!(tokens.fetch(&kernel, of(4)), Err(TokenError::Lost));
        assert_eq!(tokens.bring(&kernel, of(5)), Ok(FRAME));
    }
    let (asked, machine) = (Asked::default(), Machine::new(64));
    ask(&asked, &machine);
    assert_eq!(asked.heard(), ["reserve", "fill 1", "duplicate 2", "release 3", "fetch 4", "bring 5"]);
}

#[test]
fn without_a_store_every_question_has_an_answer() {
    let (machine, token) = (&Machine::<Wide>::new(64), Token::new(1).unwrap());
    assert_eq!(().reserve(), Err(TokenError::Full));
    assert_eq!(().duplicate(token), Err(TokenError::Lost));
    assert_eq!(Tokens::fetch(&(), &machine, token), Err(TokenError::Lost));
    assert_eq!(().bring(&machine, token), Err(TokenError::Lost));
}

// SAFETY: no CPU walks the tables of this test.
unsafe impl Shootdown for Asked {
    fn flush(&self, root: Pfn, range: FlushRange) {
        self.note(format!("flush {root:?} {}", matches!(range, FlushRange::Everything)));
    }
    fn leave_mm(&self, root: Pfn) {
        self.note(format!("leave {root:?}"));
    }
    fn entries_added(&self, root: Pfn) {
        self.note(format!("added {root:?}"));
    }
    fn before_execute(&self, root: Pfn, frame: Pfn, _: LeafSize) {
        self.note(format!("execute {root:?} {frame:?}"));
    }
}

// SAFETY: as above.
unsafe impl SwitchMm for Asked {
    unsafe fn switch_mm(&self, root: Pfn) {
        self.note(format!("switch {root:?}"));
    }
    fn enter_lazy_tlb(&self) {
        self.note("lazy");
    }
    fn is_current(&self, root: Pfn) -> bool {
        root == ROOT
    }
}

// SAFETY: as above.
unsafe impl ReadSide for Asked {
    type Guard<'a> = ();
    fn enter(&self) {
        self.note("enter");
    }
    fn synchronize(&self) {
        self.note("synchronize");
    }
}

#[test]
fn what_the_processors_do_is_asked_through_a_reference() {
    fn ask(cpus: impl SwitchMm + ReadSide) {
        cpus.flush(ROOT, FlushRange::Everything);
        cpus.leave_mm(ROOT);
        cpus.entries_added(ROOT);
        cpus.before_execute(ROOT, FRAME, LeafSize::Size4KiB);
        // SAFETY: nothing is loaded.
        unsafe { cpus.switch_mm(ROOT) };
        cpus.enter_lazy_tlb();
        assert!(cpus.is_current(ROOT) && !cpus.is_current(FRAME));
        drop(cpus.enter());
        cpus.synchronize();
    }
    let asked = Asked::default();
    ask(&asked);
    let heard = asked.heard();
    let [root, frame] = [ROOT, FRAME].map(|frame| format!("{frame:?}"));
    let expected = [
        format!("flush {root} true"),
        format!("leave {root}"),
        format!("added {root}"),
        format!("execute {root} {frame}"),
        format!("switch {root}"),
        "lazy".to_owned(),
        "enter".to_owned(),
        "synchronize".to_owned(),
    ];
    assert_eq!(heard, expected);
}

// SAFETY: it has no frames.
unsafe impl FrameSource for Asked {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        self.note(format!("allocate {}", request.order));
        None
    }
    unsafe fn free(&self, frame: Pfn, order: u8) {
        self.note(format!("free {frame:?} {order}"));
    }
    unsafe fn free_run(&self, first: Pfn, count: u64) {
        self.note(format!("free run {first:?} {count}"));
    }
    fn zero_frame(&self) -> Option<Pfn> {
        Some(FRAME)
    }
    fn may_stay(&self, frame: Pfn) -> bool {
        frame == ROOT
    }
}

// SAFETY: it knows no frame.
unsafe impl FrameTable for Asked {
    type Layout = Wide;
    fn frame(&self, frame: Pfn) -> Option<&PageFrame> {
        self.note(format!("frame {frame:?}"));
        None
    }
    fn for_each_span(&self, _: &mut dyn FnMut(Pfn, &[PageFrame])) -> bool {
        self.note("spans");
        true
    }
}

#[test]
fn frames_are_asked_for_through_a_reference() {
    fn ask(frames: impl FrameSource + FrameTable) {
        assert_eq!(frames.allocate(FrameRequest::movable(3)), None);
        // SAFETY: there are none.
        unsafe {
            frames.free(FRAME, 2);
            frames.free_run(FRAME, 4);
        }
        assert_eq!(frames.zero_frame(), Some(FRAME));
        assert!(frames.may_stay(ROOT) && !frames.may_stay(FRAME));
        assert!(frames.frame(FRAME).is_none() && frames.run(FRAME, 2).is_none());
        assert!(frames.for_each_span(&mut |_, _| ()));
        assert_eq!(frames.leaks(&mut |_, _| ()), Some(0));
    }
    let asked = Asked::default();
    ask(&asked);
    let frame = format!("{FRAME:?}");
    let expected =
        ["allocate 3", &format!("free {frame} 2"), &format!("free run {frame} 4"), &format!("frame {frame}")];
    assert_eq!(asked.heard(), [&expected[..], &["spans", "spans"]].concat());
}

/// A driver that has one frame.
struct OneFrame<'a>(&'a Asked);

// SAFETY: it gives out none.
unsafe impl DeviceFrames for OneFrame<'_> {
    fn released(&self, frame: Pfn, order: u8) {
        self.0.note(format!("released {frame:?} {order}"));
    }
    fn of_one_owner(&self, first: Pfn, _: u64) -> u64 {
        self.0.note(format!("owner {first:?}"));
        1
    }
}

#[test]
fn drivers_are_asked_through_a_reference() {
    fn ask(frames: impl DeviceFrames) {
        frames.released(FRAME, 3);
        assert_eq!(frames.of_one_owner(FRAME, 7), 1);
    }
    let asked = Asked::default();
    let driver = OneFrame(&asked);
    ask(&driver);
    assert_eq!(driver.0.heard(), [format!("released {FRAME:?} 3"), format!("owner {FRAME:?}")]);
    assert_eq!(().of_one_owner(FRAME, 7), 7, "all are nobody's");
}

/// All that a ledger hears that need not listen.
impl PinLedger for Asked {
    type Ticket = u8;
    fn record(&self, _: &PinRecord<'_>) -> u8 {
        7
    }
    fn forget(&self, ticket: u8) {
        self.note(format!("forget {ticket}"));
    }
    fn retag(&self, ticket: u8, tag: u64) {
        self.note(format!("retag {ticket} {tag}"));
    }
    fn quarantine(&self, ticket: u8) {
        self.note(format!("quarantine {ticket}"));
    }
    fn released_by_number(&self, run: PhysRun) {
        self.note(format!("released {}", run.pages()));
    }
}

#[test]
fn a_ledger_is_told_through_a_reference() {
    fn tell(ledger: impl PinLedger<Ticket = u8>) {
        ledger.forget(1);
        ledger.retag(2, 3);
        ledger.quarantine(4);
        ledger.released_by_number(PhysRun::default());
    }
    let asked = Asked::default();
    tell(&asked);
    let pages = PhysRun::default().pages();
    assert_eq!(asked.heard(), ["forget 1", "retag 2 3", "quarantine 4", &format!("released {pages}")]);
}

/// Has frames, and no list of them.
struct Unlisted;

// SAFETY: it knows no frame.
unsafe impl FrameTable for Unlisted {
    type Layout = Wide;
    fn frame(&self, _: Pfn) -> Option<&PageFrame> {
        None
    }
}

#[test]
fn a_table_that_lists_nothing_does_not_say_that_nothing_is_used() {
    assert_eq!(Unlisted.leaks(&mut |_, _| ()), None);
    assert!(Unlisted.run(FRAME, 1).is_none());
}
