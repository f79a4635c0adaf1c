//! What the types forbid, each as a pair of examples that differ in one line: with the one they compile, with the other
//! they must not.
//!
//! So an example cannot fail for a typo that both have. The error's number is named where there is one (a lint has none);
//! stable `rustdoc` believes it, nightly looks: `cargo +nightly test --doc --all-features`.

/// Makes the two examples out of what they have in common and their one line.
macro_rules! must_not_compile {
    ($($(#[$why:meta])* $name:ident [$($error:tt)*] ($($given:tt)*) { $($common:tt)* }
        compiles { $($right:tt)* }
        does_not { $($wrong:tt)* }
    )*) => {$(
        $(#[$why])*
        #[doc = example!("```", [$($error)*] ($($given)*) { $($common)* $($right)* })]
        #[doc = example!(fence!($($error)*), [$($error)*] ($($given)*) { $($common)* $($wrong)* })]
        struct $name;
    )*};
}

macro_rules! fence {
    (deny $lint:ident) => {
        "```compile_fail"
    };
    ($error:ident) => {
        concat!("```compile_fail,", stringify!($error))
    };
}

macro_rules! example {
    ($fence:expr, [$($error:tt)*] ($($given:tt)*) { $($body:tt)* }) => {
        concat!(
            "\n", $fence, "\n",
            "use pagepin::{*, frame::*, paging::*, pin::*, space::*};\n",
            "fn to_another_thread<T: Send>(_: T) {}\n",
            attribute!($($error)*),
            "fn example<K: Env>(", stringify!($($given)*), ") {\n",
            stringify!($($body)*),
            "\n}\n```\n"
        )
    };
}

macro_rules! attribute {
    (deny $lint:ident) => {
        concat!("#[deny(", stringify!($lint), ")]\n")
    };
    ($error:ident) => {
        ""
    };
}

mod guards;
mod pins;
mod replace;
mod trust;
