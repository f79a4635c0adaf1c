//! [`Token`]: what an entry says of a page that is not in memory.

use core::fmt;

/// A number that stands for the contents of a page: a slot of a swap device, or whatever else the kernel keeps pages in. What it means
/// only the kernel's [`Tokens`](crate::Tokens) know.
///
/// ```
/// use pagepin::{Entry, Token};
/// let token = Token::new(42).expect("small enough");
/// assert_eq!(Entry::token(token).as_token(), Some(token));
/// assert_eq!(Token::new(Token::MAX.number() + 1), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// The largest. One bit less than the address of an entry has: inverted, its highest is always set.
    pub const MAX: Self = Self((1 << 39) - 1);

    /// The token of that number, if there is one.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {:#x}", self.0)
    }
}
