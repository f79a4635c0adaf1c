//! The packed word against a plain struct that does the same with ordinary numbers.

use pagepin::frame::{CountError, Dirty, FrameKind, FrameWord, Layout, Ownership, Released, Shared};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    HandOut {
        anonymous: bool,
        order: u8,
        exclusive: bool,
    },
    Get,
    Put,
    GetUser,
    PutUser,
    Pin,
    PinExclusive,
    PinSole,
    UnpinSole {
        dirty: bool,
    },
    Unpin {
        dirty: bool,
    },
    Share,
    ShareWithChild,
    UnshareWithChild {
        was_exclusive: bool,
    },
    Claim,
    Freeze {
        refs: u64,
    },
    Unfreeze {
        refs: u64,
    },
    /// To one below the limit, where the reference and the word must still agree.
    NearLimit {
        below: u64,
    },
    MarkDirty,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (any::<bool>(), 0u8..34, any::<bool>())
            .prop_map(|(anonymous, order, exclusive)| Step::HandOut { anonymous, order, exclusive }),
        4 => Just(Step::Get),
        4 => Just(Step::Put),
        3 => Just(Step::GetUser),
        3 => Just(Step::PutUser),
        4 => Just(Step::Pin),
        4 => Just(Step::PinExclusive),
        6 => any::<bool>().prop_map(|dirty| Step::Unpin { dirty }),
        2 => Just(Step::PinSole),
        2 => any::<bool>().prop_map(|dirty| Step::UnpinSole { dirty }),
        1 => Just(Step::Share),
        2 => Just(Step::ShareWithChild),
        2 => any::<bool>().prop_map(|was_exclusive| Step::UnshareWithChild { was_exclusive }),
        2 => Just(Step::Claim),
        1 => (0u64..4).prop_map(|refs| Step::Freeze { refs }),
        2 => (0u64..4).prop_map(|refs| Step::Unfreeze { refs }),
        1 => (0u64..3).prop_map(|below| Step::NearLimit { below }),
        1 => Just(Step::MarkDirty),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
struct Reference {
    /// Without the user's gets, if they are counted apart, and the pins.
    refs: u64,
    gets: u64,
    pins: u64,
    /// The one pin there is, and can be.
    sole: bool,
    exclusive: bool,
    frozen: bool,
    dirty: bool,
    anonymous: bool,
    order: u8,
}

type Answer = Result<Option<Released>, CountError>;

/// What `Biased10` counts a pin as.
const BIAS: u64 = 1024;

impl Reference {
    fn total(&self) -> u64 {
        self.refs + self.gets + self.pins
    }

    /// As the layout shows it: with one count for both kinds, 1024 references are a pin.
    fn seen<L: Layout>(&self) -> Self {
        if L::EXACT { *self } else { Self { refs: self.refs % BIAS, pins: self.pins + self.refs / BIAS, ..*self } }
    }

    /// With one count for both kinds, a put takes a part of a pin if there is nothing else.
    fn borrow<L: Layout>(&mut self) {
        if !L::EXACT && self.refs == 0 && self.pins > 0 {
            (self.refs, self.pins) = (BIAS, self.pins - 1);
        }
    }

    fn unreferenced(&self) -> Result<(), CountError> {
        match (self.total(), self.frozen) {
            (0, true) => Err(CountError::Frozen),
            (0, false) => Err(CountError::Free),
            _ => Ok(()),
        }
    }

    fn can_reference<L: Layout>(&self) -> Result<(), CountError> {
        self.unreferenced()?;
        let used = if L::EXACT { self.refs } else { self.refs + BIAS * self.pins };
        if used >= FrameWord::<L>::MAX_REFS { Err(CountError::Overflow) } else { Ok(()) }
    }

    fn release<L: Layout>(&mut self) -> Released {
        if self.total() == 0 {
            let (order, anonymous) = (self.order, self.anonymous);
            *self = Self::default();
            let kind = if anonymous { FrameKind::Anonymous } else { FrameKind::Table };
            return Released::Last { order, kind };
        }
        Released::Held { pinned: self.seen::<L>().pins > 0 }
    }

