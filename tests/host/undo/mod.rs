//! INV-14 for any operation and anything that stands in its way: after a failure the machine is what it was before, bit
//! for bit, and with the obstacle gone the operation ends where it would have ended at once.

mod obstacle;
mod operations;
mod own_vmas;
mod pins;
mod scene;

use std::fmt::{self, Debug};

use pagepin::frame::Layout;
use pagepin::pin::{PinAccess, PinError};

use crate::machine::{Gets, Image, Machine, Pins, Process};

pub(crate) use obstacle::Obstacle;
pub(crate) use operations::{fault, fork_vmas, operations};
pub(crate) use own_vmas::OwnVmas;
pub(crate) use pins::{few_pages, pinning, pins};
pub(crate) use scene::{
    Scene, apart, contended, furnished, gap, kernel_entry, limited, one_by_one, populated, refusing, wide,
    with_empty_child,
};

/// What an operation that succeeded left in the caller's hands.
pub(crate) trait Kept<'m, L: Layout> {
    /// A process, to be looked at with those of the scene.
    fn process(&self) -> Option<&Process<'m, L>> {
        None
    }
}

impl<L: Layout> Kept<'_, L> for () {}
impl<'m, L: Layout> Kept<'m, L> for Process<'m, L> {
    fn process(&self) -> Option<&Process<'m, L>> {
        Some(self)
    }
}
impl<'m, L: Layout, X: PinAccess> Kept<'m, L> for Pins<'_, 'm, L, X> {}
impl<'m, L: Layout> Kept<'m, L> for Gets<'_, 'm, L> {}

/// Why an operation failed.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) why: String,
    /// Pages of its range that it had made ready: these stay as if no more had been asked for.
    pub(crate) ready_pages: u64,
}

/// What an operation came to.
pub(crate) type Done<'s, 'm, L> = Result<Box<dyn Kept<'m, L> + 's>, Refused>;

/// The outcome of an operation that does everything or nothing.
pub(crate) fn done<'s, 'm, L: Layout, T: Kept<'m, L> + 's, E: Debug>(result: Result<T, E>) -> Done<'s, 'm, L> {
    match result {
        Ok(kept) => Ok(Box::new(kept)),
        Err(error) => Err(Refused { why: format!("{error:?}"), ready_pages: 0 }),
    }
}

/// A pin of a whole range, or nothing. What was pinned when it stopped short is given back.
pub(crate) fn complete<'s, 'm: 's, L: Layout, X: PinAccess>(
    result: Result<Pins<'s, 'm, L, X>, PinError>,
) -> Done<'s, 'm, L> {
    match result {
        Ok(pins) => match pins.stopped() {
            None => Ok(Box::new(pins)),
            Some(stopped) => {
                let ready_pages = pins.pages();
                assert_eq!(stopped.page_index, ready_pages);
                assert_eq!(pins.complete().err(), Some(stopped.reason));
                Err(Refused { why: format!("{:?}", stopped.reason), ready_pages })
            }
        },
        Err(error) => done::<L, (), _>(Err(error)),
    }
}

type Run<L> = Box<dyn for<'s, 'm> Fn(&'m Machine<L>, &'s Scene<'m, L>, u64) -> Done<'s, 'm, L>>;

/// A public operation of the library on a scene.
pub(crate) struct Operation<L: Layout> {
    pub(crate) name: String,
    /// Frames it allocates if nothing fails.
    pub(crate) allocations: u64,
    /// Pages of its range, if less than the range can be asked for.
    pub(crate) pages: u64,
    /// Memory of its machine.
    frames: usize,
    scene: for<'m> fn(&'m Machine<L>) -> Scene<'m, L>,
    run: Run<L>,
}

/// An operation that does everything or nothing.
pub(crate) fn operation<L: Layout>(
    name: impl Into<String>,
    allocations: u64,
    scene: for<'m> fn(&'m Machine<L>) -> Scene<'m, L>,
    run: impl for<'s, 'm> Fn(&'m Machine<L>, &'s Scene<'m, L>) -> Done<'s, 'm, L> + 'static,
) -> Operation<L> {
    operation_on(name, allocations, 0, scene, move |machine, scene, _| run(machine, scene))
}

