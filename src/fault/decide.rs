//! The copy-on-write / unshare decision as a pure function, and its whole table.
//!
//! `decide` looks at four small values and touches nothing. The driver in `resolve` carries the action out, judges the
//! frame once more when it owns the entry, and asks again whenever it was too late.

#![forbid(unsafe_code)]

use crate::addr::{PAGE_SIZE, PageAddr, UserRange};
use crate::arch::MemoryType;
use crate::rights::{Access, Rights};
use crate::vma::{Backing, MapOptions, ObjectId, Terms, Vma};

/// What an entry maps, by its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Empty,
    /// A frame without rights: it was protected away.
    ProtNone,
    /// The zero frame.
    Zero,
    /// An anonymous frame.
    Anonymous {
        /// The entry permits writes.
        writable: bool,
        /// What its frame's word says.
        frame: FrameView,
    },
    /// A counted frame that is not this mm's, whatever its count says: an object's page, or a driver's memory. In a
    /// private VMA it is read as it is, and copied for everything else.
    Borrowed {
        /// The entry permits writes.
        writable: bool,
    },
    /// A token: the page is elsewhere.
    Token,
    /// A frame that is not the crate's to count: device registers, foreign memory.
    Foreign {
        /// The entry permits writes.
        writable: bool,
    },
}

/// What matters of an anonymous frame's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameView {
    /// `EXCLUSIVE`: no other mm maps it.
    pub exclusive: bool,
    /// The mapping at hand is its only reference (INV-7).
    pub sole: bool,
}

/// What is asked of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A load.
    Read,
    /// A store, or a write pin.
    Write,
    /// An instruction fetch.
    Execute,
    /// A read pin: the page must be this mm's own, without becoming writable.
    Unshare,
    /// A store by a debugger: the VMA may forbid writes now, as long as it may be given them (INV-9).
    ForcedWrite,
}

impl Request {
    /// What user code asks.
    pub(crate) const fn of(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
            Access::Execute => Self::Execute,
        }
    }

    /// What is done with the page then.
    pub(super) const fn access(self) -> Access {
        match self {
            Self::Read | Self::Unshare => Access::Read,
            Self::Write | Self::ForcedWrite => Access::Write,
            Self::Execute => Access::Execute,
        }
    }
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The access is not permitted.
    Refuse(Refusal),
    /// The entry already grants it: a stale TLB entry, or another CPU was faster.
    Nothing,
    /// Map the zero frame, read-only.
    MapZero,
    /// Map a cleared frame of its own.
    MapFresh {
        /// Writable at once.
        writable: bool,
    },
    /// The frame is `EXCLUSIVE`: make the entry writable.
    Reuse,
    /// Nobody else refers to the frame: set `EXCLUSIVE`, then make the entry writable if asked. If the claim fails
    /// because of a momentary reference: copy.
    Claim {
        /// Make the entry writable as well.
        writable: bool,
    },
    /// Break, flush, and publish a copy (cleared, if the zero frame was mapped).
    Copy {
        /// Writable at once.
        writable: bool,
    },
    /// Bring a prot-none frame back, read-only, and ask again.
    RestoreRights,
    /// Bring the token's page back, read-only, and ask again.
    Bring,
    /// Map the object's page, read-only, and ask again.
    MapObject,
    /// Map a copy of the object's page.
    CopyObject {
        /// Writable at once.
        writable: bool,
    },
    /// Ask the object, then make the entry of its page writable.
    WriteObject,
}

/// Why an access is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The VMA lacks the right.
    Denied,
    /// Foreign memory without an entry, or that cannot be unshared.
    Foreign,
}

/// Whether `vma` permits `request` at all, whatever its entries say. Also asked before a page that is already there
/// is pinned: the logical right is the VMA's, never the entry's.
#[must_use]
#[inline(always)]
pub(crate) fn permits(vma: Terms, request: Request) -> bool {
    match request {
        Request::Read | Request::Unshare => !vma.rights().is_empty(),
        Request::Write => vma.rights().contains(Rights::WRITE),
        Request::Execute => vma.rights().contains(Rights::EXECUTE),
        // Not where all rights were taken away: the entry of such a page must stay out of hardware's reach.
        Request::ForcedWrite => {
            vma.max_rights().contains(Rights::WRITE) && vma.is_private() && !vma.rights().is_empty()
        }
    }
}

