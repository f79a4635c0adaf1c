//! Random operations with arguments from user space, compared with a reference without sharing; see `oracle`.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::oracle::{self, MAX_OPS, RECORD};

fn config() -> ProptestConfig {
    ProptestConfig { max_shrink_iters: 4000, ..crate::random_cases(500) }
}

/// Memory to work with: above the edge of a table a large leaf, or five pages, and as many below; or of an object, shared above and
/// private below, or private both.
const FURNITURE: [&[[u8; RECORD]]; 5] = [
    &[],
    &[[232, 0, 7, 0, 0, 4, 0, 0, 5]],
    &[[232, 0, 7, 0, 0, 4, 0, 0, 5], [0, 0, 0, 0, 0, 4, 0, 0, 0]],
    &[[126, 0, 7, 0, 0, 4, 0, 0, 1], [126, 0, 0, 0, 0, 4, 0, 0, 0]],
    &[[126, 0, 7, 0, 0, 4, 0, 1, 0], [126, 0, 0, 0, 0, 4, 0, 1, 3]],
];

/// The bytes of a script. A failure prints them; in a file of `tests/oracle/regressions` they are run again for good.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let records = prop::collection::vec(any::<[u8; RECORD]>(), 1..MAX_OPS);
    (any::<u8>(), 0..FURNITURE.len(), records).prop_map(|(machine, furniture, records)| {
        [&[machine], FURNITURE[furniture].as_flattened(), records.as_flattened()].concat()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_processes_and_devices_see_agrees_with_the_model(bytes in script()) {
        oracle::run(&bytes);
    }
}

/// Scripts that found a bug once, the library's or one put in for a test.
#[test]
fn every_regression_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/regressions");
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let scripts: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "script")).collect();
    assert!(!scripts.is_empty(), "{} is empty", folder.display());
    for script in scripts {
        println!("{}", script.display());
        oracle::run(&fs::read(script).unwrap());
    }
}
