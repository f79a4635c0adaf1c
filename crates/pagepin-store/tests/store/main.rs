//! The cache and the slots, alone against plain models, and on the emulated machine of the library's tests.

mod disk;
mod files;
mod holes;
mod kept;
#[path = "../../../../tests/kit/mod.rs"]
#[expect(dead_code, reason = "the library's tests use all of it")]
mod kit;
#[path = "../../../../tests/machine/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the library's tests use all of it")]
mod machine;

mod bytes;
mod shown;
mod swap;
