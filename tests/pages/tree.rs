//! Files of the project, by their path from its root.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

pub(crate) fn exists(file: &str) -> bool {
    path(file).exists()
}

pub(crate) fn text(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Files under `folder` whose names end in `.extension`, sorted.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let entries = fs::read_dir(path(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    for entry in entries {
        let entry = entry.unwrap();
        let file = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&file, extension));
        } else if Path::new(&file).extension().is_some_and(|is| is == extension) {
            found.push(file);
        }
    }
    found.sort();
    found
}

/// Every page that people read.
pub(crate) fn documents() -> Vec<String> {
    let at_the_root = fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut documents: Vec<String> = at_the_root.filter(|file| file.ends_with(".md")).collect();
    documents.extend(files("docs", "md"));
    documents.push("tests/kernel/README.md".into());
    documents
}
