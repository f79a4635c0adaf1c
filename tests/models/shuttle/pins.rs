//! Pins of all forms, the devices that work with them, and whoever unpins.

use std::sync::Arc;

use pagepin::frame::Dirty;
use pagepin::pin::{
    self, PhysRun, PinAccess, PinError, PinFlags, PinnedPages, RawPins, Read, Write, get_user_pages_fast_only,
    unpin_user_pages,
};
use pagepin::{CurrentCpu, Pfn, Unlimited, UserRange};

use super::bytes::Bytes;
use super::checker::WORDS;
use super::kernel::{Kernel, PAGE, Side, ThisCpu};
use super::mm::Mm;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `_fast_only`: without locks or not at all.
    FastOnly,
    /// `_fast`: without locks, then as the plain form.
    Fast,
    Slow,
    Remote,
    /// The plain form, by a debugger, which need not ask for the right to write.
    Forced,
}

pub(crate) const FORMS: [Form; 5] = [Form::FastOnly, Form::Fast, Form::Slow, Form::Remote, Form::Forced];

enum Raw {
    Read(RawPins<Read, Vec<PhysRun>>),
    Write(RawPins<Write, Vec<PhysRun>>),
}

/// Pinned pages and the bytes that they are. They may outlive their mm.
pub(crate) struct Held<R: Side> {
    kernel: &'static Kernel<R>,
    bytes: Arc<Bytes>,
    first: u64,
    raw: Raw,
}

impl<R: Side> Mm<R> {
    /// Pins `pages` pages from `first` on, or as many as there are.
    pub(crate) fn pin(&self, form: Form, write: bool, first: u64, pages: u64) -> Option<Held<R>> {
        let range = self.space.range(first * PAGE, pages * PAGE).expect("user pages");
        let raw = if write { Raw::Write(self.raw(form, range)?) } else { Raw::Read(self.raw(form, range)?) };
        Some(Held { kernel: self.kernel, bytes: Arc::clone(&self.bytes), first, raw })
    }

    fn raw<A: PinAccess>(&self, form: Form, range: UserRange) -> Option<RawPins<A, Vec<PhysRun>>> {
        let (space, none) = (&self.space, PinFlags::empty());
        let runs = vec![PhysRun::default(); range.pages() as usize];
        let pinned = match form {
            Form::FastOnly => pin::pin_user_pages_fast_only(space, A::default(), range, none, runs),
            Form::Fast => pin::pin_user_pages_fast(space, A::default(), range, none, runs),
            Form::Forced if A::WRITES => pin::pin_user_pages(space, A::default(), range, PinFlags::FORCE, runs),
            Form::Slow | Form::Forced => pin::pin_user_pages(space, A::default(), range, none, runs),
            Form::Remote => pin::pin_user_pages_remote(space, A::default(), range, none, runs),
        };
        match pinned {
            Ok(pages) => Some(PinnedPages::into_raw(pages)),
            Err(PinError::WouldFault) => {
                assert!(form == Form::FastOnly, "a form that may fault would not");
                None
            }
            Err(PinError::NoVma | PinError::AccessDenied | PinError::NoMemory | PinError::PastEnd) => None,
            Err(error) => panic!("a pin: {error}"),
        }
    }

    /// Reads `page` through a plain reference, which promises that the frame stays allocated and nothing more.
    pub(crate) fn get(&self, page: u64) {
        let range = self.space.range(page * PAGE, PAGE).expect("user pages");
        let runs = [PhysRun::default(); 1];
        if let Ok(got) = get_user_pages_fast_only(&self.space, Read, range, PinFlags::empty(), runs) {
            let frame = got.runs()[0].first();
            (0..WORDS).for_each(|word| self.bytes.check_owner(page, self.kernel.memory.load(frame, word)));
        }
    }
}

impl<R: Side> Held<R> {
    pub(crate) fn frames(&self) -> Vec<Pfn> {
        let runs = match &self.raw {
            Raw::Read(raw) => raw.runs(),
            Raw::Write(raw) => raw.runs(),
        };
        runs.iter().flat_map(|run| (0..run.pages()).map(|i| run.first().offset(i))).collect()
    }

    fn pages(&self) -> impl Iterator<Item = (u64, Pfn)> + use<R> {
        (self.first..).zip(self.frames())
    }

    /// The device reads all of the pages.
    pub(crate) fn read(&self) {
        for (page, frame) in self.pages() {
            for word in 0..WORDS {
                self.bytes.check(page, word, self.kernel.memory.load(frame, word));
            }
        }
    }

    /// The device writes this CPU's word of each page, if the pages are pinned for that.
    pub(crate) fn write(&self) {
        let cpu = ThisCpu.current_cpu();
        for (page, frame) in self.pages().filter(|_| matches!(self.raw, Raw::Write(_))) {
            let value = self.bytes.next_value();
            self.kernel.memory.store(frame, cpu, value);
            self.bytes.wrote(page, cpu, value);
        }
    }

    /// The pages hold their bytes until the end.
    pub(crate) fn release(self) {
        self.read();
        match self.raw {
            // SAFETY: taken through this kernel, and given back once.
            Raw::Read(raw) => unsafe { drop(unpin_user_pages(self.kernel, &Unlimited, raw, Dirty::No)) },
            // SAFETY: as above.
            Raw::Write(raw) => unsafe { drop(unpin_user_pages(self.kernel, &Unlimited, raw, Dirty::Yes)) },
        }
    }
}
