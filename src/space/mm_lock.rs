//! [`MmLock`]: the mm lock of a [`UserSpace`](super::UserSpace).
//!
//! A fair lock for readers and writers, whose holders stay on their CPU because others spin for it. Where the kernel has
//! [`MmReaders`], a reader notes in its CPU's slot which lock it reads, and writes nothing that other CPUs write; a writer closes
//! the lock and then waits for the slots that name it. A reader that finds the lock closed is counted by it, as all are in a
//! kernel without slots, so that it waits for one writer at most.
//!
//! A slot also tells that its CPU is in a section already. Whoever asks for a lock there would wait for itself, or for a writer
//! that waits for it.

use core::ops::{Deref, DerefMut};

use crate::env::{ExtraParts, MmReaders, NoPreempt, ReaderSlot, Reentered};
use crate::primitive::{Ordering, ReadWrite, fence, safeguard};

/// See the [module text](self). `L` is the lock underneath.
pub(crate) struct MmLock<L> {
    lock: L,
}

/// An mm lock is asked for where nothing may wait: in a section of one, or by who owns an entry. Found by kernels that count the
/// crate's guards ([`NoPreempt::is_entered`]), also without slots; for others this is nothing.
#[inline(always)]
fn reject_inside<E: ExtraParts>(kernel: &E) -> Result<(), Reentered> {
    if kernel.no_preempt().is_entered() { Err(Reentered) } else { Ok(()) }
}

type Stay<'k, E> = <<E as ExtraParts>::NoPreempt as NoPreempt>::Guard<'k>;

/// A section of the lock, whose guard is dropped first, then the note, then what keeps the thread on its CPU.
pub(crate) struct Section<'k, G, E: ExtraParts + 'k> {
    guard: G,
    note: Option<Note<'k>>,
    _stay: Stay<'k, E>,
}

/// How a reader holds the lock.
pub(crate) enum Reader<'a, L: ReadWrite + 'a> {
    /// By the note in its CPU's slot.
    Noted(&'a L::Value),
    /// By the lock's own count.
    Counted(L::Reading<'a>),
}

/// What a CPU's slot says until this is dropped.
struct Note<'k>(&'k ReaderSlot);

impl<'k> Note<'k> {
    /// `None`: the kernel has no slots.
    #[inline(always)]
    fn take(readers: &'k impl MmReaders, inside: u64) -> Result<Option<Self>, Reentered> {
        let Some(slot) = readers.this_cpu() else { return Ok(None) };
        if slot.load(Ordering::Relaxed) != ReaderSlot::OUTSIDE {
            return Err(Reentered);
        }
        // Release: a writer of the lock that this CPU read before may see this and not that the CPU had left.
        slot.store(inside, safeguard!(NoteOrdering: Ordering::Release));
        Ok(Some(Self(slot)))
    }
}

impl Drop for Note<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: pairs with the acquire of the writer that waits for the slot.
        self.0.store(ReaderSlot::OUTSIDE, safeguard!(NoteOrdering: Ordering::Release));
    }
}

impl<L: ReadWrite> MmLock<L> {
    pub(crate) fn new(lock: L) -> Self {
        Self { lock }
    }

    /// What a slot says that reads this lock.
    #[inline(always)]
    fn name(&self) -> u64 {
        // Neither of the two words that mean something else.
        core::ptr::from_ref(&self.lock).addr() as u64
    }

    /// With other readers.
    #[inline(always)]
    pub(crate) fn read<'a, E: ExtraParts>(&'a self, kernel: &'a E) -> Result<Section<'a, Reader<'a, L>, E>, Reentered> {
        reject_inside(kernel)?;
        let _stay = kernel.no_preempt().enter();
        let note = Note::take(kernel.mm_readers(), self.name())?;
        if let Some(Note(slot)) = note {
            // Pairs with the fence of a writer, between its closing of the lock and its look at the slots: it sees the note, or
            // this sees the lock closed.
            safeguard!(NoteFence; fence(Ordering::SeqCst));
            if let Some(value) = self.lock.if_open() {
                // SAFETY: the value lives as long as the lock, and a writer that closes the lock from here on finds the note,
                // and waits until it is gone. The guard goes first.
                let value = unsafe { value.as_ref() };
                return Ok(Section { guard: Reader::Noted(value), note, _stay });
            }
            slot.store(ReaderSlot::ELSEWHERE, Ordering::Release);
        }
        Ok(Section { guard: Reader::Counted(self.lock.read()), note, _stay })
    }

    /// Alone.
    pub(crate) fn write<'a, E: ExtraParts>(
        &'a self,
        kernel: &'a E,
    ) -> Result<Section<'a, L::Writing<'a>, E>, Reentered> {
        reject_inside(kernel)?;
        let _stay = kernel.no_preempt().enter();
        let note = Note::take(kernel.mm_readers(), ReaderSlot::ELSEWHERE)?;
        Ok(Section { guard: self.close(kernel), note, _stay })
    }

    /// What it protects, for who is the last to have it.
    pub(crate) fn get_mut(&mut self) -> &mut L::Value {
        self.lock.get_mut()
    }

    /// Alone, beside another lock that the caller holds alone and that comes before this one in an order that all keep.
    pub(crate) fn write_beside<'a, G, E: ExtraParts>(
        &'a self,
        kernel: &'a E,
        _held: &Section<'_, G, E>,
    ) -> Section<'a, L::Writing<'a>, E> {
        let _stay = kernel.no_preempt().enter();
        Section { guard: self.close(kernel), note: None, _stay }
    }

    /// Closes the lock and waits for all readers.
    fn close(&self, kernel: &impl ExtraParts) -> L::Writing<'_> {
        let guard = self.lock.write();
        let slots = kernel.mm_readers().all();
        if !slots.is_empty() {
            // Pairs with the fence of a reader.
            safeguard!(NoteFence; fence(Ordering::SeqCst));
            for slot in slots {
                // Acquire: pairs with the release of whoever has left.
                while safeguard!(WriterWaitsForNotes => slot.load(Ordering::Acquire) == self.name()) {
                    safeguard!(WriterRelaxes; L::relax());
                }
            }
        }
        guard
    }
}

impl<'a, L: ReadWrite + 'a> Deref for Reader<'a, L> {
    type Target = L::Value;

    #[inline(always)]
    fn deref(&self) -> &L::Value {
        match self {
            Self::Noted(value) => value,
            Self::Counted(guard) => guard,
        }
    }
}

impl<G: Deref, E: ExtraParts> Deref for Section<'_, G, E> {
    type Target = G::Target;

    #[inline(always)]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G, E: ExtraParts> Section<'_, G, E> {
    /// The slot of this CPU, which stays here as long as the section lasts.
    #[inline(always)]
    pub(crate) fn slot(&self) -> Option<&ReaderSlot> {
        self.note.as_ref().map(|note| note.0)
    }
}

impl<G: DerefMut, E: ExtraParts> DerefMut for Section<'_, G, E> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}
