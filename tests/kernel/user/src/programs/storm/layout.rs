//! Where a worker's pages are, and which words of each the model knows.
//!
//! A page has 16 places, one word each. Those of a base page are 256 bytes apart, and
//! every word between them is compared too: it stays zero. The large pages have theirs
//! on base pages chosen so that a copy or a flush that stops short misses one; of the
//! words between them a few are looked at each time.

use core::ops::Range;

use pagepin_abi::LARGE_BYTES;

pub const PAGE: u64 = 4096;
pub const VMA: u64 = 0x3000_0000;
/// Base pages, from `VMA` on.
pub const BASES: usize = 20;
/// What follows them: under the same table of the second level, so that it comes and goes with both.
const LARGE_VMA: u64 = VMA + LARGE_BYTES;
const LARGES: usize = 2;
/// Pages of both sizes: the large ones come last.
pub const PAGES: usize = BASES + LARGES;

pub const PLACES: usize = 16;
/// Places that the worker writes. It does not know when its second thread writes the others:
pub const OWN: usize = PLACES - 2;
/// by stores,
pub const STORED: usize = PLACES - 2;
/// and through pins.
pub const PINNED: usize = PLACES - 1;

/// Words of a base page.
pub const WORDS: usize = PAGE as usize / 8;
const WORDS_PER_PLACE: usize = WORDS / PLACES;
/// Base pages of a large page with a place: its edges, those of its quarters, and some others.
const PLACED: [usize; PLACES] = [0, 1, 2, 63, 127, 128, 255, 256, 300, 383, 384, 509, 510, 511, 129, 508];
/// Words of a large page that are looked at although they are no places.
const SPOTS: usize = 24;

pub fn is_large(page: usize) -> bool {
    page >= BASES
}

/// The large pages.
pub fn larges() -> Range<usize> {
    BASES..PAGES
}

pub fn address(page: usize) -> u64 {
    match page.checked_sub(BASES) {
        None => VMA + page as u64 * PAGE,
        Some(large) => LARGE_VMA + large as u64 * LARGE_BYTES,
    }
}

pub fn bytes(page: usize) -> u64 {
    if is_large(page) { LARGE_BYTES } else { PAGE }
}

pub fn words(page: usize) -> usize {
    bytes(page) as usize / 8
}

/// Where these pages begin, and how many bytes they and what is between them have.
pub fn span(pages: &Range<usize>) -> (u64, u64) {
    let (start, last) = (address(pages.start), pages.end - 1);
    (start, address(last) + bytes(last) - start)
}

/// Index of a place's word in its page.
pub fn index(page: usize, place: usize) -> usize {
    let base = if is_large(page) { PLACED[place] } else { 0 };
    base * WORDS + place * WORDS_PER_PLACE
}

/// Where a place is.
pub fn place_address(page: usize, place: usize) -> u64 {
    address(page) + 8 * index(page, place) as u64
}

/// The place whose word this is.
pub fn place_at(page: usize, index: usize) -> Option<usize> {
    let place = index % WORDS / WORDS_PER_PLACE;
    (self::index(page, place) == index).then_some(place)
}

/// Indices of the words that are to be compared; `salt` chooses among those that are too many.
pub fn looked_at(page: usize, salt: u32) -> impl Iterator<Item = usize> {
    let (all, places, spots) = if is_large(page) { (0, PLACES, SPOTS) } else { (WORDS, 0, 0) };
    let spot = move |number: usize| {
        let mixed = (salt ^ (number as u32) << 24).wrapping_mul(0x9e37_79b1);
        (mixed ^ mixed >> 15) as usize % words(page)
    };
    (0..all).chain((0..places).map(move |place| index(page, place))).chain((0..spots).map(spot))
}
