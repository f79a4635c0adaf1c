//! Rust source, and where it says `unsafe`: what `unsafe_page` counts.

use std::collections::BTreeSet;
use std::ops::AddAssign;

use proc_macro2::{LineColumn, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Expr, ExprLit, ImplItem, Item, Lit, Meta, Signature, Stmt, Token, TraitItem, Type, Visibility,
};

use crate::condition::is_left_out;

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

/// Whose function it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Trait(String),
    TraitImpl,
    Type(String),
}

struct Looker<'s> {
    lines: Vec<&'s str>,
    found: Found,
    /// Each `unsafe` that was counted, or is known not to count.
    understood: BTreeSet<(usize, usize)>,
    owner: Owner,
}

/// Looks through a file as a normal build sees it: not under a model checker, no unit tests.
pub(crate) fn look(source: &str) -> Found {
    let file = syn::parse_file(source).unwrap_or_else(|error| panic!("line {}: {error}", error.span().start().line));
    let mut looker = Looker {
        lines: source.lines().map(str::trim).collect(),
        found: Found::default(),
        understood: BTreeSet::new(),
        owner: Owner::Nobody,
    };
    looker.visit_file(&file);
    let all = unsafe_words(source.parse().expect("it was parsed before"));
    let unknown: Vec<usize> = all.difference(&looker.understood).map(|(line, _)| *line).collect();
    assert!(unknown.is_empty(), "what is the `unsafe` of lines {unknown:?}?");
    looker.found
}

fn place(span: Span) -> (usize, usize) {
    let LineColumn { line, column } = span.start();
    (line, column)
}

/// The places of the word, however deep.
fn unsafe_words(tokens: TokenStream) -> BTreeSet<(usize, usize)> {
    let mut places = BTreeSet::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => places.extend(unsafe_words(group.stream())),
            TokenTree::Ident(word) if word == "unsafe" => _ = places.insert(place(word.span())),
            _ => {}
        }
    }
    places
}

impl Looker<'_> {
    /// An `unsafe` that counts: the text that must go with it is there or not.
    fn judge(&mut self, word: Span, is_documented: bool) {
        let (line, column) = place(word);
        self.understood.insert((line, column));
        if !is_documented {
            self.found.undocumented.push(format!("line {line}: {}", self.lines[line - 1]));
        }
    }

    fn function(&mut self, attributes: &[Attribute], visibility: Option<&Visibility>, signature: &Signature) {
        let Some(word) = unsafe_of(signature) else { return };
        self.found.counts.functions += 1;
        let name = &signature.ident;
        let public = matches!(visibility, Some(Visibility::Public(_)));
        match &self.owner {
            Owner::Trait(owner) => self.found.duties.push(format!("{owner}::{name}")),
            Owner::Type(owner) if public => self.found.duties.push(format!("{owner}::{name}")),
            Owner::Nobody if public => self.found.duties.push(name.to_string()),
            _ => {}
        }
        // A method of a trait is explained in the trait.
        let is_documented = self.owner == Owner::TraitImpl || has_section(attributes, "# Safety");
        self.judge(word, is_documented);
    }

    /// Whether the comment right above says why; attributes may stand between.
    fn is_explained(&self, word: Span) -> bool {
        let above = self.lines[..word.start().line - 1].iter().rev().filter(|line| !line.starts_with("#["));
        let mut comment = above.take_while(|line| line.starts_with("//") && !line.starts_with("///"));
        comment.any(|line| line.starts_with("// SAFETY: "))
    }

    fn owned_by(&mut self, owner: Owner, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        visit(self);
        self.owner = outer;
    }

    /// Whether the build has this; what it has not may say `unsafe` as it likes.
    fn is_built(&mut self, tokens: TokenStream) -> bool {
        let attributes_first = |input: ParseStream<'_>| {
            let attributes = input.call(Attribute::parse_outer)?;
            input.parse::<TokenStream>().map(|_| attributes)
        };
        let attributes = attributes_first.parse2(tokens.clone()).expect("attributes of what was parsed before");
        let built = !attributes.iter().any(is_left_out);
        if !built {
            self.understood.extend(unsafe_words(tokens));
        }
        built
    }
}

/// What follows each other until the end.
fn all<T: Parse>(input: ParseStream<'_>) -> syn::Result<Vec<T>> {
    let mut parts = Vec::new();
    while !input.is_empty() {
        parts.push(input.parse()?);
    }
    Ok(parts)
}

fn unsafe_of(signature: &Signature) -> Option<Span> {
    match &signature.safety {
        syn::Safety::Unsafe(word) => Some(word.span),
        _ => None,
    }
}

/// Whether the documentation has the section.
fn has_section(attributes: &[Attribute], heading: &str) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::NameValue(doc) if doc.path.is_ident("doc") => {
            matches!(&doc.value, Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if text.value().trim() == heading)
        }
        _ => false,
    })
}

/// The type that an `impl` is for, without its path and parameters.
fn short_name(of: &Type) -> String {
    match of {
        Type::Path(path) => path.path.segments.last().map_or(String::new(), |segment| segment.ident.to_string()),
        _ => String::new(),
    }
}

