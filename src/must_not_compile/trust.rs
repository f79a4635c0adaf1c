//! What only an `unsafe` may say, and what nothing may.

must_not_compile! {
    /// An entry in memory is an atomic behind an address, not a place.
    EntryAssigned [E0614] (env: &K, at: EntryAddr, entry: Entry) {}
    compiles { unsafe { env.phys_map().store_entry(at, entry) }; }
    does_not { *at = entry; }

    /// Whoever stores one vouches for the table and the lock.
    EntryStoredSafely [E0133] (env: &K, at: EntryAddr, entry: Entry) {}
    compiles { unsafe { env.phys_map().store_entry(at, entry) }; }
    does_not { env.phys_map().store_entry(at, entry); }

    /// INV-1: whoever maps a frame vouches for its reference and its rights.
    FilledSafely [E0133] (mut tables: Tables<'_, K>, at: EntryAddr, size: LeafSize, entry: Entry) {}
    compiles { let filled = unsafe { tables.fill(at, size, entry) }; }
    does_not { let filled = tables.fill(at, size, entry); }

    /// A slot may be old or made up.
    BrokenSafely [E0133] (mut tables: Tables<'_, K>, slot: Slot) {}
    compiles { let settled = unsafe { tables.break_leaf(slot) }.unwrap().flush(); }
    does_not { let settled = tables.break_leaf(slot).unwrap().flush(); }

    /// The mm lock is the caller's word.
    ZappedSafely [E0133] (env: &K, mm: &Mm<K>, range: UserRange) {}
    compiles { unsafe { space::zap_pages(mm, range, space::EmptyTables::Free) }; }
    does_not { space::zap_pages(mm, range, space::EmptyTables::Free); }

    /// A kernel half is shared by all, so it is vouched for.
    AnyFrameAsKernelHalf [E0308] (frame: Pfn, half: KernelHalf) {}
    compiles { let options = SpaceOptions::new(half); }
    does_not { let options = SpaceOptions::new(frame); }

    /// A root without a kernel cannot be made by leaving something out.
    KernelHalfLeftOut [E0308] () {}
    compiles { let options = SpaceOptions::without_kernel_half(Levels::Four); }
    does_not { let options = SpaceOptions::new(Levels::Four); }

    /// A count that goes without its user frees memory that is in use.
    PutSafely [E0599] (frame: &PageFrame) {}
    compiles { let last = unsafe { frame.word() }.put(); }
    does_not { let last = frame.put(); }

    /// What a word counts is the owner's word.
    WordTakenSafely [E0133] (frame: &PageFrame) {}
    compiles { let word = unsafe { frame.word() }; }
    does_not { let word = frame.word(); }

    /// The parts of a kernel belong together, or frames go back to where they did not come from.
    PartsPutTogetherSafely [E0133] (map: K::PhysMap, table: K::Frames, source: K::Source, side: K::ReadSide, tlbs: K::Shootdown) {}
    compiles { let kernel = unsafe { Platform::new(map, table, source, side, tlbs) }; }
    does_not { let kernel = Platform::new(map, table, source, side, tlbs); }

    /// A frame's word is one place in memory; a copy would count for itself.
    WordCopied [E0507] (frame: &PageFrame) {}
    compiles { let copy = frame.snapshot(); }
    does_not { let copy = *frame; }

    /// INV-15: no address from user space reaches a call unchecked.
    RangeUnchecked [E0451] (start: u64, length: u64) {}
    compiles { let range = UserRange::new(Levels::Four.user_half(), start, length); }
    does_not { let range = UserRange { start, length }; }

    /// Whoever loads a root vouches for what it maps, and how long.
    RootLoadedSafely [E0133] (smp: &impl SwitchMm, root: Pfn) {}
    compiles { unsafe { smp.switch_mm(root) }; }
    does_not { smp.switch_mm(root); }
}