/// What to do when `request` meets an entry in `state` in `vma`.
#[must_use]
#[inline(always)]
pub(crate) fn decide(state: State, vma: Terms, request: Request) -> Action {
    if !permits(vma, request) {
        return Action::Refuse(Refusal::Denied);
    }
    let writable = vma.rights().contains(Rights::WRITE);
    let writes = matches!(request, Request::Write | Request::ForcedWrite);
    // A forced write gets its own frame, but the entry never says more than the VMA does.
    let writable_after = writes && writable;
    let state = match state {
        // What a foreign VMA maps, its owner answers for.
        State::Borrowed { writable } if vma.is_foreign() => State::Foreign { writable },
        state => state,
    };
    match state {
        State::Empty if !vma.is_anonymous() => decide_empty(vma, request, writable_after),
        State::Empty if matches!(request, Request::Read | Request::Execute) => Action::MapZero,
        State::Empty => Action::MapFresh { writable: writable_after },
        State::ProtNone => Action::RestoreRights,
        State::Token if vma.is_private() => Action::Bring,
        State::Token => Action::Refuse(Refusal::Foreign),
        State::Zero if writes || request == Request::Unshare => Action::Copy { writable: writable_after },
        State::Zero => Action::Nothing,
        State::Borrowed { writable: false } if vma.is_shared() && writes => Action::WriteObject,
        State::Borrowed { .. } if vma.is_shared() => Action::Nothing,
        State::Borrowed { .. } if writes || request == Request::Unshare => Action::Copy { writable: writable_after },
        State::Borrowed { .. } => Action::Nothing,
        State::Foreign { .. } if matches!(request, Request::Unshare | Request::ForcedWrite) => {
            Action::Refuse(Refusal::Foreign)
        }
        State::Foreign { writable: false } if writes => Action::Refuse(Refusal::Denied),
        State::Foreign { .. } => Action::Nothing,
        State::Anonymous { writable: now, frame } => match (writes, request == Request::Unshare) {
            (false, false) => Action::Nothing,
            _ if frame.exclusive && (now || !writable_after) => Action::Nothing,
            // It is the object's, which is asked first. (Exclusive says there that it is open to pins.)
            _ if vma.is_shared() => Action::WriteObject,
            _ if frame.exclusive => Action::Reuse,
            _ if frame.sole => Action::Claim { writable: writable_after },
            _ => Action::Copy { writable: writable_after },
        },
    }
}

/// What to do where a VMA that is not anonymous maps nothing.
#[inline(always)]
fn decide_empty(vma: Terms, request: Request, writable: bool) -> Action {
    let reads = matches!(request, Request::Read | Request::Execute);
    match (vma.is_foreign(), vma.is_shared() || reads) {
        (true, _) => Action::Refuse(Refusal::Foreign),
        (false, true) => Action::MapObject,
        (false, false) => Action::CopyObject { writable },
    }
}

/// One line of the decision table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the entry maps.
    pub state: State,
    /// Rights of the VMA now.
    pub rights: Rights,
    /// Rights it may be given.
    pub max_rights: Rights,
    /// What fills it.
    pub backing: Backing,
    /// What is asked.
    pub request: Request,
    /// What is done.
    pub action: Action,
}

/// Every combination of entry state, rights, backing and request, with the decision. Impossible ones (INV-1: writable
/// but not `EXCLUSIVE`) are left out.
pub fn all_rows() -> impl Iterator<Item = Row> {
    const REQUESTS: [Request; 5] =
        [Request::Read, Request::Write, Request::Execute, Request::Unshare, Request::ForcedWrite];
    const READ_EXECUTE: Rights = Rights::READ.union(Rights::EXECUTE);
    const RIGHTS: [(Rights, Rights); 6] = [
        (Rights::empty(), Rights::READ),
        (Rights::empty(), Rights::all()),
        (Rights::READ, Rights::READ),
        (Rights::READ, Rights::all()),
        (READ_EXECUTE, Rights::all()),
        (Rights::READ.union(Rights::WRITE), Rights::all()),
    ];
    let anonymous = |writable, exclusive, sole| State::Anonymous { writable, frame: FrameView { exclusive, sole } };
    let anonymous_states = [
        State::Empty,
        State::ProtNone,
        State::Zero,
        anonymous(false, false, false),
        anonymous(false, false, true),
        anonymous(false, true, false),
        anonymous(false, true, true),
        anonymous(true, true, false),
        anonymous(true, true, true),
        State::Borrowed { writable: false },
        State::Token,
    ];
    let foreign_states = [
        State::Empty,
        State::Foreign { writable: false },
        State::Foreign { writable: true },
        State::Borrowed { writable: false },
        State::Borrowed { writable: true },
    ];
    // A page of an object that is open to pins is exclusive as private memory is.
    let object_states = [
        State::Empty,
        State::ProtNone,
        anonymous(false, true, false),
        anonymous(true, true, false),
        State::Borrowed { writable: false },
        State::Borrowed { writable: true },
    ];
    let object = |shared| Backing::Object { id: ObjectId(1), page: 0, shared };
    let states = (anonymous_states.into_iter().map(|state| (state, Backing::Anonymous)))
        .chain(foreign_states.into_iter().map(|state| (state, Backing::Foreign(MemoryType::UNCACHED))))
        .chain(
            anonymous_states.into_iter().filter(|state| *state != State::Zero).map(move |state| (state, object(false))),
        )
        .chain(object_states.into_iter().map(move |state| (state, object(true))));
    states.flat_map(|(state, backing)| {
        RIGHTS.into_iter().flat_map(move |(rights, max_rights)| {
            let somewhere = UserRange::of_pages(PageAddr::containing(0), PageAddr::containing(PAGE_SIZE));
            let vma = Vma::new(somewhere, backing, MapOptions::new(rights).max_rights(max_rights));
            vma.into_iter().flat_map(move |vma| {
                REQUESTS.into_iter().map(move |request| {
                    let action = decide(state, vma.terms(), request);
                    Row { state, rights, max_rights, backing, request, action }
                })
            })
        })
    })
}
