//! The library as others get it: packed, below a kernel of an older edition, on other machines, by the oldest compiler
//! that it says it supports.

mod dependent;
mod elsewhere;
mod oldest;
mod package;

pub(crate) use self::dependent::check as dependent;
pub(crate) use self::elsewhere::check as elsewhere;
pub(crate) use self::oldest::check as oldest;
pub(crate) use self::package::Package;
