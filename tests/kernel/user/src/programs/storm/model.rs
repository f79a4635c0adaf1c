//! What a worker's memory should hold.
//!
//! A page has 16 places, one word each, 256 bytes apart; everything between them stays
//! zero. A word says who wrote it where, so that one that has strayed is noticed
//! wherever it turns up.

pub const PAGE: u64 = 4096;
pub const AREA: u64 = 0x3000_0000;
pub const PAGES: usize = 20;
pub const PLACES: usize = 16;
/// Places that the model knows. It does not know when the second thread writes the others:
pub const OWN: usize = PLACES - 2;
/// by stores,
pub const STORED: usize = PLACES - 2;
/// and through pins.
pub const PINNED: usize = PLACES - 1;
pub const WORDS: usize = PAGE as usize / 8;
const WORDS_PER_PLACE: usize = WORDS / PLACES;

pub fn address(page: usize) -> u64 {
    AREA + page as u64 * PAGE
}

pub fn offset(place: usize) -> u64 {
    8 * index(place) as u64
}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Author {
    Worker = 0,
    /// A child of the worker, in memory of its own.
    Child = 1,
    Pinner = 2,
}

/// A word for this place, different each time.
pub fn word(worker: u64, author: Author, page: usize, place: usize, count: u32) -> u64 {
    (worker + 1) << 56 | (author as u64) << 52 | (page as u64) << 40 | (place as u64) << 32 | u64::from(count)
}

/// Index of a place's word in its page.
pub fn index(place: usize) -> usize {
    place * WORDS_PER_PLACE
}

/// Whether the word may at some time have been at this place, in the worker's own memory.
pub fn is_plausible(word: u64, worker: u64, page: usize, index: usize) -> bool {
    let place = index / WORDS_PER_PLACE;
    let author = if place >= OWN { Author::Pinner } else { Author::Worker };
    word == 0
        || (index.is_multiple_of(WORDS_PER_PLACE) && word >> 32 == self::word(worker, author, page, place, 0) >> 32)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Unmapped,
    /// Mapped without any rights.
    Hidden,
    ReadOnly,
    Writable,
}

#[derive(Clone, Copy)]
pub struct Page {
    pub state: State,
    pub words: [u64; PLACES],
    /// In a child, nobody else writes.
    pub all_is_known: bool,
}

impl Page {
    pub const UNMAPPED: Self = Self { state: State::Unmapped, words: [0; PLACES], all_is_known: false };

    pub fn is_readable(&self) -> bool {
        matches!(self.state, State::ReadOnly | State::Writable)
    }

    /// The first word that is not what it should be: its index, what it should be, what it is.
    pub fn first_wrong(
        &self,
        worker: u64,
        number: usize,
        mut load: impl FnMut(usize) -> u64,
    ) -> Option<(usize, u64, u64)> {
        (0..WORDS).find_map(|index| {
            let found = load(index);
            let place = index / WORDS_PER_PLACE;
            let wanted = if index.is_multiple_of(WORDS_PER_PLACE) { self.words[place] } else { 0 };
            let is_known = place < OWN || self.all_is_known;
            let right = if is_known { found == wanted } else { is_plausible(found, worker, number, index) };
            (!right).then_some((index, wanted, found))
        })
    }

    /// Makes the model agree with memory.
    pub fn accept(&mut self, mut load: impl FnMut(usize) -> u64) {
        for (place, word) in self.words.iter_mut().enumerate() {
            *word = load(index(place));
        }
    }
}

/// A load of this program from a page of the area.
pub fn load(page: usize, index: usize) -> u64 {
    // SAFETY: the worker reads pages only where its model says that they are readable.
    unsafe { ((address(page) + 8 * index as u64) as *const u64).read_volatile() }
}

/// A store of this program.
pub fn store(page: usize, place: usize, word: u64) {
    // SAFETY: as for loads; the area holds no object.
    unsafe { ((address(page) + offset(place)) as *mut u64).write_volatile(word) };
}
