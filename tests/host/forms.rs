//! The forms of the pin family behind one call, for tests that want the same of all of them.

use pagepin::UserRange;
use pagepin::frame::Layout;
use pagepin::pin::{self, Access, GotPages, PhysRun, PinError, PinFlags};

use crate::machine::{Machine, Pins, Process, runs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    FastOnly,
    Fast,
    Slow,
    Remote,
}

pub(crate) const FORMS: [Form; 4] = [Form::FastOnly, Form::Fast, Form::Slow, Form::Remote];

pub(crate) fn pin<'m, X: Access, L: Layout>(
    form: Form,
    machine: &'m Machine<L>,
    process: &'m Process<'m, L>,
    range: UserRange,
    flags: PinFlags,
    buffer: usize,
) -> Result<Pins<'m, L, X>, PinError> {
    let buffer = runs(buffer);
    match form {
        Form::FastOnly => pin::pin_user_pages_fast_only(machine, process, range, flags, buffer),
        Form::Fast => pin::pin_user_pages_fast(machine, process, range, flags, buffer),
        Form::Slow => pin::pin_user_pages(machine, process, range, flags, buffer),
        Form::Remote => pin::pin_user_pages_remote(machine, process, range, flags, buffer),
    }
}

pub(crate) fn get<'m, X: Access, L: Layout>(
    form: Form,
    machine: &'m Machine<L>,
    process: &'m Process<'m, L>,
    range: UserRange,
    flags: PinFlags,
    buffer: usize,
) -> Result<GotPages<'m, Machine<L>, Vec<PhysRun>>, PinError> {
    let buffer = runs(buffer);
    match form {
        Form::FastOnly => pin::get_user_pages_fast_only::<X, _, _, _>(machine, process, range, flags, buffer),
        Form::Fast => pin::get_user_pages_fast::<X, _, _, _>(machine, process, range, flags, buffer),
        Form::Slow => pin::get_user_pages::<X, _, _, _>(machine, process, range, flags, buffer),
        Form::Remote => pin::get_user_pages_remote::<X, _, _, _>(machine, process, range, flags, buffer),
    }
}
