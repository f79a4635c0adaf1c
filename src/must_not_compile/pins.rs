//! Read pins, write pins and gets, and the end of each.

must_not_compile! {
    /// A read pin is not written through: by copying.
    CopyIntoReadPin [E0599] (read: PinnedPage<'_, UserSpace<K>, Read>, write: PinnedPage<'_, UserSpace<K>, Write>) {}
    compiles { write.copy_from(0, b"bytes").unwrap(); }
    does_not { read.copy_from(0, b"bytes").unwrap(); }

    /// By a pointer.
    PointIntoReadPin [E0599] (read: PinnedPage<'_, UserSpace<K>, Read>, write: PinnedPage<'_, UserSpace<K>, Write>) {}
    compiles { unsafe { write.byte_mut(0) }.unwrap().write(1); }
    does_not { unsafe { read.byte_mut(0) }.unwrap().write(1); }

    /// By the pointer that is for reading.
    WriteThroughReadOnlyPointer [E0271] (read: PinnedPage<'_, UserSpace<K>, Read>) {
        let byte = unsafe { read.byte(0) }.unwrap();
    }
    compiles { byte.read(); }
    does_not { byte.write(1); }

    /// By taking it for a write pin.
    ReadPinAsWritePin [E0308] (read: PinnedPage<'_, UserSpace<K>, Read>, write: PinnedPage<'_, UserSpace<K>, Write>) {}
    compiles { let pin: PinnedPage<'_, UserSpace<K>, Write> = write; }
    does_not { let pin: PinnedPage<'_, UserSpace<K>, Write> = read; }

    /// By coming back as one from where pins have no guard.
    RawReadPinAsWritePin [E0308] (space: &UserSpace<K>, read: RawPins<Read, [PhysRun; 1], Ticket<K>>, write: RawPins<Write, [PhysRun; 1], Ticket<K>>) {}
    compiles { let pin: PinnedPages<'_, UserSpace<K>, Write, _> = unsafe { Pinned::from_raw(space, write) }; }
    does_not { let pin: PinnedPages<'_, UserSpace<K>, Write, _> = unsafe { Pinned::from_raw(space, read) }; }

    /// A read pin was not written, so that there is no second answer.
    ReadPinUnwritten [E0599] (read: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>, write: PinnedPages<'_, UserSpace<K>, Write, [PhysRun; 1]>) {}
    compiles { write.release_unwritten(); }
    does_not { read.release_unwritten(); }

    /// Other holders write the same bytes, and a volatile access is not atomic: copies are for everybody, pointers are vouched for.
    VolatileSafely [E0133] (write: PinnedPage<'_, UserSpace<K>, Write>) {}
    compiles { write.copy_from(0, &[1]).unwrap(); }
    does_not { write.byte_mut(0).unwrap().write(1); }

    /// There is no third kind.
    AccessOfOnesOwn [E0277] () {
        #[derive(Clone, Copy, Default)] struct Mine;
    }
    compiles { let kind = Write::WRITES; }
    does_not { impl PinAccess for Mine { const WRITES: bool = true; } }
}

must_not_compile! {
    /// What a ledger's table recorded is struck out there: another kernel's ticket is no ticket of this one.
    TicketOfAnotherLedger [E0308] (env: &K, pins: RawPins<Read, [PhysRun; 1], Ticket<K>>, others: RawPins<Read, [PhysRun; 1], LedgerTicket>) {}
    compiles { unsafe { unpin_user_pages(env, &Unlimited, pins, Dirty::No) }; }
    does_not { unsafe { unpin_user_pages(env, &Unlimited, others, Dirty::No) }; }

    /// INV-10: a get is not released as a pin.
    GetReleasedAsPin [E0308] (env: &K, gets: RawGets<[PhysRun; 1]>, pins: RawPins<Read, [PhysRun; 1], Ticket<K>>) {}
    compiles { unsafe { unpin_user_pages(env, &Unlimited, pins, Dirty::No) }; }
    does_not { unsafe { unpin_user_pages(env, &Unlimited, gets, Dirty::No) }; }

    /// INV-10: nor a pin as a get.
    PinReleasedAsGet [E0308] (env: &K, gets: RawGets<[PhysRun; 1]>, pins: RawPins<Read, [PhysRun; 1], Ticket<K>>) {}
    compiles { unsafe { put_user_pages(env, gets) }; }
    does_not { unsafe { put_user_pages(env, pins) }; }

    /// A guard releases what it holds; nobody does it for it.
    GuardReleasedByHand [E0308] (env: &K, pinned: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>) {}
    compiles { unsafe { unpin_user_pages(env, &Unlimited, pinned.into_raw(), Dirty::No) }; }
    does_not { unsafe { unpin_user_pages(env, &Unlimited, pinned, Dirty::No) }; }

    /// Released once.
    UnpinnedTwice [E0382] (env: &K, pins: RawPins<Read, [PhysRun; 1], Ticket<K>>, others: RawPins<Read, [PhysRun; 1], Ticket<K>>) {
        unsafe { unpin_user_pages(env, &Unlimited, pins, Dirty::No) };
    }
    compiles { unsafe { unpin_user_pages(env, &Unlimited, others, Dirty::No) }; }
    does_not { unsafe { unpin_user_pages(env, &Unlimited, pins, Dirty::No) }; }

    /// So is a get.
    PutTwice [E0382] (env: &K, gets: RawGets<[PhysRun; 1]>, others: RawGets<[PhysRun; 1]>) {
        unsafe { put_user_pages(env, gets) };
    }
    compiles { unsafe { put_user_pages(env, others) }; }
    does_not { unsafe { put_user_pages(env, gets) }; }

    /// What was given away without a guard is not in the guard any more.
    GuardAfterIntoRaw [E0382] (pinned: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>) {
        let pages = pinned.pages();
        let raw = pinned.into_raw();
    }
    compiles { let _ = pages; }
    does_not { drop(pinned); }

    /// Two guards of one pin would release it twice.
    PinCloned [E0599] (pins: RawPins<Read, [PhysRun; 1], Ticket<K>>) {}
    compiles { let runs = pins.runs().to_vec(); }
    does_not { let copy = pins.clone(); }

    /// A guard that nobody holds protects nothing.
    PinForgotten [deny unused_must_use] (pinned: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>) {}
    compiles { let range = pinned.complete().unwrap(); }
    does_not { pinned.complete().unwrap(); }

    /// Pins without a guard are released by nobody.
    RawPinForgotten [deny unused_must_use] (pinned: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>) {}
    compiles { let pins = pinned.into_raw(); }
    does_not { pinned.into_raw(); }

    /// The runs are worth nothing once the pages are unpinned.
    RunsAfterUnpin [E0505] (pinned: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>) {
        let runs = pinned.runs();
    }
    compiles { let first = runs[0]; drop(pinned); }
    does_not { drop(pinned); let first = runs[0]; }

    /// Nor are their addresses.
    BytesAfterUnpin [E0505] (pinned: PinnedPage<'_, UserSpace<K>, Read>) {
        let mut bytes = pinned.byte_runs();
    }
    compiles { bytes.next(); drop(bytes); drop(pinned); }
    does_not { drop(pinned); bytes.next(); }

    /// Nor are pointers to them.
    PointerAfterUnpin [E0505] (pinned: PinnedPage<'_, UserSpace<K>, Write>) {
        let byte = unsafe { pinned.byte_mut(0) }.unwrap();
    }
    compiles { byte.write(1); drop(pinned); }
    does_not { drop(pinned); byte.write(1); }

    /// What a guard will release is not changed under it.
    BufferChangedWhilePinned [E0506] (env: &K, space: &UserSpace<K>, range: UserRange) {
        let mut runs = [PhysRun::default(); 1];
        let pinned = pin_user_pages(space, Read, range, PinFlags::empty(), &mut runs);
    }
    compiles { drop(pinned); runs[0] = PhysRun::default(); }
    does_not { runs[0] = PhysRun::default(); drop(pinned); }

    /// Nor by a buffer that shows other runs than it was given: such a type has no promise to show.
    BufferOfOnesOwn [E0277] (env: &K, space: &UserSpace<K>, range: UserRange, runs: [PhysRun; 1]) {
        struct Mine([PhysRun; 1]);
        impl AsRef<[PhysRun]> for Mine { fn as_ref(&self) -> &[PhysRun] { &self.0 } }
        impl AsMut<[PhysRun]> for Mine { fn as_mut(&mut self) -> &mut [PhysRun] { &mut self.0 } }
    }
    compiles { pin_user_pages(space, Read, range, PinFlags::empty(), Mine(runs).0); }
    does_not { pin_user_pages(space, Read, range, PinFlags::empty(), Mine(runs)); }

    /// A part is not taken for the whole: bytes are reached once it is known that all are there.
    PartAsWhole [E0599] (pinned: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>) {}
    compiles { pinned.complete().unwrap().copy_to(0, &mut [0; 8]).unwrap(); }
    does_not { pinned.copy_to(0, &mut [0; 8]).unwrap(); }

    /// A get is not for a device.
    GetForDma [E0599] (got: GotPages<'_, K, [PhysRun; 1]>, pinned: PinnedPages<'_, UserSpace<K>, Read, [PhysRun; 1]>) {}
    compiles { pinned.complete().unwrap().byte_runs().count(); }
    does_not { got.complete().unwrap().byte_runs().count(); }
}

must_not_compile! {
    /// That a device has stopped is the driver's word.
    LoanCompletedSafely [E0133] (pinned: PinnedPage<'_, UserSpace<K>, Write>) {
        let lent = pinned.lend();
    }
    compiles { let pinned = unsafe { lent.complete() }; }
    does_not { let pinned = lent.complete(); }

    /// What a device may be writing is not unpinned: it comes back first.
    LoanReleased [E0599] (pinned: PinnedPage<'_, UserSpace<K>, Write>) {
        let lent = pinned.lend();
    }
    compiles { unsafe { lent.complete() }.release(); }
    does_not { lent.release(); }

    /// Nor is it read or written by the kernel meanwhile.
    LoanWritten [E0599] (pinned: PinnedPage<'_, UserSpace<K>, Write>) {
        let lent = pinned.lend();
    }
    compiles { unsafe { lent.complete() }.copy_from(0, &[1]).unwrap(); }
    does_not { lent.copy_from(0, &[1]).unwrap(); }

    /// It comes back once.
    LoanCompletedTwice [E0382] (pinned: PinnedPage<'_, UserSpace<K>, Write>) {
        let lent = pinned.lend();
        let device = lent.device();
        let pinned = unsafe { lent.complete() };
    }
    compiles { let _ = device; }
    does_not { let pinned = unsafe { lent.complete() }; }

    /// A loan that nobody holds is lost at once.
    LoanForgotten [deny unused_must_use] (pinned: PinnedPage<'_, UserSpace<K>, Write>) {}
    compiles { let lent = pinned.lend(); }
    does_not { pinned.lend(); }
}

must_not_compile! {
    /// A pin that its holder can be asked for is given back once, and says so then.
    HeldReleasedApart [E0507] (held: Held<'_, PinnedPage<'_, UserSpace<K>, Write>>) {}
    compiles { held.keep().release(); }
    does_not { held.release(); }

    /// An entry belongs to its set for good, which may look at it at any time.
    EntryMovedAway [E0505] (pinned: PinnedPage<'_, UserSpace<K>, Write>, set: &'static RevocableSet<'static>, driver: &'static dyn Revoke, space: &UserSpace<K>) {
        let entry: &'static Revocable<'static> = Box::leak(Box::new(Revocable::new(set, driver)));
        let mine = Revocable::new(set, driver);
    }
    compiles { let held = pinned.register(entry, space); }
    does_not { let held = pinned.register(&mine, space); drop(mine); }
}
