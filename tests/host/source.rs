//! Rust source as words, and where it says `unsafe`: what `unsafe_page` counts.

use std::ops::AddAssign;

/// A word or a sign, where it stands; literals are one sign, comments none.
#[derive(Clone, Copy, Debug)]
struct Token<'s> {
    text: &'s str,
    line: usize,
}

/// How often a file says `unsafe`, by what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) blocks: usize,
    pub(crate) functions: usize,
    pub(crate) traits: usize,
    pub(crate) impls: usize,
}

impl Counts {
    pub(crate) fn cells(self) -> [usize; 4] {
        [self.blocks, self.functions, self.traits, self.impls]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.functions += other.functions;
        self.traits += other.traits;
        self.impls += other.impls;
    }
}

/// What is to be known about a file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) counts: Counts,
    /// What other crates take a duty on with: traits, public functions and methods of traits, by their short path.
    pub(crate) duties: Vec<String>,
    /// Where the text that must go with an `unsafe` is missing.
    pub(crate) undocumented: Vec<String>,
}

/// What stands between a pair of braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope<'s> {
    Trait(&'s str),
    TraitImpl,
    Impl(&'s str),
    Other,
}

/// Looks through a file as a build with every feature sees it: not under loom, no unit tests.
pub(crate) fn look(source: &str) -> Found {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let tokens = built(tokens(source));
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Found::default();
    let mut scopes = Vec::new();
    let mut next = Scope::Other;
    for at in 0..tokens.len() {
        let before = at.checked_sub(1).map_or("", text);
        match text(at) {
            "trait" => next = Scope::Trait(text(at + 1)),
            // Elsewhere it is a type.
            "impl" if ["", "}", "{", ";", "]", "unsafe"].contains(&before) => next = scope_of_impl(&tokens[at + 1..]),
            "{" => scopes.push(std::mem::replace(&mut next, Scope::Other)),
            "}" => _ = scopes.pop(),
            // The type of a pointer to a function.
            "unsafe" if text(at + 1) == "fn" && text(at + 2) == "(" => {}
            "unsafe" => {
                let line = tokens[at].line;
                // A macro may stand between an impl and its function.
                let scope = scopes.iter().rev().copied().find(|scope| *scope != Scope::Other).unwrap_or(Scope::Other);
                let said = match text(at + 1) {
                    "{" => {
                        found.counts.blocks += 1;
                        is_explained(&lines, line)
                    }
                    "impl" => {
                        found.counts.impls += 1;
                        is_explained(&lines, line)
                    }
                    "trait" => {
                        found.counts.traits += 1;
                        found.duties.push(text(at + 2).into());
                        has_section(&lines, line, "# Implementation safety")
                    }
                    "fn" => {
                        found.counts.functions += 1;
                        let public = before == "pub" || (before == "const" && text(at.wrapping_sub(2)) == "pub");
                        found.duties.extend(path(scope, public, text(at + 2)));
                        // A method of a trait is explained in the trait.
                        scope == Scope::TraitImpl || has_section(&lines, line, "# Safety")
                    }
                    other => panic!("line {}: what is `unsafe {other}`?", line + 1),
                };
                if !said {
                    found.undocumented.push(format!("line {}: {}", line + 1, lines[line]));
                }
            }
            _ => {}
        }
    }
    found
}

/// The short path of a function that others can call.
fn path(scope: Scope<'_>, public: bool, name: &str) -> Option<String> {
    match scope {
        Scope::Trait(owner) => Some(format!("{owner}::{name}")),
        Scope::Impl(owner) if public => Some(format!("{owner}::{name}")),
        Scope::Other if public => Some(name.into()),
        _ => None,
    }
}

/// Of what follows `impl`.
fn scope_of_impl<'s>(rest: &[Token<'s>]) -> Scope<'s> {
    let (mut angles, mut owner) = (0, None);
    for (at, token) in rest.iter().enumerate() {
        match token.text {
            "{" => break,
            "<" => angles += 1,
            // Not the end of an arrow.
            ">" if rest[at - 1].text != "-" => angles -= 1,
            "for" if angles == 0 => return Scope::TraitImpl,
            name if angles == 0 && owner.is_none() => owner = Some(name),
            _ => {}
        }
    }
    owner.map_or(Scope::Other, Scope::Impl)
}