    fn apply<L: Layout>(&mut self, step: Step) -> Answer {
        *self = self.seen::<L>();
        let step = match step {
            Step::GetUser if !L::SEPARATE_GETS => Step::Get,
            Step::PutUser if !L::SEPARATE_GETS => Step::Put,
            step => step,
        };
        if matches!(step, Step::Put) {
            self.borrow::<L>();
        }
        match step {
            Step::HandOut { order, .. } if order > 31 => return Err(CountError::NoSuchOrder),
            Step::HandOut { .. } if self.total() > 0 || self.frozen => return Err(CountError::InUse),
            Step::HandOut { anonymous, order, exclusive } => {
                *self = Self { refs: 1, exclusive, anonymous, order, ..Self::default() };
            }
            Step::Get => {
                self.can_reference::<L>()?;
                self.refs += 1;
            }
            Step::GetUser => {
                self.unreferenced()?;
                match (self.pins, self.gets) {
                    (0, gets) if gets == FrameWord::<L>::MAX_GETS => return Err(CountError::Overflow),
                    (0, _) => self.gets += 1,
                    _ => return Err(CountError::OtherKind),
                }
            }
            Step::PutUser if self.gets > 0 => {
                self.gets -= 1;
                return Ok(Some(self.release::<L>()));
            }
            Step::PutUser => return Err(CountError::Underflow),
            Step::Put if self.refs > 0 => {
                self.refs -= 1;
                return Ok(Some(self.release::<L>()));
            }
            Step::Put => return Err(CountError::Underflow),
            Step::Pin | Step::PinExclusive => {
                self.unreferenced()?;
                if !self.exclusive {
                    let by_kind = matches!(step, Step::Pin) && !self.anonymous;
                    return Err(if by_kind { CountError::NotPinnable } else { CountError::NotExclusive });
                }
                if self.gets > 0 {
                    return Err(CountError::OtherKind);
                }
                if self.sole {
                    return Err(CountError::Sole);
                }
                if self.pins >= FrameWord::<L>::MAX_PINS {
                    return Err(CountError::Overflow);
                }
                self.pins += 1;
            }
            Step::PinSole | Step::UnpinSole { .. } if !L::HAS_SOLE => {
                let pin = matches!(step, Step::PinSole);
                return Err(if pin { CountError::NoSole } else { CountError::Underflow });
            }
            Step::PinSole => {
                self.unreferenced()?;
                match *self {
                    Self { exclusive: false, .. } => return Err(CountError::NotExclusive),
                    Self { gets: 1.., .. } => return Err(CountError::OtherKind),
                    Self { pins: 1.., .. } => return Err(CountError::Sole),
                    _ => (self.pins, self.sole) = (1, true),
                }
            }
            Step::UnpinSole { dirty } if self.sole => {
                (self.dirty, self.pins, self.sole) = (self.dirty | dirty, 0, false);
                return Ok(Some(self.release::<L>()));
            }
            Step::UnpinSole { .. } => return Err(CountError::Underflow),
            Step::Unpin { .. } if self.sole => return Err(CountError::Sole),
            Step::Unpin { dirty } if self.pins > 0 => {
                self.dirty |= dirty;
                self.pins -= 1;
                return Ok(Some(self.release::<L>()));
            }
            Step::Unpin { .. } => return Err(CountError::Underflow),
            Step::Share | Step::ShareWithChild => {
                self.unreferenced()?;
                if self.pins > 0 {
                    return Err(CountError::Pinned);
                }
                self.can_reference::<L>()?;
                self.exclusive = false;
                self.refs += u64::from(matches!(step, Step::ShareWithChild));
            }
            Step::UnshareWithChild { .. } if self.refs < 2 && (L::EXACT || self.pins == 0) => {
                return Err(CountError::Underflow);
            }
            Step::UnshareWithChild { was_exclusive } => {
                self.borrow::<L>();
                self.refs -= 1;
                self.exclusive |= was_exclusive;
            }
            Step::Claim | Step::Freeze { .. } => {
                self.unreferenced()?;
                let refs = if let Step::Freeze { refs } = step { refs } else { 1 };
                if self.pins > 0 {
                    return Err(CountError::Pinned);
                }
                if self.refs != refs || self.gets > 0 {
                    return Err(CountError::Referenced);
                }
                if matches!(step, Step::Claim) {
                    self.exclusive = true;
                } else {
                    (self.refs, self.frozen) = (0, true);
                }
            }
            Step::Unfreeze { refs } if self.frozen && refs > 0 => (self.refs, self.frozen) = (refs, false),
            Step::Unfreeze { .. } => return Err(CountError::Underflow),
            Step::NearLimit { below } => {
                if self.frozen {
                    (self.refs, self.frozen) = (FrameWord::<L>::MAX_REFS - below, false);
                }
            }
            Step::MarkDirty if self.total() == 0 && !self.frozen => return Err(CountError::Free),
            Step::MarkDirty => self.dirty = true,
        }
        Ok(None)
    }
}