impl<'t> Visit<'t> for Looker<'_> {
    fn visit_item(&mut self, item: &'t Item) {
        if self.is_built(item.to_token_stream()) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'t ImplItem) {
        if self.is_built(item.to_token_stream()) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'t TraitItem) {
        if self.is_built(item.to_token_stream()) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'t Stmt) {
        if self.is_built(statement.to_token_stream()) {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_item_trait(&mut self, item: &'t syn::ItemTrait) {
        if let Some(word) = item.unsafety {
            self.found.counts.traits += 1;
            self.found.duties.push(item.ident.to_string());
            self.judge(word.span, has_section(&item.attrs, "# Implementation safety"));
        }
        self.owned_by(Owner::Trait(item.ident.to_string()), |this| visit::visit_item_trait(this, item));
    }

    /// A block is a promise that what it declares is there, as it says; each function has a duty of its own.
    fn visit_item_foreign_mod(&mut self, item: &'t syn::ItemForeignMod) {
        if let Some(word) = item.unsafety {
            self.found.counts.blocks += 1;
            self.judge(word.span, self.is_explained(word.span));
        }
        self.owned_by(Owner::Nobody, |this| visit::visit_item_foreign_mod(this, item));
    }

    fn visit_foreign_item_fn(&mut self, item: &'t syn::ForeignItemFn) {
        self.function(&item.attrs, Some(&item.vis), &item.sig);
        visit::visit_foreign_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'t syn::ItemImpl) {
        if let Some(word) = item.unsafety {
            self.found.counts.impls += 1;
            self.judge(word.span, self.is_explained(word.span));
        }
        let owner = if item.trait_.is_some() { Owner::TraitImpl } else { Owner::Type(short_name(&item.self_ty)) };
        self.owned_by(owner, |this| visit::visit_item_impl(this, item));
    }

    fn visit_item_fn(&mut self, item: &'t syn::ItemFn) {
        self.owned_by(Owner::Nobody, |this| {
            this.function(&item.attrs, Some(&item.vis), &item.sig);
            visit::visit_item_fn(this, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'t syn::ImplItemFn) {
        self.function(&item.attrs, Some(&item.vis), &item.sig);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'t syn::TraitItemFn) {
        self.function(&item.attrs, None, &item.sig);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_unsafe(&mut self, block: &'t syn::ExprUnsafe) {
        self.found.counts.blocks += 1;
        let word = block.unsafe_token.span;
        self.judge(word, self.is_explained(word));
        visit::visit_expr_unsafe(self, block);
    }

    /// The type of a pointer to a function asks for nothing here.
    fn visit_type_fn_ptr(&mut self, pointer: &'t syn::TypeFnPtr) {
        self.understood.extend(pointer.unsafety.map(|word| place(word.span)));
        visit::visit_type_fn_ptr(self, pointer);
    }

    /// What is handed to a macro counts as if it stood there by itself, be it items, statements or expressions.
    fn visit_macro(&mut self, call: &'t syn::Macro) {
        if unsafe_words(call.tokens.clone()).is_empty() {
            return;
        }
        if let Ok(items) = all::<ImplItem>.parse2(call.tokens.clone()) {
            items.iter().for_each(|item| self.visit_impl_item(item));
        } else if let Ok(statements) = Block::parse_within.parse2(call.tokens.clone()) {
            statements.iter().for_each(|statement| self.visit_stmt(statement));
        } else if let Ok(values) = Punctuated::<Expr, Token![,]>::parse_terminated.parse2(call.tokens.clone()) {
            values.iter().for_each(|value| self.visit_expr(value));
        }
    }
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
        #[cfg(pagepin_checker)]
        unsafe fn under_a_checker() { unsafe {} }
        #[cfg(all(feature = "alloc", not(not(test))))]
        mod tests { fn test() { unsafe {} } }
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
        /// # Safety
        /// Alone.
        pub unsafe fn free() {
            /// # Safety
            /// Inside.
            unsafe fn inner() {}
        }
        ",
    );
    assert_eq!(found.counts, Counts { blocks: 0, functions: 7, traits: 1, impls: 1 });
    assert_eq!(found.duties, ["Duty", "Duty::method", "Own::new", "Own::wrapped", "free"]);
    assert!(found.undocumented.is_empty(), "{found:?}");
}

#[test]
fn macros_hide_nothing() {
    let calls = ["vec![1, unsafe { f() }]", "run! { let a = unsafe { f() }; a }", "unless!(unsafe { f() })"];
    for call in calls {
        let found = look(&format!("fn g() {{ {call}; }}"));
        assert_eq!((found.counts.blocks, found.undocumented.len()), (1, 1), "{call}");
    }
    let found = look("wrapped! { unsafe impl Sync for T {} }");
    assert_eq!((found.counts.impls, found.undocumented.len()), (1, 1));
}

#[test]
fn missing_reasons_are_found() {
    let without = [
        "fn f() { unsafe { g() } }",
        "fn f() {\n// SAFETY: of something else.\nlet a = 1;\nunsafe { g() }\n}",
        "/// SAFETY: not a comment.\nunsafe impl Sync for T {}",
        "/// Documented.\npub unsafe fn f() {}",
        "/// # Safety\n/// Of whom?\npub unsafe trait T {}",
        "unsafe extern \"C\" {}",
        "// SAFETY: said.\nunsafe extern \"C\" { /// Documented.\nunsafe fn f(); }",
    ];
    for source in without {
        assert_eq!(look(source).undocumented.len(), 1, "{source}");
    }
}

#[test]
#[should_panic(expected = "what is the `unsafe` of lines [2]?")]
fn no_unsafe_is_passed_over() {
    look("fn f() {}\nunsafe mod m;");
}
