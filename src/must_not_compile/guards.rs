//! What may outlive what, and go to which thread.

must_not_compile! {
    /// Owned pins need the kernel that takes them back, and only that.
    PinOutlivesKernel [E0505] (kernel: K, range: UserRange) {
        let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
        let pinned = space.pin(Read, range, [PhysRun::default(); 1]).unwrap().into_owned();
        drop(space);
    }
    compiles { drop(pinned); drop(kernel); }
    does_not { drop(kernel); drop(pinned); }

    /// Borrowed ones need the address space as well; what must outlive that is made its own owner first.
    PinOutlivesSpace [E0505] (space: UserSpace<K>, range: UserRange) {
        let pinned = space.pin(Read, range, [PhysRun::default(); 1]).unwrap();
    }
    compiles { let pinned = pinned.into_raw(); drop(space); }
    does_not { drop(space); let pinned = pinned.into_raw(); }

    /// An address space gives its tables back to its kernel.
    SpaceOutlivesKernel [E0505] (kernel: K) {
        let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four));
    }
    compiles { drop(space); drop(kernel); }
    does_not { drop(kernel); drop(space); }

    /// INV-13: a walk belongs to the CPU that does it. A pin goes to the CPU that takes the completion interrupt.
    WalkSent [E0277] (walk: EpochGuard<'_>, pinned: PinnedPages<'_, UserSpace<K>, Write, [PhysRun; 1]>) {}
    compiles { to_another_thread(pinned); }
    does_not { to_another_thread(walk); }

    /// The state of the interrupts is a CPU's as well. A pin without its guard goes anywhere.
    InterruptsSent [E0277] (walk: <SingleCpu as ReadSide>::Guard<'_>, pins: RawPins<Write, [PhysRun; 1], Ticket<K>>) {}
    compiles { to_another_thread(pins); }
    does_not { to_another_thread(walk); }

    /// A walk is over when its guard is gone.
    WalkForgotten [deny unused_must_use] (env: &K) {}
    compiles { let inside = env.read_side().enter(); }
    does_not { env.read_side().enter(); }

    /// A walk does not outlive what waits for it.
    WalkOutlivesReadSide [E0505] (cpu: impl CurrentCpu) {
        let read_side = EpochReadSide::<_, 1>::new(cpu, || ());
        let walk = read_side.enter();
    }
    compiles { drop(walk); drop(read_side); }
    does_not { drop(read_side); drop(walk); }

    /// What a call that never returns has is never dropped, so exec takes nothing that owns.
    ExecKeepsTheOldProgram [E0277] (current: &CurrentSpace<&'static UserSpace<&'static BootPlatform<SingleCpu, SingleCpu>>, impl CurrentCpu, 1>, new: &'static UserSpace<&'static BootPlatform<SingleCpu, SingleCpu>>, old: std::sync::Arc<u8>) {
    }
    compiles { let old = &old; let _ = current.exec(new, move || { let _kept = old; loop {} }); }
    does_not { let _ = current.exec(new, move || { let _kept = old; loop {} }); }

    /// A CPU stays in an address space for as long as it likes, so it takes a share of it and not a reference.
    EnteredByReference [E0597] (space: std::sync::Arc<UserSpace<&'static BootPlatform<SingleCpu, SingleCpu>>>, cpu: SingleCpu) {}
    compiles { let current = CurrentSpace::<_, _, 1>::new(cpu); let entered = current.enter(space); }
    does_not { let current = CurrentSpace::<_, _, 1>::new(cpu); let entered = current.enter(&*space); }
}
