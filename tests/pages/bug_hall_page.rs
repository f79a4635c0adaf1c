//! `docs/BUGS.md` against the tree: what the page names as a test is one, and is run.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, ItemFn, Lit};

use crate::{markdown, tree};

/// Names of the tests that the kernel under QEMU reports.
static KERNEL_TESTS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let files = tree::files("tests/kernel/src/modes", "rs");
    files.iter().flat_map(|file| texts(tree::text(file).parse().expect("tokens"))).collect()
});

/// Literal texts, however deep.
fn texts(tokens: TokenStream) -> Vec<String> {
    let of_token = |token| match token {
        TokenTree::Group(group) => texts(group.stream()),
        TokenTree::Literal(literal) => match Lit::new(literal) {
            Lit::Str(text) => vec![text.value()],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(of_token).collect()
}

/// Whether a file of tests has this test and runs it: by itself, or for every layout.
fn has_test(source: &str, name: &str) -> bool {
    let file = syn::parse_file(source).expect("a file of tests");
    let runs_by_itself = |test: &ItemFn| test.attrs.iter().any(|attribute| attribute.path().is_ident("test"));
    let runs_for_every = || {
        file.items.iter().any(|item| match item {
            Item::Macro(call) if call.mac.path.is_ident("every_layout") || call.mac.path.is_ident("evidence") => {
                let mut names = call.mac.tokens.clone().into_iter();
                names.any(|token| matches!(token, TokenTree::Ident(listed) if listed == name))
            }
            _ => false,
        })
    };
    // Made by its macro as a whole.
    let made = |item: &Item| matches!(item, Item::Macro(call) if call.mac.path.is_ident("evidence"));
    if file.items.iter().any(made) {
        return runs_for_every();
    }
    file.items.iter().any(|item| match item {
        Item::Fn(function) if function.sig.ident == name => runs_by_itself(function) || runs_for_every(),
        _ => false,
    })
}

/// Whether a test of the page exists, in whichever program it runs.
pub(crate) fn exists(module: &str, name: &str) -> bool {
    match module {
        "evidence" => has_test(&tree::text("tests/evidence/mod.rs"), name),
        "kernel" => KERNEL_TESTS.contains(name),
        _ => has_test(&tree::text(&format!("tests/host/{module}.rs")), name),
    }
}

#[test]
fn every_test_that_the_bug_hall_names_exists() {
    let page = tree::text("docs/BUGS.md");
    let tables = markdown::tables(&page);
    assert!(tables.iter().all(|table| table.heading[0] == "bug"), "a table of something else");
    let rows: Vec<_> = tables.iter().flat_map(|table| &table.rows).collect();
    let mut seen_to_fail = 0;
    for row in &rows {
        let [bug, _, _, here] = &row[..] else { panic!("not four cells: {row:?}") };
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let quoted = markdown::code_spans(here);
        let named: Vec<(&str, &str)> = quoted.iter().filter_map(|name| name.split_once("::")).collect();
        for (module, name) in &named {
            assert!(exists(module, name), "{bug}: there is no test {module}::{name}");
        }
        let (verdict, _) = here.split_once(": ").unwrap_or_else(|| panic!("{bug}: no verdict: {here}"));
        match verdict {
            "seen to fail" | "test" => assert!(!named.is_empty(), "{bug} names no test"),
            "does not compile" => {
                let file = quoted.iter().find(|name| name.ends_with(".rs")).expect("the file of the example");
                assert!(tree::text(file).contains("```compile_fail"), "{bug}: {file} has no compile-fail example");
            }
            "not expressible" => {}
            _ => panic!("{bug}: {verdict}?"),
        }
        seen_to_fail += u32::from(verdict == "seen to fail");
    }
    assert!(rows.len() >= 50 && seen_to_fail >= 15, "{} rows, {seen_to_fail} seen to fail", rows.len());
}

#[test]
fn a_test_that_nobody_runs_is_none() {
    let source = "every_layout! { listed, other }\nfn listed<L>() {}\nfn unlisted() {}\n#[test]\nfn alone() {}\n\
                  // #[test] fn commented() {}\nmod inner { #[test] fn deep() {} }";
    let tests = ["listed", "alone", "unlisted", "other", "commented", "deep"].map(|name| has_test(source, name));
    assert_eq!(tests, [true, true, false, false, false, false]);
}
