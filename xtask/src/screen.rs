//! What a person sees, and the logs.

/// A line of a program that xtask runs.
pub(crate) fn output(line: &str) {
    println!("{line}");
}
