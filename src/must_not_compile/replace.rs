//! Break -> flush -> publish, and the lock under which that happens.

must_not_compile! {
    /// INV-8: a new entry comes after the flush.
    PublishBeforeFlush [E0599] (mut tables: Tables<'_, K>, slot: Slot, new: Entry) {
        let broken = unsafe { tables.break_leaf(slot) };
    }
    compiles { let old = unsafe { broken.flush().publish(new) }; }
    does_not { let old = unsafe { broken.publish(new) }; }

    /// INV-12: the old frame goes after the flush.
    ReleaseBeforeFlush [E0599] (env: &K, mut tables: Tables<'_, K>, slot: Slot) {
        let broken = unsafe { tables.break_leaf(slot) };
    }
    compiles { broken.flush().leave_empty().release(env); }
    does_not { broken.release(env); }

    /// The old frame goes once something is decided for the place that named it.
    ReleaseBeforePublish [E0599] (env: &K, mut tables: Tables<'_, K>, slot: Slot) {
        let settled = unsafe { tables.break_leaf(slot) }.flush();
    }
    compiles { settled.leave_empty().release(env); }
    does_not { settled.release(env); }

    /// A broken leaf is flushed.
    BrokenForgotten [deny unused_must_use] (mut tables: Tables<'_, K>, slot: Slot) {}
    compiles { let settled = unsafe { tables.break_leaf(slot) }.flush(); }
    does_not { unsafe { tables.break_leaf(slot) }; }

    /// A settled place gets an entry, or is left empty on purpose.
    SettledForgotten [deny unused_must_use] (mut tables: Tables<'_, K>, slot: Slot) {}
    compiles { let old = unsafe { tables.break_leaf(slot) }.flush().leave_empty(); }
    does_not { unsafe { tables.break_leaf(slot) }.flush(); }

    /// An old frame is released.
    OldLeafForgotten [deny unused_must_use] (env: &K, mut tables: Tables<'_, K>, slot: Slot) {}
    compiles { unsafe { tables.break_leaf(slot) }.flush().leave_empty().release(env); }
    does_not { unsafe { tables.break_leaf(slot) }.flush().leave_empty(); }

    /// One entry for one place.
    PublishTwice [E0382] (mut tables: Tables<'_, K>, slot: Slot, new: Entry) {
        let settled = unsafe { tables.break_leaf(slot) }.flush();
        let old = settled.leave_empty();
    }
    compiles { let again = unsafe { tables.break_leaf(slot) }.flush().leave_empty(); }
    does_not { let again = settled.leave_empty(); }

    /// The entry held one reference.
    ReleaseOldLeafTwice [E0382] (env: &K, old: OldLeaf) {
        let frame = old.frame();
        old.release(env);
    }
    compiles { let _ = frame; }
    does_not { old.release(env); }

    /// Between break and flush nothing else is done with the tables: an entry that looks empty is not one yet.
    FaultWhileBroken [E0502] (mut tables: Tables<'_, K>, slot: Slot, page: PageAddr) {
        let broken = unsafe { tables.break_leaf(slot) };
    }
    compiles { let old = broken.flush().leave_empty(); let other = tables.find(page); }
    does_not { let other = tables.find(page); let old = broken.flush().leave_empty(); }

    /// Nor is a second leaf broken: each flush is for its own.
    TwoBroken [E0499] (mut tables: Tables<'_, K>, slots: [Slot; 2]) {
        let first = unsafe { tables.break_leaf(slots[0]) };
    }
    compiles { first.flush().leave_empty(); let second = unsafe { tables.break_leaf(slots[1]) }.flush(); }
    does_not { let second = unsafe { tables.break_leaf(slots[1]) }.flush(); first.flush().leave_empty(); }
}

must_not_compile! {
    /// A lock that nobody holds protects nothing.
    LockForgotten [deny unused_must_use] (env: &K, mm: &Mm<K>) {}
    compiles { let tables = Tables::lock(mm); }
    does_not { Tables::lock(mm); }

    /// What is broken is flushed under the lock.
    BrokenWithoutLock [E0505] (mut tables: Tables<'_, K>, slot: Slot) {
        let broken = unsafe { tables.break_leaf(slot) };
    }
    compiles { let old = broken.flush().leave_empty(); drop(tables); }
    does_not { drop(tables); let old = broken.flush().leave_empty(); }

    /// What is settled is published under the lock.
    SettledWithoutLock [E0505] (mut tables: Tables<'_, K>, slot: Slot) {
        let settled = unsafe { tables.break_leaf(slot) }.flush();
    }
    compiles { let old = settled.leave_empty(); drop(tables); }
    does_not { drop(tables); let old = settled.leave_empty(); }

    /// A broken leaf does not leave the block that holds the lock.
    BrokenEscapes [E0597] (env: &K, mm: &Mm<K>, slot: Slot) {}
    compiles { let old = { let mut tables = Tables::lock(mm); unsafe { tables.break_leaf(slot) }.flush().leave_empty() }; }
    does_not { let old = { let mut tables = Tables::lock(mm); unsafe { tables.break_leaf(slot) } }.flush().leave_empty(); }

    /// Locked tables do not outlive their mm.
    TablesOutliveMm [E0505] (env: &K, mm: Mm<K>) {
        let tables = Tables::lock(&mm);
    }
    compiles { drop(tables); drop(mm); }
    does_not { drop(mm); drop(tables); }

    /// Other CPUs spin for the lock, so its holder stays where it runs.
    TablesSent [E0277] (tables: Tables<'_, K>, old: OldLeaf) {}
    compiles { to_another_thread(old); }
    does_not { to_another_thread(tables); }

    /// And with it whatever is broken.
    BrokenSent [E0277] (mut tables: Tables<'_, K>, slot: Slot) {
        let broken = unsafe { tables.break_leaf(slot) };
    }
    compiles { to_another_thread(broken.flush().leave_empty()); }
    does_not { to_another_thread(broken); }

    /// And what is settled.
    SettledSent [E0277] (mut tables: Tables<'_, K>, slot: Slot) {
        let settled = unsafe { tables.break_leaf(slot) }.flush();
    }
    compiles { to_another_thread(settled.leave_empty()); }
    does_not { to_another_thread(settled); }

    /// Tables that are borrowed are not changed: the borrower looks at them.
    FillBehindABorrow [E0596] (tables: &Tables<'_, K>, at: EntryAddr, size: LeafSize, entry: Entry, page: PageAddr) {}
    compiles { let slot = tables.find(page); }
    does_not { unsafe { tables.fill(at, size, entry) }; }
}
