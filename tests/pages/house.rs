//! The rooms of the library, as `docs/MODEL.md` lists them, and the arrows between them, as the code has them.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::markdown;
use crate::tree::{self, exists};

const PAGE: &str = "docs/MODEL.md";

/// A room, the rooms it uses, and the order in which the page tells them.
fn rooms() -> Vec<(String, BTreeSet<String>)> {
    let words = |cell: &str| markdown::code_spans(cell).into_iter().collect::<BTreeSet<_>>();
    let rows = markdown::table(&tree::text(PAGE), "room").rows;
    rows.into_iter().map(|row| (words(&row[0]).pop_first().expect("a name"), words(&row[2]))).collect()
}

/// The files of a room.
fn files(room: &str) -> Vec<String> {
    let folders = [format!("src/{room}"), room.to_owned()];
    let folder = folders.into_iter().find(|folder| exists(folder));
    folder.map_or_else(|| vec![format!("src/{room}.rs")], |folder| tree::files(&folder, "rs"))
}

/// The names that come right after `crate::`, in code; documentation may link anywhere.
fn used(tokens: TokenStream, names: &mut BTreeSet<String>) {
    let mut last = [const { None }; 3];
    for token in tokens {
        let after_crate = matches!(&last, [Some(a), Some(b), Some(c)] if a == "crate" && b == ":" && c == ":");
        match &token {
            TokenTree::Ident(name) if after_crate => _ = names.insert(name.to_string()),
            TokenTree::Group(group) if after_crate && group.delimiter() == Delimiter::Brace => {
                first_names(group.stream(), names);
            }
            TokenTree::Group(group) => used(group.stream(), names),
            _ => {}
        }
        last.rotate_left(1);
        last[2] = Some(token.to_string());
    }
}

/// `a` and `b` of `{a::{x, y}, b}`.
fn first_names(list: TokenStream, names: &mut BTreeSet<String>) {
    let mut at_the_start = true;
    for token in list {
        match token {
            TokenTree::Ident(name) if at_the_start => {
                names.insert(name.to_string());
                at_the_start = false;
            }
            TokenTree::Punct(comma) if comma.as_char() == ',' => at_the_start = true,
            _ => {}
        }
    }
}

fn used_by(room: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files(room) {
        used(tree::text(&file).parse().unwrap_or_else(|error| panic!("{file}: {error}")), &mut names);
    }
    names.remove(room);
    // What a model checker puts underneath, and no part of any other build.
    names.remove("model");
    names
}

#[test]
fn arrows_run_one_way() {
    let mut before = BTreeSet::new();
    for (room, _) in rooms() {
        let used = used_by(&room);
        let wrong: Vec<_> = used.difference(&before).collect();
        assert!(wrong.is_empty(), "`{room}` uses {wrong:?}, which {PAGE} does not have before it");
        before.insert(room);
    }
}

#[test]
fn the_page_draws_every_arrow() {
    for (room, told) in rooms() {
        assert_eq!(used_by(&room), told, "what `{room}` uses, by the code and by {PAGE}");
    }
}

#[test]
fn every_room_is_in_the_drawing() {
    let blocks = markdown::fences(&tree::text(PAGE));
    let (_, drawing) = blocks.iter().find(|(_, text)| text.contains("primitive")).expect("a drawing");
    let drawn: BTreeSet<&str> = drawing.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let missing: Vec<_> =
        rooms().into_iter().map(|(room, _)| room).filter(|room| !drawn.contains(room.as_str())).collect();
    assert_eq!(missing, [""; 0]);
}

/// So it is built and tested on every host, whatever machine that is.
#[test]
fn a_format_does_not_know_the_machine() {
    let files = tree::files("arch/x86_64", "rs");
    assert!(files.len() > 4, "{files:?}");
    for file in files {
        let text = tree::text(&file);
        let found = ["target_arch", "asm!", "machine::"].into_iter().find(|word| text.contains(word));
        assert_eq!(found, None, "{file}");
    }
}

#[test]
fn every_file_is_in_a_room() {
    let in_rooms: BTreeSet<String> = rooms().iter().flat_map(|(room, _)| files(room)).collect();
    // The crate's own text, what is put underneath it, and what is not compiled.
    let others = ["src/lib.rs", "src/model/", "src/must_not_compile/", "src/documents/"];
    let all = ["src", "arch"].into_iter().flat_map(|folder| tree::files(folder, "rs"));
    let lost: Vec<String> =
        all.filter(|file| !in_rooms.contains(file) && !others.iter().any(|other| file.starts_with(other))).collect();
    assert_eq!(lost, [""; 0]);
}

#[test]
fn names_after_crate_are_found() {
    let mut names = BTreeSet::new();
    used(
        "use crate::{a::{x, y}, b}; fn f() { crate::c::d(crate::e) } use super::g; /** crate::h */".parse().unwrap(),
        &mut names,
    );
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b", "c", "e"]);
}