/// The lines above `line`, from the nearest, without attributes.
fn above<'l>(lines: &'l [&'l str], line: usize) -> impl Iterator<Item = &'l str> {
    lines[..line].iter().rev().copied().filter(|line| !line.starts_with("#["))
}

/// Whether the comment right above says why.
fn is_explained(lines: &[&str], line: usize) -> bool {
    let mut comment = above(lines, line).take_while(|line| line.starts_with("//") && !line.starts_with("///"));
    comment.any(|line| line.starts_with("// SAFETY: "))
}

/// Whether the documentation right above has the section.
fn has_section(lines: &[&str], line: usize, heading: &str) -> bool {
    let mut text = above(lines, line).take_while(|line| line.starts_with("///"));
    text.any(|line| line.strip_prefix("/// ") == Some(heading))
}

/// Attributes of items that are not in a normal build, with their numbers of tokens.
const LEFT_OUT: [(&str, usize); 2] = [("#[cfg(any(loom,shuttle))]", 12), ("#[cfg(test)]", 7)];

/// Without the items that are not in a normal build.
fn built(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let mut kept = Vec::new();
    let mut rest = &tokens[..];
    while let [first, after @ ..] = rest {
        let begins = |(attribute, length): &&(&str, usize)| {
            rest.iter().take(*length).map(|token| token.text).collect::<String>() == *attribute
        };
        if let Some((_, length)) = LEFT_OUT.iter().find(begins) {
            rest = &rest[length + item_length(&rest[*length..])..];
        } else {
            kept.push(*first);
            rest = after;
        }
    }
    kept
}

/// The tokens up to the end of an item, or of what it stands in.
fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" if depth == 0 => return at,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && (token.text == "}" || token.text == ";") {
            return at + 1;
        }
    }
    tokens.len()
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (source, 0);
    while let Some(first) = rest.chars().next() {
        let length = blank(rest).or_else(|| literal(rest)).unwrap_or_else(|| word(rest).max(first.len_utf8()));
        let (text, after) = rest.split_at(length);
        if blank(rest).is_none() {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of the word at the beginning.
fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// The length of the white space or comment at the beginning, if there is one.
fn blank(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return rest.chars().next().filter(|c| c.is_whitespace()).map(char::len_utf8);
    }
    let (mut depth, mut at) = (0, 0);
    loop {
        let (step, change) = match &rest[at..] {
            tail if tail.starts_with("/*") => (2, 1),
            tail if tail.starts_with("*/") => (2, -1),
            tail => (tail.chars().next().expect("a comment that ends").len_utf8(), 0),
        };
        (depth, at) = (depth + change, at + step);
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The length of the string or character at the beginning, if there is one.
fn literal(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r"].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).map(|after| after.trim_start_matches('#'));
        after.is_some_and(|after| after.starts_with(['"', '\'']))
    });
    let prefix = prefix.unwrap_or("");
    let body = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        // `r#name` is a word.
        return body[hashes..].strip_prefix('"')?.find(&end).map(|at| prefix.len() + hashes + 1 + at + end.len());
    }
    let quote = body.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let is_lifetime = quote == '\'' && !body[1..].starts_with('\\') && body[1..].chars().nth(1) != Some('\'');
    if is_lifetime {
        return Some(prefix.len() + 1 + word(&body[1..]));
    }
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    None
}

#[test]
fn only_code_is_counted() {
    let found = look(
        r####"
        //! unsafe { in a doc comment }
        /* unsafe { in /* a nested */ comment } */
        const TEXTS: [&str; 3] = ["unsafe { \" }", r#"unsafe " { }"#, "//"];
        const SIGNS: [char; 4] = ['"', '\'', '{', '\u{7d}'];
        fn lifetime<'a>(call: unsafe fn(&'a u8), b: &'a u8) -> &'a u8 {
            // SAFETY: said.
            unsafe { call(b) };
            b
        }
        #[cfg(any(loom, shuttle))]
        unsafe fn under_a_checker() { unsafe {} }
        "####,
    );
    assert_eq!(found.counts, Counts { blocks: 1, ..Counts::default() });
    assert!(found.undocumented.is_empty() && found.duties.is_empty(), "{found:?}");
}

#[test]
fn each_kind_is_told_from_the_others() {
    let found = look(
        "
        /// # Implementation safety
        /// Mean it.
        pub unsafe trait Duty {
            /// # Safety
            /// Twice.
            unsafe fn method(&self);
        }
        // SAFETY: meant.
        #[cfg(feature = \"alloc\")]
        unsafe impl<T: Fn() -> u8> Duty for T { unsafe fn method(&self) {} }
        impl<K> Own<K> {
            /// # Safety
            /// Once.
            #[must_use]
            pub const unsafe fn new() -> Self { Self }
            wrapped! {
                /// # Safety
                /// Inside.
                pub unsafe fn wrapped() {}
            }
            /// # Safety
            /// Never.
            pub(crate) unsafe fn hidden() {}
        }
        ",
    );
    assert_eq!(found.counts, Counts { blocks: 0, functions: 5, traits: 1, impls: 1 });
    assert_eq!(found.duties, ["Duty", "Duty::method", "Own::new", "Own::wrapped"]);
    assert!(found.undocumented.is_empty(), "{found:?}");
}

#[test]
fn missing_reasons_are_found() {
    let without = [
        "fn f() { unsafe { g() } }",
        "// SAFETY: of something else.\nlet a = 1;\nunsafe { g() }",
        "/// SAFETY: not a comment.\nunsafe impl Sync for T {}",
        "/// Documented.\npub unsafe fn f() {}",
        "/// # Safety\n/// Of whom?\npub unsafe trait T {}",
    ];
    for source in without {
        assert_eq!(look(source).undocumented.len(), 1, "{source}");
    }
}
