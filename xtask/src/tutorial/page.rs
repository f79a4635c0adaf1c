//! A page of the tutorial: what it tells to type, and what it says that the serial line says.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// What a page tells, in its order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Type { file: String, place: Place, text: String },
    Boot { expected: Vec<String> },
}

/// Where the text goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Whole,
    End,
    Before(String),
    InPlaceOf(String),
}

/// The files of the kernel by their paths.
pub(super) type Files = BTreeMap<String, String>;

const SERIAL: &str = "On the serial line";
/// Kinds of code that are for a person's information only.
const NOT_TYPED: [&str; 1] = ["sh"];

/// The parts of a page. A label is a line in bold, and the code follows it.
pub(super) fn parse(page: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut lines = page.lines();
    let mut label = None;
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            match label.take() {
                Some(label) => parts.push(part(label, &code)?),
                None => ensure!(NOT_TYPED.contains(&kind), "code without a label: {code:?}"),
            }
        } else if !line.is_empty() {
            ensure!(label.is_none(), "no code follows `{}`", label.unwrap_or_default());
            label = line.strip_prefix("**").and_then(|line| line.strip_suffix(":**"));
        }
    }
    Ok(parts)
}

fn part(label: &str, code: &[&str]) -> Result<Part> {
    if label == SERIAL {
        return Ok(Part::Boot { expected: code.iter().map(|line| (*line).to_owned()).collect() });
    }
    let (file, place) =
        label.strip_prefix('`').and_then(|rest| rest.split_once('`')).context("a label names no file")?;
    let line = |rest: &str| rest.strip_suffix('`').map(str::to_owned).with_context(|| format!("`{rest}`?"));
    let place = match place {
        "" => Place::Whole,
        ", at the end" => Place::End,
        _ => match (place.strip_prefix(", before `"), place.strip_prefix(", in place of `")) {
            (Some(rest), _) => Place::Before(line(rest)?),
            (_, Some(rest)) => Place::InPlaceOf(line(rest)?),
            _ => bail!("where is `{place}`?"),
        },
    };
    let text = code.iter().map(|line| format!("{line}\n")).collect();
    Ok(Part::Type { file: file.to_owned(), place, text })
}

/// Types it in.
pub(super) fn type_in(files: &mut Files, file: &str, place: &Place, text: &str) -> Result<()> {
    let old = match place {
        Place::Whole => files.entry(file.to_owned()).insert_entry(String::new()).into_mut(),
        _ => files.get_mut(file).with_context(|| format!("{file} is changed before it is there"))?,
    };
    let line = match place {
        Place::Whole | Place::End => {
            old.push_str(text);
            return Ok(());
        }
        Place::Before(line) | Place::InPlaceOf(line) => line,
    };
    let found = old.lines().filter(|other| other == line).count();
    ensure!(found == 1, "{file} has {found} lines `{line}`");
    let kept = if matches!(place, Place::Before(_)) { format!("{line}\n") } else { String::new() };
    let typed = |other| if other == line { format!("{text}{kept}") } else { format!("{other}\n") };
    *old = old.lines().map(typed).collect();
    Ok(())
}

/// Whether the line is the expected one, in which `…` stands for anything.
pub(super) fn agrees(line: &str, expected: &str) -> bool {
    let Some((start, rest)) = expected.split_once('…') else { return line == expected };
    let Some(line) = line.strip_prefix(start) else { return false };
    (0..=line.len()).any(|at| line.is_char_boundary(at) && agrees(&line[at..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Page\n\n**`a.rs`:**\n\n```rust\nfn a() {\n}\n```\n\nText, **bold**.\n\n```sh\ncargo\n```\n\n\
        **`a.rs`, before `}`:**\n\n```rust\n    b();\n```\n\n**On the serial line:**\n\n```text\n1 x\n```\n";

    #[test]
    fn pages_are_typed_in_as_they_say() {
        let parts = parse(PAGE).unwrap();
        let mut files = Files::new();
        for part in &parts[..2] {
            let Part::Type { file, place, text } = part else { panic!("{part:?}") };
            type_in(&mut files, file, place, text).unwrap();
        }
        assert_eq!(files["a.rs"], "fn a() {\n    b();\n}\n");
        assert_eq!(parts[2..], [Part::Boot { expected: vec!["1 x".into()] }]);
        type_in(&mut files, "a.rs", &Place::InPlaceOf("    b();".into()), "").unwrap();
        type_in(&mut files, "a.rs", &Place::End, "fn c() {}\n").unwrap();
        assert_eq!(files["a.rs"], "fn a() {\n}\nfn c() {}\n");
        assert!(type_in(&mut files, "a.rs", &Place::Before("nowhere".into()), "x\n").is_err());
        assert!(type_in(&mut files, "b.rs", &Place::End, "x\n").is_err());
    }

    #[test]
    fn code_that_goes_nowhere_is_refused() {
        for page in ["```rust\nfn a() {}\n```\n", "**`a.rs`:**\n\nText.\n", "**`a.rs`, after `x`:**\n\n```rust\n```\n"]
        {
            assert!(parse(page).is_err(), "{page}");
        }
    }

    #[test]
    fn dots_stand_for_what_the_compiler_decides() {
        assert!(agrees("0x20a310 is low", "0x… is low") && agrees("a", "a"));
        assert!(!agrees("0x20a310 is high", "0x… is low") && !agrees("ab", "a"));
    }
}
