//! The commands that the documents name exist.

use std::collections::BTreeSet;

use syn::Item;

use crate::{markdown, tree};

/// The commands of `cargo xtask`.
fn commands() -> BTreeSet<String> {
    let files = tree::files("xtask/src", "rs");
    let commands = files.iter().flat_map(|file| syn::parse_file(&tree::text(file)).expect("a source").items);
    let variants = commands.filter_map(|item| match item {
        Item::Enum(item) if item.ident == "Task" => Some(item.variants),
        _ => None,
    });
    variants.flatten().map(|variant| variant.ident.to_string().to_lowercase()).collect()
}

#[test]
fn commands_that_pages_name_exist() {
    let commands = commands();
    for file in tree::documents() {
        let page = tree::text(&file);
        let written: String = markdown::fences(&page).into_iter().map(|(_, code)| code).collect();
        let written = markdown::code_spans(&page).join("\n") + "\n" + &written;
        for part in written.split("cargo xtask ").skip(1) {
            let command: String = part.chars().take_while(char::is_ascii_alphabetic).collect();
            // `cargo xtask --help` and the like.
            let is_option = part.starts_with('-');
            assert!(is_option || commands.contains(&command), "{file}: no command `{command}`");
        }
    }
}
