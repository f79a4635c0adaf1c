//! The oracle of the host tests, with operations that libFuzzer makes up.
#![no_main]

#[path = "../../tests/host/forms.rs"]
mod forms;
#[path = "../../tests/machine/kept.rs"]
#[expect(dead_code, unused_imports, reason = "the host tests use all of it")]
mod kept;
#[path = "../../tests/kit/mod.rs"]
mod kit;
#[path = "../../tests/machine/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the host tests use all of it")]
mod machine;
#[path = "../../tests/oracle/mod.rs"]
#[expect(unused_imports, reason = "the host tests use all of it")]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::run(bytes));
