//! The forms of the pin family, by name.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    FastOnly,
    Fast,
    Slow,
    Remote,
}

pub(crate) const FORMS: [Form; 4] = [Form::FastOnly, Form::Fast, Form::Slow, Form::Remote];
