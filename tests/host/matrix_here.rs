//! The [matrix](crate::matrix), on the emulated machine.

use std::sync::Arc;

use pagepin::frame::Layout;
use pagepin::pin::{GotPages, OwnedPins, PhysRun, PinAccess, PinError, PinFlags, RawGets, Read, Write};
use pagepin::space::{Copies, Sharing};
use pagepin::{MapOptions, MemoryType, ObjectId, Pfn, PinLimit, VmaFlags, Zone};

use crate::forms::{self, Form};
use crate::machine::{A, Machine, PAGE, Process, R, RW, range};
use crate::matrix::{Act, Extent, FIRST, Hold, Kind, Side, What, World, cases, play};

const FILE: ObjectId = ObjectId(3);
const REGISTERS: Pfn = Pfn::new(0x8_0000);
/// Where the page may be moved.
const BESIDE: u64 = A + 16 * PAGE;
/// A page of the file before the one that is looked at.
const BEFORE: u32 = 0;

type Owned<'m, L, A> = OwnedPins<&'m Machine<L>, Arc<PinLimit>, A, Vec<PhysRun>>;

enum Held<'m, L: Layout> {
    Read(Owned<'m, L, Read>),
    Write(Owned<'m, L, Write>),
    Got(RawGets<Vec<PhysRun>>),
}

struct Here<'m, L: Layout> {
    /// The kernel, which outlives what is held.
    kernel: &'m &'m Machine<L>,
    sides: [Option<(Process<'m, L>, u64)>; 2],
    /// A process that has pages of the same bytes.
    twin: Option<Process<'m, L>>,
    held: Option<Held<'m, L>>,
}

impl<'m, L: Layout> Here<'m, L> {
    fn new(kernel: &'m &'m Machine<L>) -> Self {
        Self { kernel, sides: [None, None], twin: None, held: None }
    }

    fn of(&self, side: Side) -> &(Process<'m, L>, u64) {
        self.sides[side as usize].as_ref().unwrap()
    }

    /// The third process, whose page holds `byte`.
    fn twin(&mut self, byte: u8) -> &Process<'m, L> {
        let kernel = self.kernel;
        let twin = self.twin.get_or_insert_with(|| {
            let twin = kernel.process();
            twin.map(A, PAGE, RW).unwrap();
            twin
        });
        kernel.put(twin, A, byte);
        twin
    }

    /// The side's page and the third process's become one, if nobody objects.
    fn merge(&mut self, side: Side) {
        let Some(byte) = self.read(side) else { return };
        self.twin(byte);
        let ((process, at), twin) = (self.of(side), self.twin.as_ref().unwrap());
        _ = process.merge(*at, twin, A);
    }

    fn first(&self) -> u64 {
        let runs = match self.held.as_ref().unwrap() {
            Held::Read(pins) => pins.runs(),
            Held::Write(pins) => pins.runs(),
            Held::Got(gets) => gets.runs(),
        };
        runs[0].first().address()
    }

    fn pin<A: PinAccess>(&self, side: Side, form: Form, flags: PinFlags) -> Result<Owned<'m, L, A>, PinError> {
        let (process, at) = self.of(side);
        Ok(forms::pin::<A, L>(form, process, range(process, *at, 1), flags, 1)?.into_owned())
    }

    fn try_hold(&self, side: Side, hold: Hold) -> Result<Held<'m, L>, PinError> {
        let form = hold.form;
        let flags = match hold.what {
            What::Pin | What::Get => PinFlags::empty(),
            What::LongtermPin => PinFlags::LONGTERM,
            What::SolePin => PinFlags::SOLE,
        };
        let (process, at) = self.of(side);
        let range = range(process, *at, 1);
        Ok(match (hold.what, hold.writes) {
            (What::Get, false) => Held::Got(forms::get::<Read, L>(form, process, range, flags, 1)?.into_raw()),
            (What::Get, true) => Held::Got(forms::get::<Write, L>(form, process, range, flags, 1)?.into_raw()),
            (_, false) => Held::Read(self.pin(side, form, flags)?),
            (_, true) => Held::Write(self.pin(side, form, flags)?),
        })
    }
}

