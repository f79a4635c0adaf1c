//! The project's documents, as they are in its `docs` folder.

/// Makes a module of each document. The definitions that come first send its links to the other modules; its own, at its
/// end, send them to the files.
macro_rules! documents {
    ($($name:ident: $file:literal;)*) => {$(
        #[doc = include_str!("links.md")]
        #[doc = ""]
        #[doc = include_str!(concat!("../../docs/", $file))]
        pub mod $name {}
    )*};
}

documents! {
    embedding: "EMBEDDING.md";
    layout: "LAYOUT.md";
    model: "MODEL.md";
    decision_table: "decision-table.md";
    unsafe_counted: "UNSAFE.md";
    assurance: "ASSURANCE.md";
    bug_hall: "BUGS.md";
    evidence: "EVIDENCE.md";
    layouts: "LAYOUTS.md";
    mutants: "MUTANTS.md";
    coverage: "COVERAGE.md";
}