/// An operation on the first of so many pages.
pub(crate) fn operation_on<L: Layout>(
    name: impl Into<String>,
    allocations: u64,
    pages: u64,
    scene: for<'m> fn(&'m Machine<L>) -> Scene<'m, L>,
    run: impl for<'s, 'm> Fn(&'m Machine<L>, &'s Scene<'m, L>, u64) -> Done<'s, 'm, L> + 'static,
) -> Operation<L> {
    Operation { name: name.into(), allocations, pages, frames: 128, scene, run: Box::new(run) }
}

impl<L: Layout> Operation<L> {
    /// On a machine with room for large leaves.
    pub(crate) fn with_large_memory(self) -> Self {
        Self { frames: 8192, ..self }
    }

    /// Calls `look` with the scene on a machine of its own.
    pub(crate) fn on_scene<R>(&self, look: impl for<'m> FnOnce(&'m Machine<L>, &Scene<'m, L>) -> R) -> R {
        let machine = Machine::new(self.frames);
        let scene = (self.scene)(&machine);
        look(&machine, &scene)
    }

    /// Runs it as it is; it must fail and change nothing.
    #[track_caller]
    pub(crate) fn refuses(&self) -> Refused {
        self.on_scene(|machine, scene| {
            let before = scene.image(machine, None);
            let refused = (self.run)(machine, scene, self.pages).err();
            before.assert_same(&scene.image(machine, None), &self.name);
            refused.unwrap_or_else(|| panic!("{}: it was not refused", self.name))
        })
    }

    fn succeed<'s, 'm>(
        &self,
        machine: &'m Machine<L>,
        scene: &'s Scene<'m, L>,
        pages: u64,
        when: impl fmt::Display,
    ) -> Box<dyn Kept<'m, L> + 's> {
        (self.run)(machine, scene, pages).unwrap_or_else(|refused| panic!("{}, {when}: {refused:?}", self.name))
    }

    /// The state after its first `pages` pages have succeeded and were given back, if any, with `obstacle` there.
    fn after_part(&self, pages: u64, obstacle: &Obstacle) -> Image {
        self.on_scene(|machine, scene| {
            obstacle.put(machine, scene);
            drop(self.succeed(machine, scene, pages, "in part"));
            let image = scene.image(machine, None);
            obstacle.lift(machine, scene);
            image
        })
    }

    /// The state after it has succeeded at once, or for the first `pages` pages, which were given back, and then for all.
    pub(crate) fn ideal(&self, pages: u64) -> Image {
        self.on_scene(|machine, scene| {
            if pages > 0 {
                drop(self.succeed(machine, scene, pages, "in part"));
            }
            let kept = self.succeed(machine, scene, self.pages, "at once");
            scene.image(machine, kept.process())
        })
    }

    /// Runs it against `obstacle`, and without. `None`: nothing was in its way. Otherwise what it said, after all of this
    /// was found to be so:
    /// - if it made nothing ready, the machine is as it was; else as if just that had been asked for and given back;
    /// - tried again, it succeeds, and ends in the state `ideal`, or in that of a success in two steps.
    pub(crate) fn fails_without_a_trace(&self, obstacle: &Obstacle, ideal: &Image) -> Option<Refused> {
        self.on_scene(|machine, scene| {
            let when = format!("{}, {obstacle:?}", self.name);
            obstacle.put(machine, scene);
            let before = scene.image(machine, None);
            obstacle.arm(machine);
            let result = (self.run)(machine, scene, self.pages);
            obstacle.disarm(machine);
            let refused = match result {
                Ok(kept) => {
                    drop(kept);
                    obstacle.lift(machine, scene);
                    return None;
                }
                Err(refused) => refused,
            };
            let after = scene.image(machine, None);
            let in_part = refused.ready_pages > 0;
            if in_part {
                self.after_part(refused.ready_pages, obstacle).assert_same(&after, format!("{when}, in part"));
            } else {
                before.assert_same(&after, &when);
            }
            obstacle.lift(machine, scene);
            let kept = self.succeed(machine, scene, self.pages, &when);
            let image = scene.image(machine, kept.process());
            if in_part {
                self.ideal(refused.ready_pages).assert_same(&image, format!("{when}, tried again"));
            } else {
                ideal.assert_same(&image, format!("{when}, tried again"));
            }
            Some(refused)
        })
    }
}
