//! The matrix: one page of each kind, shared by a fork before or after it is held, held in each way, and what operations leave of its bytes.
//!
//! [`cases`] makes them up. [`play`] plays one in a [`World`] and beside it in a [`Reference`], which knows nothing of frames, entries or counts:
//! what user space was promised. Wherever the two can be compared they are, byte for byte.

mod reference;

use crate::forms::{FORMS, Form};
use reference::Reference;

/// What is at the page before anybody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Written by its process.
    Base,
    /// Never touched.
    Untouched,
    /// Read and never written: the frame of zeroes.
    Zero,
    /// Written elsewhere, and moved to where it is.
    Moved,
    /// In a slot that remembers its frame.
    Swapped,
    /// In a slot, and its frame went to somebody else.
    WrittenOut,
    /// One frame with a page of another process that had the same bytes.
    Merged,
    /// A page of an object, shown in a private VMA.
    Borrowed,
    /// The same, written by the process.
    Copied,
    /// A page of an object, shown in a shared VMA.
    Shared,
    /// Written by its process, in a VMA that nobody may pin.
    Secret,
    /// A page of an object, shown in a shared VMA that nobody may pin.
    SharedSecret,
    /// Registers of a device.
    Foreign,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Base,
        Self::Untouched,
        Self::Zero,
        Self::Moved,
        Self::Swapped,
        Self::WrittenOut,
        Self::Merged,
        Self::Borrowed,
        Self::Copied,
        Self::Shared,
        Self::Secret,
        Self::SharedSecret,
        Self::Foreign,
    ];

    /// Whether the VMA shows an object.
    pub(crate) fn shows_object(self) -> bool {
        matches!(self, Self::Borrowed | Self::Copied) || self.is_shared()
    }

    /// Whether what is written there is the object's.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Self::Shared | Self::SharedSecret)
    }

    /// Whether nobody takes hold of it.
    pub(crate) fn is_unpinnable(self) -> bool {
        matches!(self, Self::Secret | Self::SharedSecret | Self::Foreign)
    }
}

/// One of two processes. The parent is there from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Parent,
    Child,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Parent, Self::Child];

    fn other(self) -> Self {
        if self == Self::Parent { Self::Child } else { Self::Parent }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    Never,
    BeforeTheHold,
    AfterTheHold,
}

/// How the page is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) form: Form,
    pub(crate) writes: bool,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Pin,
    LongtermPin,
    SolePin,
    Get,
}

impl Hold {
    const USUAL_PIN: Self = Self { form: Form::Fast, writes: true, what: What::Pin };
    const USUAL_GET: Self = Self { form: Form::Fast, writes: false, what: What::Get };

    /// All that there are.
    fn all() -> impl Iterator<Item = Self> {
        let whats = [What::Pin, What::LongtermPin, What::SolePin, What::Get];
        let holds = FORMS.into_iter().flat_map(move |form| {
            let writes = move |what| [false, true].map(|writes| Self { form, writes, what });
            whats.into_iter().flat_map(writes)
        });
        // Which no form that never takes a lock can do.
        holds.filter(|hold| (hold.form, hold.what) != (Form::FastOnly, What::SolePin))
    }

    fn is_usual(self) -> bool {
        self == Self::USUAL_PIN || self == Self::USUAL_GET
    }

    fn is_pin(self) -> bool {
        self.what != What::Get
    }
}

/// What happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Write,
    /// By the device, if it may.
    DeviceWrite,
    /// To read-only and back, with a write that is refused between.
    Protect,
    Move,
    SwapOut,
    Relocate,
    /// With a page of a third process, of the same bytes, which is written then.
    Merge,
    /// The object's pages are written back.
    WriteBack,
    /// The contents are given up; when all is over, the kernel takes what was not written since.
    FreeLazily,
    /// The kernel takes it.
    Reclaim,
    Discard,
    /// The object is cut off before the page.
    Truncate,
    Unmap,
    Exit,
}

impl Act {
    pub(crate) const ALL: [Self; 13] = [
        Self::Write,
        Self::DeviceWrite,
        Self::Protect,
        Self::Move,
        Self::SwapOut,
        Self::Relocate,
        Self::Merge,
        Self::WriteBack,
        Self::FreeLazily,
        Self::Discard,
        Self::Truncate,
        Self::Unmap,
        Self::Exit,
    ];

    fn makes_sense(self, kind: Kind) -> bool {
        match self {
            Self::WriteBack => kind.is_shared(),
            Self::Truncate => kind.shows_object(),
            Self::Merge | Self::SwapOut | Self::Relocate => kind != Kind::Foreign,
            _ => true,
        }
    }

    /// Whether it is the same whoever does it.
    fn is_of_nobody(self) -> bool {
        matches!(self, Self::DeviceWrite | Self::WriteBack | Self::Truncate)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    fork: Fork,
    holder: Side,
    hold: Hold,
    acts: [Option<(Side, Act)>; 2],
}

impl Case {
    /// Whether this happens in it.
    pub(crate) fn has(&self, act: Act) -> bool {
        self.acts.iter().flatten().any(|(_, other)| *other == act)
    }
}

/// How many of the [`cases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The usual pin and the usual get, and one operation.
    Usual,
    /// All ways to hold the page, and one operation.
    Holds,
    /// The usual pin and the usual get, and two operations.
    Pairs,
}