impl<L: Layout> World for Here<'_, L> {
    fn prepare(&mut self, kind: Kind) {
        let process = self.kernel.process();
        let flags = if kind.is_unpinnable() { VmaFlags::UNPINNABLE } else { VmaFlags::empty() };
        let options = MapOptions::new(RW).flags(flags);
        if kind.shows_object() {
            self.kernel.shelf().add(FILE, 2);
            let sharing = if kind.is_shared() { Sharing::Shared } else { Sharing::Private };
            process.map_object(A, 2 * PAGE, FILE, BEFORE, sharing, options).unwrap();
        }
        let at = if kind.shows_object() { A + PAGE } else { A };
        match kind {
            Kind::Foreign => {
                // SAFETY: nobody else has the frame.
                unsafe { process.map_foreign(at, PAGE, REGISTERS, MemoryType::UNCACHED, RW) }.unwrap();
            }
            Kind::Moved => {
                process.map(BESIDE, PAGE, RW).unwrap();
                self.kernel.put(&process, BESIDE, FIRST);
                process.move_pages(BESIDE, PAGE, at).unwrap();
            }
            _ if kind.shows_object() => {}
            _ => process.map(at, PAGE, options).unwrap(),
        }
        match kind {
            Kind::Untouched | Kind::Foreign | Kind::Moved => {}
            Kind::Zero | Kind::Borrowed | Kind::Shared | Kind::SharedSecret => _ = self.kernel.get(&process, at),
            _ => self.kernel.put(&process, at, FIRST),
        }
        if matches!(kind, Kind::Swapped | Kind::WrittenOut) {
            assert_eq!(process.swap_out(at, PAGE).unwrap().pages, 1);
        }
        if kind == Kind::WrittenOut {
            self.kernel.write_out();
        }
        self.sides[0] = Some((process, at));
        if kind == Kind::Merged {
            self.merge(Side::Parent);
            let twin = self.twin.take().unwrap();
            let (process, at) = self.of(Side::Parent);
            let frames = [self.kernel.frame_at(process, *at).0, self.kernel.frame_at(&twin, A).0];
            assert_eq!(frames[0], frames[1]);
        }
    }

    fn fork(&mut self, side: Side) {
        let (process, at) = self.of(side);
        self.sides[1] = Some((process.fork().unwrap(), *at));
    }

    fn read(&mut self, side: Side) -> Option<u8> {
        let (process, at) = self.sides[side as usize].as_ref()?;
        self.kernel.load(side as usize, process, *at, 1).ok().map(|byte| byte as u8)
    }

    fn write(&mut self, side: Side, byte: u8) -> bool {
        let (process, at) = self.of(side);
        self.kernel.store(side as usize, process, *at, byte.into(), 1).is_ok()
    }

    fn hold(&mut self, side: Side, hold: Hold) -> bool {
        self.held = self.try_hold(side, hold).ok();
        self.held.is_some()
    }

    fn device_read(&mut self) -> u8 {
        self.kernel.dma_read(self.first())
    }

    fn device_write(&mut self, byte: u8) {
        self.kernel.dma_write(self.first(), &[byte]);
    }

    fn act(&mut self, side: Side, act: Act) {
        let kernel = self.kernel;
        let there = self.sides[side as usize].as_mut();
        match (act, there) {
            (Act::Protect, Some((process, at))) => {
                process.protect(*at, PAGE, R).unwrap();
                assert!(kernel.store(side as usize, process, *at, 0, 1).is_err());
                process.protect(*at, PAGE, RW).unwrap();
            }
            (Act::Move, Some((process, at))) => {
                let to = if *at == BESIDE { BESIDE + PAGE } else { BESIDE };
                process.move_pages(*at, PAGE, to).unwrap();
                *at = to;
            }
            (Act::SwapOut, Some((process, at))) => {
                process.swap_out(*at, PAGE).unwrap();
                kernel.write_out();
            }
            (Act::Relocate, Some((process, at))) => _ = process.relocate(*at, PAGE, Zone::Unmovable).unwrap(),
            (Act::Merge, Some(_)) => {
                self.merge(side);
                self.twin(0xee);
            }
            (Act::FreeLazily, Some((process, at))) => _ = process.free_lazily(*at, PAGE).unwrap(),
            (Act::Reclaim, Some((process, at))) => _ = process.reclaim_freed(*at, PAGE).unwrap(),
            (Act::Discard, Some((process, at))) => _ = process.discard(*at, PAGE).unwrap(),
            (Act::Unmap, Some((process, at))) => {
                process.unmap(*at, PAGE).unwrap();
                assert!(kernel.load(side as usize, process, *at, 1).is_err());
                self.sides[side as usize] = None;
            }
            (Act::Exit, Some(_)) => self.sides[side as usize] = None,
            (Act::WriteBack, _) => {
                let there = kernel.shelf().frame(FILE, 1).is_some();
                if there && kernel.begin_writeback(FILE, 1).is_ok() {
                    for (process, _) in self.sides.iter().flatten() {
                        process.write_protect_object(FILE, 1..2).unwrap();
                    }
                    kernel.end_writeback(FILE, 1);
                }
            }
            (Act::Truncate, _) => {
                kernel.cut(FILE, 1);
                for (process, _) in self.sides.iter().flatten() {
                    process.forget_object(FILE, 1..u32::MAX, Copies::Forget).unwrap();
                }
            }
            (act, _) => panic!("{act:?} by nobody"),
        }
    }

    fn let_go(&mut self) {
        match self.held.take().unwrap() {
            Held::Read(pins) => drop(pins),
            Held::Write(pins) => drop(pins),
            // SAFETY: they were got from this kernel.
            Held::Got(gets) => drop(unsafe { GotPages::from_raw(self.kernel, gets) }),
        }
    }
}

