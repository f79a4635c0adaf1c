//! [`Reference`]: what user space was promised of a page.

use super::{Act, FIRST, Hold, Kind, OBJECTS, Side};
use crate::forms::Form;

/// What one process has at the page's address.
#[derive(Clone, Copy, Debug)]
struct Page {
    /// Its own byte, which no other process sees.
    own: Option<u8>,
    /// It was given up, and not written since.
    given_up: bool,
}

/// What is held.
#[derive(Debug)]
enum Held {
    /// A pin: another name for this process's own byte.
    Own(Side),
    /// Another name for the object's byte.
    Object,
    /// What was the process's or the object's is the device's alone: it was unmapped, or cut off.
    Alone(u8),
    /// A get of a process's own byte: some state of it since then, and never another process's.
    Seen(Side, [u8; STATES]),
}

/// More states than any case has.
const STATES: usize = 8;

/// See the [module text](self).
pub(super) struct Reference {
    kind: Kind,
    /// Nothing: unmapped or gone.
    pages: [Option<Page>; 2],
    /// Nothing: cut off.
    object: Option<u8>,
    held: Option<Held>,
}

impl Reference {
    pub(super) fn new(kind: Kind) -> Self {
        let untouched = matches!(kind, Kind::Untouched | Kind::Zero | Kind::Borrowed | Kind::Foreign);
        let written = !untouched && !kind.is_shared();
        let parent = Page { own: written.then_some(FIRST), given_up: false };
        Self { kind, pages: [Some(parent), None], object: kind.shows_object().then_some(OBJECTS), held: None }
    }

    /// Whether a process has the page mapped.
    pub(super) fn is_there(&self, side: Side) -> bool {
        self.pages[side as usize].is_some()
    }

    pub(super) fn fork(&mut self) {
        self.pages[1] = self.pages[0];
    }

    pub(super) fn read(&self, side: Side) -> Option<u8> {
        let page = self.pages[side as usize]?;
        // Registers read as nothing that anybody relies on.
        if self.kind.shows_object() { page.own.or(self.object) } else { Some(page.own.unwrap_or(0)) }
    }

    pub(super) fn write(&mut self, side: Side, byte: u8) -> bool {
        let Some(page) = &mut self.pages[side as usize] else { return false };
        if self.kind.is_shared() {
            self.object = self.object.map(|_| byte);
            return self.object.is_some();
        }
        if self.kind.shows_object() && page.own.is_none() && self.object.is_none() {
            return false;
        }
        (page.own, page.given_up) = (Some(byte), false);
        if let Some(Held::Seen(by, seen)) = &mut self.held
            && *by == side
        {
            seen.rotate_right(1);
            seen[0] = byte;
        }
        true
    }

    /// Whether this hold need not be granted: registers never are, and the form that never takes a lock takes what is there, and alone.
    pub(super) fn may_refuse(&self, hold: Hold, shared: bool) -> bool {
        let at_once = matches!(self.kind, Kind::Base | Kind::Moved | Kind::Copied) && !shared;
        self.kind.is_unpinnable() || (hold.form == Form::FastOnly && !at_once)
    }

    pub(super) fn hold(&mut self, side: Side, hold: Hold) {
        let byte = self.read(side).unwrap();
        self.held = Some(if self.kind == Kind::Shared {
            Held::Object
        } else {
            self.pages[side as usize] = Some(Page { own: Some(byte), given_up: false });
            if hold.is_pin() { Held::Own(side) } else { Held::Seen(side, [byte; STATES]) }
        });
    }

    pub(super) fn device_write(&mut self, byte: u8) {
        match self.held.as_mut().unwrap() {
            Held::Own(side) => self.pages[*side as usize] = Some(Page { own: Some(byte), given_up: false }),
            Held::Object => self.object = Some(byte),
            Held::Alone(own) => *own = byte,
            Held::Seen(..) => panic!("a device that may not write"),
        }
    }

    pub(super) fn compare_device(&self, byte: u8) {
        let right = match self.held.as_ref().unwrap() {
            Held::Own(side) => self.read(*side) == Some(byte),
            Held::Object => self.object == Some(byte),
            Held::Alone(own) => *own == byte,
            Held::Seen(_, seen) => seen.contains(&byte),
        };
        assert!(right, "the device sees {byte:#x}, and not {:x?}", self.held);
    }

    /// Whether the kernel may take the page now that it is out of memory: what is pinned it may not.
    pub(super) fn may_go(&self, side: Side) -> bool {
        let pinned = matches!(self.held, Some(Held::Own(holder)) if holder == side);
        self.pages[side as usize].is_some_and(|page| page.given_up) && !pinned
    }

    /// It has taken it, or not.
    pub(super) fn reclaim(&mut self, side: Side, now: Option<u8>) {
        if now == Some(0) {
            self.pages[side as usize] = Some(Page { own: None, given_up: false });
        }
    }

    /// What was `side`'s own is so no longer.
    fn leave(&mut self, side: Side) {
        if let Some(Held::Own(holder)) = self.held
            && holder == side
        {
            self.held = Some(Held::Alone(self.read(side).unwrap()));
        }
    }

    pub(super) fn act(&mut self, side: Side, act: Act) {
        match act {
            Act::Write | Act::DeviceWrite | Act::Reclaim => unreachable!(),
            Act::FreeLazily => {
                let page = self.pages[side as usize].as_mut().unwrap();
                page.given_up = page.own.is_some() && !self.kind.shows_object();
            }
            Act::Protect | Act::Move | Act::SwapOut | Act::Relocate | Act::Merge | Act::WriteBack => {}
            Act::Discard => {
                self.leave(side);
                self.pages[side as usize] = Some(Page { own: None, given_up: false });
            }
            Act::Truncate => {
                for side in Side::BOTH {
                    let Some(page) = self.pages[side as usize] else { continue };
                    if page.own.is_some() {
                        self.leave(side);
                    }
                    self.pages[side as usize] = Some(Page { own: None, given_up: false });
                }
                if let (Some(Held::Object), Some(byte)) = (&self.held, self.object) {
                    self.held = Some(Held::Alone(byte));
                }
                self.object = None;
            }
            Act::Unmap | Act::Exit => {
                self.leave(side);
                self.pages[side as usize] = None;
            }
        }
    }
}
