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
    tutorial_1_boot: "tutorial/1-boot.md";
    tutorial_2_layout: "tutorial/2-layout.md";
    tutorial_3_frames: "tutorial/3-frames.md";
    tutorial_4_process: "tutorial/4-process.md";
    tutorial_5_fork: "tutorial/5-fork.md";
    tutorial_6_dma: "tutorial/6-dma.md";
    tutorial_7_more_cpus: "tutorial/7-more-cpus.md";
    tutorial_8_leaks: "tutorial/8-leaks.md";
    layout: "LAYOUT.md";
    model: "MODEL.md";
    decision_table: "decision-table.md";
    pinned_page: "pinned-page.md";
    unsafe_counted: "UNSAFE.md";
    assurance: "ASSURANCE.md";
    bug_hall: "BUGS.md";
    evidence: "EVIDENCE.md";
    layouts: "LAYOUTS.md";
    mutants: "MUTANTS.md";
    coverage: "COVERAGE.md";
}
