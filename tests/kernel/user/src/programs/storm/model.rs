//! What a worker's memory should hold.
//!
//! A word says who wrote it where, so that one that has strayed is noticed wherever it
//! turns up.

use core::ops::Range;

use super::layout::{self, OWN, PINNED, PLACES};

/// Places of device memory that children write, one for each that may live at a time.
pub const MARKS: [usize; 2] = [OWN - 2, OWN - 1];

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Author {
    Worker = 0,
    /// A child of the worker.
    Child = 1,
    /// The worker's second thread.
    Pinner = 2,
}

/// A word for this place, different each time.
pub fn word(worker: u64, author: Author, page: usize, place: usize, count: u32) -> u64 {
    (worker + 1) << 56 | (author as u64) << 52 | (page as u64) << 40 | (place as u64) << 32 | u64::from(count)
}

/// Whose memory a word is found in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    Worker,
    Child,
    /// The worker and its children share it.
    Device,
}

impl Memory {
    fn may_be_written_by(self, author: Author, place: usize) -> bool {
        match author {
            Author::Pinner => place >= OWN,
            Author::Worker if self == Self::Device => place < MARKS[0],
            Author::Worker => place < OWN,
            Author::Child if self == Self::Device => MARKS.contains(&place),
            Author::Child => self == Self::Child && place < OWN,
        }
    }

    /// Whether the word may at some time have been at this place. The kernel copies bytes: a word that is being
    /// written may have only some of the new ones.
    pub fn may_show(self, word: u64, worker: u64, page: usize, index: usize) -> bool {
        let Some(place) = layout::place_at(page, index) else { return word == 0 };
        let words = [Author::Worker, Author::Child, Author::Pinner]
            .map(|author| (self.may_be_written_by(author, place), self::word(worker, author, page, place, 0)));
        let byte = |word: u64, number: u32| word >> (8 * number) & 0xff;
        (4..8).all(|number| {
            let found = byte(word, number);
            found == 0 || words.iter().any(|&(possible, word)| possible && byte(word, number) == found)
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub enum State {
    Unmapped,
    /// Mapped without any rights.
    Hidden,
    ReadOnly,
    Writable,
}

/// What fills a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Private memory in base pages.
    Base,
    /// Private memory as one large leaf.
    Large,
    /// The device's.
    Device,
}

/// The words at the places of a page.
#[derive(Clone, Copy)]
pub struct Contents {
    pub memory: Memory,
    pub words: [u64; PLACES],
    /// A bit for each place that nobody writes without this worker's or child's knowledge.
    known: u16,
}

impl Contents {
    /// Zeroes in private memory.
    pub const fn fresh(author: Author) -> Self {
        let (memory, known) = match author {
            Author::Child => (Memory::Child, !(1 << PINNED)),
            _ => (Memory::Worker, (1 << OWN) - 1),
        };
        Self { memory, words: [0; PLACES], known }
    }

    /// Zeroes in device memory, as the worker finds them.
    pub const DEVICES: Self = Self { memory: Memory::Device, words: [0; PLACES], known: (1 << OWN) - 1 };

    pub fn set(&mut self, place: usize, word: u64) {
        self.words[place] = word;
        self.known |= 1 << place;
    }

    /// From now on somebody else writes there.
    pub fn forget(&mut self, place: usize) {
        self.known &= !(1 << place);
    }

    /// The same memory as a child gets it: a copy, or, of a device, the thing itself.
    pub fn inherited(mut self) -> Self {
        if self.memory == Memory::Device {
            self.known = 0;
        } else {
            (self.memory, self.known) = (Memory::Child, Self::fresh(Author::Child).known);
        }
        self
    }

    /// The first word in the range of those looked at that is not what it should be: its index, what it should be,
    /// what it is.
    pub fn first_wrong(
        &self,
        worker: u64,
        page: usize,
        (within, salt): (&Range<usize>, u32),
        mut load: impl FnMut(usize) -> u64,
    ) -> Option<(usize, u64, u64)> {
        layout::looked_at(page, salt).filter(|index| within.contains(index)).find_map(|index| {
            let (found, place) = (load(index), layout::place_at(page, index));
            let wanted = place.map_or(0, |place| self.words[place]);
            let is_known = place.is_none_or(|place| self.known & 1 << place != 0);
            let right = if is_known { found == wanted } else { self.memory.may_show(found, worker, page, index) };
            (!right).then_some((index, wanted, found))
        })
    }

    /// Makes the model agree with memory.
    pub fn accept(&mut self, page: usize, mut load: impl FnMut(usize) -> u64) {
        for (place, word) in self.words.iter_mut().enumerate() {
            *word = load(layout::index(page, place));
        }
    }
}

#[derive(Clone, Copy)]
pub struct Page {
    pub state: State,
    /// The most it can be given.
    pub limit: State,
    pub kind: Kind,
    /// Of private memory.
    pub contents: Contents,
}

impl Page {
    pub const UNMAPPED: Self = Self {
        state: State::Unmapped,
        limit: State::Unmapped,
        kind: Kind::Base,
        contents: Contents::fresh(Author::Worker),
    };

    /// New, and all zeroes.
    pub fn mapped(state: State, kind: Kind, author: Author) -> Self {
        let limit = if kind == Kind::Device { state } else { State::Writable };
        Self { state, limit, kind, contents: Contents::fresh(author) }
    }

    pub fn is_readable(&self) -> bool {
        self.state >= State::ReadOnly
    }

    pub fn is_writable(&self) -> bool {
        self.state == State::Writable
    }

    /// Whether it is mapped as one large leaf.
    pub fn is_leaf(&self) -> bool {
        self.state != State::Unmapped && self.kind == Kind::Large
    }

    pub fn is_devices(&self) -> bool {
        self.state != State::Unmapped && self.kind == Kind::Device
    }
}
