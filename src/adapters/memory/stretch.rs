//! [`Stretches`]: which frames there are, and the place of each in the arrays that have one element for each of them.

#![forbid(unsafe_code)]

use crate::addr::Pfn;

/// Consecutive frames, and consecutive places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The first frame's number.
    pub(super) first: u64,
    pub(super) frames: u64,
    /// The first frame's place.
    pub(super) place: u64,
}

impl Stretch {
    /// The place of frame `number`, if it is one of these.
    #[inline(always)]
    fn place_of(&self, number: u64) -> Option<u64> {
        let offset = number.wrapping_sub(self.first);
        (offset < self.frames).then(|| self.place + offset)
    }

    /// The place of the first of `count` frames from `number` on, if they are all of these.
    #[inline(always)]
    pub(super) fn run(&self, number: u64, count: u64) -> Option<u64> {
        let offset = number.wrapping_sub(self.first);
        (offset < self.frames && count <= self.frames - offset).then(|| self.place + offset)
    }
}

/// The stretches of a memory: the largest apart, where most frames are, and the others by address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretches<'a> {
    /// Its places come first.
    pub(super) largest: Stretch,
    /// In the order of their frames and of their places.
    pub(super) others: &'a [Stretch],
}

impl<'a> Stretches<'a> {
    /// The stretch that has the frame, and the frame's place.
    #[inline(always)]
    pub(super) fn find(&self, number: u64) -> Option<(&Stretch, u64)> {
        match self.largest.place_of(number) {
            Some(place) => Some((&self.largest, place)),
            None => self.find_in_others(number),
        }
    }

    #[cold]
    fn find_in_others(&self, number: u64) -> Option<(&Stretch, u64)> {
        let after = self.others.partition_point(|stretch| stretch.first <= number);
        let stretch = self.others.get(after.checked_sub(1)?)?;
        Some((stretch, stretch.place_of(number)?))
    }

    /// The frame at `place`, which is one of some stretch.
    #[inline(always)]
    pub(super) fn frame_at(&self, place: u64) -> Pfn {
        if place < self.largest.frames {
            return Pfn::new(self.largest.first + place);
        }
        let after = self.others.partition_point(|stretch| stretch.place <= place);
        let stretch = self.others[..after].last().unwrap_or(&self.largest);
        Pfn::new(stretch.first + (place - stretch.place))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Stretch> + Clone + 'a {
        core::iter::once(self.largest).chain(self.others.iter().copied())
    }
}
