//! The forms of the pin family behind one call, for tests that want the same of all of them.

#[path = "form.rs"]
mod form;

use pagepin::UserRange;
use pagepin::frame::Layout;
use pagepin::pin::{self, PinAccess, PinError, PinFlags};

use crate::machine::{Gets, Pins, Process, runs};

pub(crate) use form::{FORMS, Form};

pub(crate) fn pin<'p, 'm, X: PinAccess, L: Layout>(
    form: Form,
    process: &'p Process<'m, L>,
    range: UserRange,
    flags: PinFlags,
    buffer: usize,
) -> Result<Pins<'p, 'm, L, X>, PinError> {
    let buffer = runs(buffer);
    match form {
        Form::FastOnly => pin::pin_user_pages_fast_only(process, X::default(), range, flags, buffer),
        Form::Fast => pin::pin_user_pages_fast(process, X::default(), range, flags, buffer),
        Form::Slow => pin::pin_user_pages(process, X::default(), range, flags, buffer),
        Form::Remote => pin::pin_user_pages_remote(process, X::default(), range, flags, buffer),
    }
}

pub(crate) fn get<'p, 'm, X: PinAccess, L: Layout>(
    form: Form,
    process: &'p Process<'m, L>,
    range: UserRange,
    flags: PinFlags,
    buffer: usize,
) -> Result<Gets<'p, 'm, L>, PinError> {
    let buffer = runs(buffer);
    match form {
        Form::FastOnly => pin::get_user_pages_fast_only(process, X::default(), range, flags, buffer),
        Form::Fast => pin::get_user_pages_fast(process, X::default(), range, flags, buffer),
        Form::Slow => pin::get_user_pages(process, X::default(), range, flags, buffer),
        Form::Remote => pin::get_user_pages_remote(process, X::default(), range, flags, buffer),
    }
}