fn apply<L: Layout>(frame: &FrameWord<L>, step: Step) -> Answer {
    let unit = |result: Result<(), CountError>| result.map(|()| None);
    match step {
        Step::HandOut { anonymous, order, exclusive } => {
            let kind = if anonymous { FrameKind::Anonymous } else { FrameKind::Table };
            let ownership = if exclusive { Ownership::Exclusive } else { Ownership::Shared };
            unit(frame.hand_out(kind, order, ownership))
        }
        Step::Get => unit(frame.try_get()),
        Step::Put => frame.put().map(Some),
        Step::GetUser => unit(frame.try_get_user()),
        Step::PutUser => frame.put_user().map(Some),
        Step::Pin => unit(frame.try_pin()),
        Step::PinExclusive => unit(frame.try_pin_exclusive()),
        Step::Unpin { dirty } => frame.unpin(Dirty::when(dirty)).map(Some),
        Step::PinSole => unit(frame.try_pin_sole()),
        Step::UnpinSole { dirty } => frame.unpin_sole(Dirty::when(dirty)).map(Some),
        Step::Share => frame.try_share().map(|_| None),
        Step::ShareWithChild => frame.try_share_with_child().map(|_| None),
        Step::UnshareWithChild { was_exclusive } => unit(frame.unshare_with_child(Shared { was_exclusive })),
        Step::Claim => unit(frame.try_claim()),
        Step::Freeze { refs } => unit(frame.try_freeze(refs)),
        Step::Unfreeze { refs } => unit(frame.unfreeze(refs)),
        Step::NearLimit { below } => {
            if frame.snapshot().frozen {
                frame.unfreeze(FrameWord::<L>::MAX_REFS - below).unwrap();
            }
            Ok(None)
        }
        Step::MarkDirty => unit(frame.mark_dirty()),
    }
}

fn agrees<L: Layout>(steps: &[Step]) -> Result<(), TestCaseError> {
    let (frame, mut reference) = (FrameWord::<L>::new(), Reference::default());
    for step in steps {
        let before = frame.snapshot();
        let (got, wanted) = (apply(&frame, *step), reference.apply::<L>(*step));
        prop_assert_eq!(got, wanted, "{:?} on {:?}", step, before);
        let word = frame.snapshot();
        if got.is_err() {
            prop_assert_eq!(word, before);
        }
        let seen = reference.seen::<L>();
        prop_assert_eq!((word.refs, word.pins, word.frozen), (seen.total(), seen.pins, seen.frozen));
        prop_assert_eq!(word.sole, reference.sole);
        if !word.is_free() {
            prop_assert_eq!(word.exclusive, reference.exclusive);
            prop_assert_eq!(word.order, reference.order);
            prop_assert_eq!(word.kind == FrameKind::Anonymous, reference.anonymous);
            prop_assert_eq!(word.dirty, reference.dirty);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::random_cases(1000))]

    #[test]
    fn the_wide_word_agrees_with_the_model(steps in proptest::collection::vec(steps(), 1..60)) {
        agrees::<pagepin::frame::Wide>(&steps)?;
    }

    #[test]
    fn the_split_word_agrees_with_the_model(steps in proptest::collection::vec(steps(), 1..60)) {
        agrees::<pagepin::frame::Split23x8>(&steps)?;
    }

    #[test]
    fn the_word_of_three_counts_agrees_with_the_model(steps in proptest::collection::vec(steps(), 1..60)) {
        agrees::<pagepin::frame::Split23x4x4>(&steps)?;
    }

    #[test]
    fn the_biased_word_agrees_with_the_model(steps in proptest::collection::vec(steps(), 1..60)) {
        agrees::<pagepin::frame::Biased10>(&steps)?;
    }
}
