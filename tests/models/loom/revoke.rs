//! A pin is asked for while its driver gives it back, or keeps it and says so to nobody.

use pagepin::model::Safeguard;
use pagepin::pin::{
    Answer, Outcome, PhysRun, PinFlags, PinnedPages, Revocable, RevocableSet, Revoke, Write, pin_user_pages,
};
use pagepin::{AddressSpace, UserRange};

use super::acts::range;
use super::checker::Bound;
use super::kernel::{Epoch, Tables, with_kernel};
use super::runner::Model;

const PINNED: &str = "a pin was granted, and the frame is pinned";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "revoke x release",
        bound: Bound::AtMost(3),
        body: || revoke(End::GivenBack),
        twins: &[(Safeguard::UnpinBeforeGrant, &[PINNED]), (Safeguard::RevokeOrdering, &[PINNED])],
    },
    Model {
        name: "revoke x keep",
        bound: Bound::AtMost(3),
        body: || revoke(End::Kept),
        twins: &[(Safeguard::KeepIsNoGrant, &[PINNED])],
    },
];

/// Gives nothing up when asked; but its request may be completed meanwhile.
struct Busy;

impl Revoke for Busy {
    fn revoke(&self, _: UserRange) -> Answer {
        Answer::Refused
    }
}

/// What the driver does with its pin, without being asked.
#[derive(Clone, Copy, PartialEq)]
enum End {
    GivenBack,
    Kept,
}

fn revoke(end: End) {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let set: &'static RevocableSet<'static> = Box::leak(Box::new(RevocableSet::new()));
        let entry: &'static Revocable<'static> = Box::leak(Box::new(Revocable::new(set, &Busy)));
        let pins = pin_user_pages(&*space, Write, range(1), PinFlags::LONGTERM, [PhysRun::default()]);
        let pins = pins.and_then(PinnedPages::complete).expect("the page is there").into_owned();
        let frame = pins.runs()[0].first();
        let held = pins.register(entry, &*space).map_err(|(_, error)| error).expect("a free entry");
        let driver = kernel.on_cpu(1, move || match end {
            End::GivenBack => {
                drop(held);
                None
            }
            End::Kept => Some(held.keep()),
        });
        let mut outcome = None;
        set.ask(space.mm().root(), range(1), |_, what| outcome = Some(what));
        let pins = kernel.memory.snapshot(frame).pins;
        assert!(outcome != Some(Outcome::Granted) || pins == 0, "{PINNED}");
        assert!(matches!(outcome, None | Some(Outcome::Granted | Outcome::Refused)));
        let kept = driver.join().expect("no panic");
        assert!(set.ask(space.mm().root(), range(1), |_, _| ()).is_clear());
        drop(kept);
        kernel.audit(&[&space], &[]);
    });
}
