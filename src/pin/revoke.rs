//! Getting a pin back: asking the drivers that hold long-term pins to give them up.
//!
//! A pin without an end keeps memory from being unmapped for good, moved or truncated. Whoever holds one registers it with a
//! [`Revocable`]; whoever needs the memory asks [`RevocableSet::ask`], with no lock held, and learns of each pin what came of it:
//! gone, later, or refused. What is done then is the kernel's: wait, go on and report, or reset the device.
//!
//! The set is a list that only grows, of entries that live as long as it does; a pin that is registered or given back changes its
//! entry's state and no link. So a look through the set takes no lock, ends, and may be taken by the drivers that are asked in it.

use core::fmt;
use core::ptr;

use crate::addr::{Pfn, UserRange};
use crate::errno::{EBUSY, EINVAL};
use crate::primitive::{AtomicU64, Ordering, const_fn, safeguard};

/// Nobody's, or being registered; registered; its driver is being asked; given back, quarantined, or kept and no longer registered,
/// while that was so.
const IDLE: u64 = 0;
const FILLING: u64 = 1;
const LIVE: u64 = 2;
const ASKED: u64 = 3;
pub(super) const GONE: u64 = 4;
pub(super) const LOST: u64 = 5;
pub(super) const KEPT: u64 = 6;
/// The rest of the state counts registrations.
const PHASE: u64 = 0b111;
const GENERATION: u64 = 0b1000;

/// Who can be asked for a pin: a driver.
pub trait Revoke: Sync {
    /// The pages of `range` are wanted. A driver that can drops its [`Held`](super::Held) pin here and now, or says when it will, or that it will
    /// not. It is called with no lock of the crate held, and may pin, unpin and ask.
    fn revoke(&self, range: UserRange) -> Answer;
}

/// What a driver says when it is asked for a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has given the pin back. Believed if it has.
    Granted,
    /// It will have by then, in a time of the kernel's own.
    Later(u64),
    /// It will not.
    Refused,
}

/// What became of a pin that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The frames are unpinned, whatever the driver said.
    Granted,
    /// The driver gave it up while its device was at work: the frames are in quarantine.
    Quarantined,
    /// It will be given back by then.
    Later(u64),
    /// It will not be; or the driver says that it was, and it was not; or it keeps the pin and was asked for the last time.
    Refused,
    /// Somebody else is asking for it at the moment.
    BeingAsked,
}

/// How many pins a range has that were asked for, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Unpinned.
    pub granted: u64,
    /// In quarantine.
    pub quarantined: u64,
    /// To be given back.
    pub later: u64,
    /// When the last of these will be.
    pub deadline: u64,
    /// Kept.
    pub refused: u64,
    /// Being asked for by somebody else.
    pub being_asked: u64,
}

impl Asked {
    /// Whether nobody who was asked holds a pin any more.
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        self.later + self.refused + self.being_asked == 0
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Granted => self.granted += 1,
            Outcome::Quarantined => self.quarantined += 1,
            Outcome::Later(deadline) => {
                self.later += 1;
                self.deadline = self.deadline.max(deadline);
            }
            Outcome::Refused => self.refused += 1,
            Outcome::BeingAsked => self.being_asked += 1,
        }
    }
}

/// Why a pin could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// It ends with its transfer: only what was pinned with [`PinFlags::LONGTERM`](super::PinFlags::LONGTERM) is worth asking for.
    NotLongTerm,
    /// The pages were pinned in another address space.
    OtherSpace,
    /// The entry is another pin's, or its last one's outcome is not known yet.
    InUse,
}

impl RegisterError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotLongTerm | Self::OtherSpace => EINVAL,
            Self::InUse => EBUSY,
        }
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLongTerm => "not a long-term pin",
            Self::OtherSpace => "pinned in another address space",
            Self::InUse => "the entry has a pin already",
        })
    }
}

impl core::error::Error for RegisterError {}

/// All pins of a kernel, or of a part of it, that can be asked for. Usually a static.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// struct Driver;
/// impl Revoke for Driver {
///     fn revoke(&self, _: UserRange) -> Answer {
///         Answer::Refused // its device cannot be stopped
///     }
/// }
/// static PINS: RevocableSet<'static> = RevocableSet::new();
/// static REQUEST: Revocable<'static> = Revocable::new(&PINS, &Driver);
/// let range = space.range(0x10000, 1)?;
/// let pinned = pin_user_pages(&space, Write, range, PinFlags::LONGTERM, [PhysRun::default(); 1])?.complete()?;
/// let held = pinned.register(&REQUEST, &space).map_err(|(_, error)| error)?;
/// PINS.ask(space.root(), range, |_, outcome| assert_eq!(outcome, Outcome::Refused));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RevocableSet<'a> {
    /// The address of the first [`Revocable`], which lives for `'a`.
    head: AtomicU64,
    registrations: AtomicU64,
    entries: core::marker::PhantomData<fn(&'a ()) -> &'a ()>,
}

/// A place in a set for one pin at a time, in the memory of its driver: an entry of a static table of requests, say.
pub struct Revocable<'a> {
    set: &'a RevocableSet<'a>,
    owner: &'a dyn Revoke,
    state: AtomicU64,
    linked: AtomicU64,
    next: AtomicU64,
    space: AtomicU64,
    start: AtomicU64,
    length: AtomicU64,
    born: AtomicU64,
}

impl<'a> RevocableSet<'a> {
    const_fn! {
        /// An empty one.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "const, and a model checker's atomics have no Default")]
        pub const fn new() -> Self {
            let (head, registrations) = (AtomicU64::new(0), AtomicU64::new(0));
            Self { head, registrations, entries: core::marker::PhantomData }
        }
    }

