//! `docs/ASSURANCE.md` speaks of every invariant, and of nothing that does not exist.

use std::fs;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn page() -> String {
    fs::read_to_string(format!("{ROOT}/docs/ASSURANCE.md")).unwrap()
}

#[test]
fn every_invariant_has_a_promise() {
    let page = page();
    let promises: String = page.lines().filter(|line| line.starts_with("| ")).collect();
    let named = |number: u32| {
        let name = format!("INV-{number}");
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit());
        promises.split(&name).skip(1).any(ends) || (number <= 4 && promises.contains("INV-1 to INV-4"))
    };
    // Nothing makes swap or migration entries yet.
    let missing: Vec<u32> = (1..=15).filter(|number| *number != 5 && !named(*number)).collect();
    assert!(missing.is_empty(), "no promise for INV-{missing:?}");
}

#[test]
fn what_it_names_exists() {
    let page = page();
    let commands = fs::read_to_string(format!("{ROOT}/xtask/src/main.rs")).unwrap();
    for part in page.split("`cargo xtask ").skip(1) {
        let command: String = part.chars().take_while(char::is_ascii_alphabetic).collect();
        let variant = command[..1].to_uppercase() + &command[1..];
        assert!(commands.contains(&format!("Task::{variant}")), "no command {command}");
    }
    let quoted = page.split('`').skip(1).step_by(2);
    let files = quoted.filter(|text| text.contains('/') && !text.contains(' '));
    let links = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let links = links.filter(|link| !link.is_empty()).map(|link| format!("docs/{link}"));
    for file in files.map(str::to_owned).chain(links) {
        assert!(fs::exists(format!("{ROOT}/{file}")).unwrap(), "no {file}");
    }
}