/// Plays a case on a machine of its own; whether the page was held.
fn on_a_machine<L: Layout>(case: &crate::matrix::Case) -> bool {
    let machine = Machine::<L>::new(48);
    let kernel = &machine;
    let held = {
        let mut here = Here::new(&kernel);
        let held = play(case, &mut here);
        let spaces: Vec<_> = here.sides.iter().flatten().map(|(process, _)| process).chain(&here.twin).collect();
        machine.audit(&spaces, &Default::default());
        held
    };
    machine.clear_shelf();
    held
}

/// How many were played, and in how many of them the page was held.
fn all<L: Layout>(kind: Kind, extent: Extent) {
    let (mut played, mut held) = (0, 0);
    for case in cases(kind, extent) {
        let result = std::panic::catch_unwind(|| on_a_machine::<L>(&case));
        held += u64::from(result.unwrap_or_else(|panic| {
            eprintln!("{case:?}");
            std::panic::resume_unwind(panic)
        }));
        played += 1;
    }
    println!("{kind:?}, {extent:?}: {played} cases, in {held} of them the page was held");
    assert_eq!(held > played / 2, !kind.is_unpinnable());
}

fn usual_holds_and_each_operation<L: Layout>() {
    Kind::ALL.into_iter().for_each(|kind| all::<L>(kind, Extent::Usual));
}

every_layout!(usual_holds_and_each_operation);

#[cfg(not(pagepin_one_layout))]
macro_rules! every_kind {
    ($($name:ident: $kind:ident),* $(,)?) => {
        mod every_hold_and_each_operation {
            $(#[test] fn $name() { super::all::<pagepin::frame::Wide>(super::Kind::$kind, super::Extent::Holds); })*
        }

        mod usual_holds_and_each_two_operations {
            $(#[test] fn $name() { super::all::<pagepin::frame::Wide>(super::Kind::$kind, super::Extent::Pairs); })*
        }
    };
}

#[cfg(not(pagepin_one_layout))]
every_kind! {
    base: Base, untouched: Untouched, zero: Zero, moved: Moved, swapped: Swapped, written_out: WrittenOut, merged: Merged,
    borrowed: Borrowed, copied: Copied, shared: Shared, secret: Secret, shared_secret: SharedSecret,
}