    /// Asks for every pin of a page of `range` in the address space with top table `space`, and tells `each` what became of it.
    /// Pins that are registered meanwhile are not asked for; whoever wants none to come makes the pages unpinnable first.
    ///
    /// The caller holds no lock that a driver may want.
    pub fn ask(&self, space: Pfn, range: UserRange, mut each: impl FnMut(UserRange, Outcome)) -> Asked {
        let (mut asked, limit) = (Asked::default(), self.registrations.load(Ordering::Relaxed));
        // Acquires the links that were stored before an entry became the first.
        let mut next = self.head.load(Ordering::Acquire);
        while let Some(entry) = self.entry(next) {
            if let Some((of, outcome)) = entry.ask(space, range, limit) {
                asked.count(outcome);
                each(of, outcome);
            }
            next = entry.next.load(Ordering::Relaxed);
        }
        asked
    }

    fn entry(&self, address: u64) -> Option<&'a Revocable<'a>> {
        let entry = ptr::with_exposed_provenance::<Revocable<'a>>(address as usize);
        // SAFETY: only `link` stores addresses, of entries that are borrowed for `'a` and so are neither moved nor gone while the set,
        // whose type names that lifetime, is there. 0 is none.
        unsafe { entry.as_ref() }
    }

    /// Puts an entry at the front, once.
    fn link(&self, entry: &'a Revocable<'a>) {
        if entry.linked.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let address = ptr::from_ref(entry).expose_provenance() as u64;
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            entry.next.store(head, Ordering::Relaxed);
            // Releases the link to whoever asks.
            match self.head.compare_exchange_weak(head, address, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

impl<'a> Revocable<'a> {
    const_fn! {
        /// A free place in `set`. Whoever asks for the pin that it will have asks `owner`.
        #[must_use]
        pub const fn new(set: &'a RevocableSet<'a>, owner: &'a dyn Revoke) -> Self {
            Self {
                set,
                owner,
                state: AtomicU64::new(IDLE),
                linked: AtomicU64::new(0),
                next: AtomicU64::new(0),
                space: AtomicU64::new(0),
                start: AtomicU64::new(0),
                length: AtomicU64::new(0),
                born: AtomicU64::new(0),
            }
        }
    }

    /// Whoever asks for pages of that range asks for this pin from now on.
    pub(super) fn register(&'a self, space: Pfn, range: UserRange) -> Result<(), RegisterError> {
        let state = self.state.load(Ordering::Relaxed);
        let generation = (state & !PHASE).wrapping_add(GENERATION);
        let filling = generation | FILLING;
        // Acquires what the last one to ask has read here.
        let taken = || self.state.compare_exchange(state, filling, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if state & PHASE != IDLE || !taken() {
            return Err(RegisterError::InUse);
        }
        self.space.store(space.number(), Ordering::Relaxed);
        self.start.store(range.start(), Ordering::Relaxed);
        self.length.store(range.length(), Ordering::Relaxed);
        self.born.store(self.set.registrations.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        // With the acquiring look of who asks: who finds it registered finds what was stored above.
        self.state.store(generation | LIVE, Ordering::Release);
        self.set.link(self);
        Ok(())
    }

    /// The registration ends: with the pin, with its frames in quarantine (`LOST`), or without it (`KEPT`).
    pub(super) fn release(&self, end: u64) {
        let over = |state: u64| match state & PHASE {
            // Whoever asks finds out what has become of the pin.
            ASKED => Some(state & !PHASE | end),
            LIVE => Some(state & !PHASE | IDLE),
            _ => None,
        };
        // Releases the end of the pin to who asked for it, or will register the next.
        let order = safeguard!(RevokeOrdering: Ordering::Release);
        let _ = self.state.fetch_update(order, Ordering::Relaxed, over);
    }

    /// What became of the pin when it was asked for; nothing if there is none in that range, or a new one.
    fn ask(&self, space: Pfn, wanted: UserRange, limit: u64) -> Option<(UserRange, Outcome)> {
        let state = self.state.load(Ordering::Acquire);
        if !matches!(state & PHASE, LIVE | ASKED) {
            return None;
        }
        let range = UserRange::checked_before(self.start.load(Ordering::Relaxed), self.length.load(Ordering::Relaxed));
        let here = self.space.load(Ordering::Relaxed) == space.number();
        let old = self.born.load(Ordering::Relaxed) < limit;
        let overlaps = range.first_page() < wanted.end_page() && wanted.first_page() < range.end_page();
        if !here || !old || !overlaps {
            return None;
        }
        let asked = state & !PHASE | ASKED;
        // Fails if what was read above may be of another registration. Acquires and releases: see `register`.
        match self.state.compare_exchange(state & !PHASE | LIVE, asked, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {}
            Err(now) if now == asked => return Some((range, Outcome::BeingAsked)),
            // It ended by itself.
            Err(_) => return None,
        }
        let answer = self.owner.revoke(range);
        let kept = self.state.compare_exchange(asked, state & !PHASE | LIVE, Ordering::Release, Ordering::Acquire);
        let outcome = match (kept, answer) {
            (Ok(_), Answer::Later(deadline)) => Outcome::Later(deadline),
            (Ok(_), Answer::Refused | Answer::Granted) => Outcome::Refused,
            (Err(now), _) => {
                // The end of the pin was acquired just now. Only who asked leaves this state.
                self.state.store(now & !PHASE | IDLE, Ordering::Release);
                match now & PHASE {
                    GONE => Outcome::Granted,
                    LOST => Outcome::Quarantined,
                    _ => Outcome::Refused,
                }
            }
        };
        Some((range, outcome))
    }
}

impl fmt::Debug for Revocable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocable").field("state", &self.state).finish_non_exhaustive()
    }
}
