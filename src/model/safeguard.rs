//! The switches of the negative twins. They exist under a checker only.
//!
//! Each names one safeguard of the library; taking it away must make a model or scenario fail, or it shows nothing.

use core::sync::atomic::{AtomicU32, Ordering};

/// One safeguard, consulted exactly where it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Safeguard {
    /// A lockless pin refuses a frame that is not `EXCLUSIVE`.
    PinNeedsExclusive = 1,
    /// Fork and the other sharers refuse a pinned frame.
    ShareNeedsNoPins,
    /// A claim needs the sole reference.
    ClaimNeedsSoleReference,
    /// A freeze refuses a pinned frame.
    FreezeNeedsNoPins,
    /// A freeze refuses a frame to which somebody else refers.
    FreezeNeedsSoleReference,
    /// A frame without references takes none.
    FreeRefuses,
    /// Who wants to be the only pinner refuses a pinned frame.
    SoleNeedsNoPins,
    /// A reader of a ledger's slot looks at its state again.
    LedgerReread,
    /// Who fills a ledger's slot says so before it does.
    LedgerFence,
    /// The head of a ledger's free slots counts its changes.
    LedgerCount,
    /// A run that is released by its number strikes a record that no other has struck.
    LedgerStrikesOnce,
    /// Who gives a pin back that is asked for releases, and who asked acquires.
    RevokeOrdering,
    /// A pin that is asked for is unpinned before it says that it has ended.
    UnpinBeforeGrant,
    /// A pin that is kept while it is asked for is not granted.
    KeepIsNoGrant,
    /// A ledger's slot goes live after it was filled.
    LedgerPublish,
    /// A frame that is held by gets refuses pins, where its word counts both, and the reverse.
    OneKindAtATime,
    /// The frame word's exchanges acquire and release.
    WordOrdering,
    /// The walker reads the leaf entry again after counting the frame.
    LeafReread,
    /// The walker reads the entry above the table again.
    AboveReread,
    /// A broken entry is flushed before its successor is published.
    FlushBeforePublish,
    /// Who takes an entry goes on from what was there when it was taken, with the bits that hardware has set.
    TakenIsFinal,
    /// A new leaf takes the place of nothing, a new table that of none.
    FillsTheEmpty,
    /// A frame that is to be kept is judged once its entry is owned.
    OwnsBeforeJudging,
    /// Who is refused an entry while it takes several has those before it and no more.
    RefusalEndsRun,
    /// Who meets an entry that another CPU owns waits for it.
    OwnedIsWaitedFor,
    /// A refusal that follows from a frame's word is one only if the entry still maps that frame.
    RefusalLooksAgain,
    /// A frame that is to be copied is held, and then its entry looked at again.
    CopyLooksAgain,
    /// Fork flushes the parent's write-protected entries.
    FlushAfterFork,
    /// A move flushes the old addresses.
    FlushAfterMove,
    /// Protect flushes the entries that lost a right.
    FlushAfterProtect,
    /// Protect, before it refuses because of pins, waits for the walks that are under way.
    RefusalWaits,
    /// An unmap that may be deferred waits for the walks that are under way before it looks for pins.
    DeferralWaits,
    /// Unmap flushes before it releases.
    FlushBeforeRelease,
    /// Unmap waits for the walkers before it frees tables.
    WaitForWalkers,
    /// A walk's beginning under `EpochReadSide` also tells of the end of the walk before.
    EnterOrdering,
    /// The full fence with which a walk begins under `EpochReadSide`.
    EnterFence,
    /// The full fence with which the wait for walks begins.
    SynchronizeFence,
    /// The full fence between telling that a CPU changes its root and loading it.
    SwitchFence,
    /// The full fence between changed entries and looking which CPU has the root.
    ShootdownFence,
    /// A CPU that is changing its root is taken to use every root.
    ChangingUsesAll,
    /// A CPU that has the root loaded lazily, and is spared, is told so.
    LazyIsTold,
    /// A flush waits for the answers.
    WaitForAnswers,
    /// Who answers a flush releases, who waits for it acquires.
    AnswerOrdering,
    /// Who waits for answers gives them as well.
    AnswerWhileWaiting,
    /// A CPU takes the calls that it answers, and no other, out of its mailbox.
    CallsAreTaken,
    /// A reader of the mm lock waits for the writer that is inside.
    ReadersWait,
    /// A writer of the mm lock waits for the writers before it.
    WritersWait,
    /// A writer of the mm lock waits for the readers that are inside.
    WriterWaitsForReaders,
    /// Who opens the mm lock releases, who comes in acquires.
    RwLockOrdering,
    /// A reader's note in its CPU's slot releases.
    NoteOrdering,
    /// The full fences between a reader's note and its look at the lock, and between a writer's closing and its look at the notes.
    NoteFence,
    /// A writer of the mm lock waits for the slots that name it.
    WriterWaitsForNotes,
    /// A writer that waits for slots answers flushes, for which their CPUs may wait.
    WriterRelaxes,
    /// What a token stands for is asked by who owns its entry.
    BringsWhatItOwns,
    /// Who has published an object's page asks whether it is the object's, still.
    StillTheObjects,
    /// A page that was given up is kept if its frame says that it was written.
    FreedAsksItsFrame,
    /// An object is asked about the first write by who owns the entry.
    AsksWhatItOwns,
    /// An object's page that has moved is asked about again before the next write.
    AsksWhereItMoves,
    /// A count is taken in a word of the order that is wanted, or not at all.
    CountsByOrder,
    /// The parts of a block have their counts before its head says that it is one frame.
    PartsBeforeHead,
    /// The counts of parts follow the head's by differences.
    PartsByDifference,
    /// Loads of entries acquire.
    EntryAcquire,
    /// Stores of entries release.
    EntryRelease,
}

/// Plain core atomic on purpose: constant while a model runs, and no business of the checker's.
static REMOVED: AtomicU32 = AtomicU32::new(0);

impl Safeguard {
    /// Takes this safeguard, and no other, away for the rest of the process.
    pub fn remove(self) {
        REMOVED.store(self as u32, Ordering::Relaxed);
    }

    pub(crate) fn is_removed(self) -> bool {
        REMOVED.load(Ordering::Relaxed) == self as u32
    }
}