/// With every fork, by whichever process the page is held. Made one by one: not all who play them have a heap.
pub(crate) fn cases(kind: Kind, extent: Extent) -> impl Iterator<Item = Case> {
    let forks = [
        (Fork::Never, Side::Parent),
        (Fork::BeforeTheHold, Side::Parent),
        (Fork::BeforeTheHold, Side::Child),
        (Fork::AfterTheHold, Side::Parent),
    ];
    forks.into_iter().flat_map(move |(fork, holder)| {
        let holds = Hold::all().filter(move |hold| extent == Extent::Holds || hold.is_usual());
        holds.flat_map(move |hold| {
            acts(kind, fork).flat_map(move |first| {
                let case = move |second| Case { kind, fork, holder, hold, acts: [Some(first), second] };
                seconds(kind, fork, extent).map(case)
            })
        })
    })
}

/// What may happen, and by whom.
fn acts(kind: Kind, fork: Fork) -> impl Iterator<Item = (Side, Act)> {
    let sides = if fork == Fork::Never { 1 } else { 2 };
    let by = move |act: Act| {
        let sides = if act.is_of_nobody() { 1 } else { sides };
        Side::BOTH.into_iter().take(sides).map(move |side| (side, act))
    };
    Act::ALL.into_iter().filter(move |act| act.makes_sense(kind)).flat_map(by)
}

/// And what after it.
fn seconds(kind: Kind, fork: Fork, extent: Extent) -> impl Iterator<Item = Option<(Side, Act)>> {
    let pairs = extent == Extent::Pairs;
    let nothing = [None].into_iter().filter(move |_| !pairs);
    nothing.chain(acts(kind, fork).filter(move |_| pairs).map(Some))
}

/// What the page held at first, if its process wrote it.
pub(crate) const FIRST: u8 = 0x11;
/// What the object's page holds.
pub(crate) const OBJECTS: u8 = 0x81;

/// Where a case is played: processes, a device, and a page that both processes have at the same address, until one moves it.
pub(crate) trait World {
    /// The parent, with its page.
    fn prepare(&mut self, kind: Kind);
    /// The other process is forked off.
    fn fork(&mut self, side: Side);
    /// User code reads. Nothing: there is no page.
    fn read(&mut self, side: Side) -> Option<u8>;
    /// User code writes. Whether it could.
    fn write(&mut self, side: Side, byte: u8) -> bool;
    /// Takes hold of the page. Whether that was granted.
    fn hold(&mut self, side: Side, hold: Hold) -> bool;
    /// What the device reads in what is held.
    fn device_read(&mut self) -> u8;
    fn device_write(&mut self, byte: u8);
    /// Anything else but a write.
    fn act(&mut self, side: Side, act: Act);
    fn let_go(&mut self);
}

/// Plays a case; whether the page was held.
pub(crate) fn play(case: &Case, world: &mut impl World) -> bool {
    let Case { kind, fork, holder, hold, acts } = *case;
    let mut reference = Reference::new(kind);
    world.prepare(kind);
    if fork == Fork::BeforeTheHold {
        world.fork(Side::Parent);
        reference.fork();
    }
    let held = world.hold(holder, hold);
    assert!(held || reference.may_refuse(hold, fork == Fork::BeforeTheHold), "refused");
    assert!(!held || !kind.is_unpinnable(), "held");
    if held {
        reference.hold(holder, hold);
        reference.compare_device(world.device_read());
    }
    if fork == Fork::AfterTheHold {
        world.fork(Side::Parent);
        reference.fork();
    }
    if kind == Kind::Foreign {
        return held;
    }
    let mut bytes = 0x21..;
    for (side, act) in acts.into_iter().flatten() {
        let byte = bytes.next().unwrap();
        match act {
            _ if !reference.is_there(side) && !act.is_of_nobody() => continue,
            Act::Write => assert_eq!(world.write(side, byte), reference.write(side, byte), "a write"),
            Act::DeviceWrite if held && hold.is_pin() && hold.writes => {
                world.device_write(byte);
                reference.device_write(byte);
            }
            Act::DeviceWrite => continue,
            _ => {
                world.act(side, act);
                reference.act(side, act);
            }
        }
        if held {
            reference.compare_device(world.device_read());
        }
    }
    let given_up = case.has(Act::FreeLazily);
    let reclaim = |world: &mut _, reference: &mut Reference| {
        for side in Side::BOTH {
            if !given_up || !reference.is_there(side) {
                continue;
            }
            World::act(world, side, Act::Reclaim);
            if reference.may_go(side) {
                reference.reclaim(side, World::read(world, side));
            }
        }
    };
    reclaim(world, &mut reference);
    let compare = |world: &mut _, reference: &Reference| {
        Side::BOTH.map(|side| assert_eq!(World::read(world, side), reference.read(side), "{side:?}"))
    };
    compare(world, &reference);
    for side in [holder, holder.other()] {
        let byte = bytes.next().unwrap();
        assert_eq!(
            reference.is_there(side) && world.write(side, byte),
            reference.write(side, byte),
            "a write of {side:?}"
        );
        compare(world, &reference);
        if held {
            reference.compare_device(world.device_read());
        }
    }
    if held {
        world.let_go();
    }
    reclaim(world, &mut reference);
    compare(world, &reference);
    for side in Side::BOTH {
        let byte = bytes.next().unwrap();
        assert_eq!(
            reference.is_there(side) && world.write(side, byte),
            reference.write(side, byte),
            "a last write of {side:?}"
        );
    }
    compare(world, &reference);
    held
}
