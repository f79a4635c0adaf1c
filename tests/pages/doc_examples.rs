//! Every public function has an example: in its own documentation, or in that of its type or trait, calling it.
//!
//! Exempt is what nobody has to be shown: a function of `self` alone that is one expression and hands nothing on (`self.0`,
//! `self.pins.runs()`, a `match` with constants). So are methods of traits, which are a kernel's to write, not to call.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, ExprLit, FnArg, ImplItem, Item, Lit, Meta, Signature, Stmt, UseTree, Visibility};

use crate::condition::is_left_out;
use crate::{markdown, tree};

/// The modules whose `pub use` and public items are the library's interface.
const ROOTS: [&str; 7] = [
    "src/lib.rs",
    "src/fault/mod.rs",
    "src/frame/mod.rs",
    "src/paging/mod.rs",
    "src/pin/mod.rs",
    "src/space/mod.rs",
    "src/uaccess/mod.rs",
];

/// A public function: whose it is, its name, the text of its documentation, and whether an example would say nothing.
struct Function {
    file: String,
    owner: Option<String>,
    name: String,
    docs: String,
    is_plain: bool,
}

/// The interface, as far as it is asked here.
#[derive(Default)]
struct Interface {
    exported: BTreeSet<String>,
    functions: Vec<Function>,
    /// Documentation of types, traits and modules, by the name of what is in them.
    docs: BTreeMap<String, String>,
}

fn docs(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value() + "\n"),
            _ => None,
        },
        // An example that some feature or target has not.
        Meta::List(list) if list.path.is_ident("cfg_attr") => {
            let text = list.tokens.to_string();
            text.contains("doc = \"```\"").then(|| "```\n".to_owned())
        }
        _ => None,
    };
    // Text of a comment begins with a blank.
    let text: String = attributes.iter().filter_map(line).collect();
    text.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("doc") && list.tokens.to_string() == "hidden",
        _ => false,
    })
}

/// The code that runs, or would on the right machine; what must not compile shows nothing.
fn examples(docs: &str) -> impl Iterator<Item = String> {
    let runs = |kind: &str| !["text", "compile_fail", "ignore"].iter().any(|word| kind.starts_with(word));
    markdown::fences(docs).into_iter().filter(move |(kind, _)| runs(kind)).map(|(_, code)| code)
}

/// Whether the code calls a function of this name.
fn calls(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].trim_start_matches("::<");
        let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_word
            && (after.starts_with(['(', ')', ','])
                || after.contains(">(") && code[at + name.len()..].starts_with("::<"))
    })
}

fn names(tree: &UseTree, into: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => names(&path.tree, into),
        UseTree::Name(name) => _ = into.insert(name.ident.to_string()),
        UseTree::Rename(rename) => _ = into.insert(rename.ident.to_string()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| names(tree, into)),
        UseTree::Glob(_) => {}
    }
}

/// Finds what makes a function more than plain.
#[derive(Default)]
struct MoreThanPlain(bool);

impl<'t> Visit<'t> for MoreThanPlain {
    fn visit_expr(&mut self, value: &'t Expr) {
        self.0 |= match value {
            Expr::Call(call) => !call.args.is_empty(),
            Expr::MethodCall(call) => !call.args.is_empty(),
            Expr::Unsafe(_) | Expr::Closure(_) | Expr::Loop(_) | Expr::While(_) | Expr::Assign(_) => true,
            _ => false,
        };
        visit::visit_expr(self, value);
    }
}

fn is_plain(signature: &Signature, body: &Block) -> bool {
    let only_self = matches!(signature.inputs.iter().collect::<Vec<_>>()[..], [FnArg::Receiver(_)]);
    let [Stmt::Expr(value, None)] = &body.stmts[..] else { return false };
    let mut more = MoreThanPlain::default();
    more.visit_expr(value);
    only_self && !more.0
}

impl Interface {
    fn of_the_library() -> Self {
        let mut interface = Self::default();
        for file in tree::files("src", "rs").into_iter().chain(tree::files("arch", "rs")) {
            let source = syn::parse_file(&tree::text(&file)).expect("a source");
            let is_root = ROOTS.contains(&&*file);
            source.items.iter().for_each(|item| interface.read(&file, is_root, item));
        }
        let exported = interface.exported.clone();
        interface.functions.retain(|function| exported.contains(function.owner.as_ref().unwrap_or(&function.name)));
        interface
    }

    fn read(&mut self, file: &str, is_root: bool, item: &Item) {
        let (attributes, visibility, name) = match item {
            Item::Fn(item) => (&item.attrs, Some(&item.vis), item.sig.ident.to_string()),
            Item::Struct(item) => (&item.attrs, Some(&item.vis), item.ident.to_string()),
            Item::Enum(item) => (&item.attrs, Some(&item.vis), item.ident.to_string()),
            Item::Trait(item) => (&item.attrs, Some(&item.vis), item.ident.to_string()),
            Item::Impl(item) => (&item.attrs, None, String::new()),
            Item::Use(item) => (&item.attrs, Some(&item.vis), String::new()),
            _ => return,
        };
        let is_public = matches!(visibility, None | Some(Visibility::Public(_)));
        if !is_public || is_hidden(attributes) || attributes.iter().any(is_left_out) {
            return;
        }
        if is_root && visibility.is_some() {
            self.exported.insert(name.clone());
        }
        match item {
            Item::Use(item) if is_root => names(&item.tree, &mut self.exported),
            Item::Fn(item) => self.function(file, None, &item.attrs, &item.sig, Some(&item.block)),
            Item::Struct(_) | Item::Enum(_) | Item::Trait(_) => _ = self.docs.insert(name, docs(attributes)),
            Item::Impl(item) if item.trait_.is_none() => {
                let syn::Type::Path(of) = &*item.self_ty else { return };
                let owner = of.path.segments.last().expect("a path has a name").ident.to_string();
                for item in &item.items {
                    if let ImplItem::Fn(function) = item
                        && matches!(function.vis, Visibility::Public(_))
                        && !is_hidden(&function.attrs)
                        && !function.attrs.iter().any(is_left_out)
                    {
                        self.function(file, Some(&owner), &function.attrs, &function.sig, Some(&function.block));
                    }
                }
            }
            _ => {}
        }
    }

    fn function(
        &mut self,
        file: &str,
        owner: Option<&str>,
        attributes: &[Attribute],
        signature: &Signature,
        body: Option<&Block>,
    ) {
        self.functions.push(Function {
            file: file.to_owned(),
            owner: owner.map(str::to_owned),
            name: signature.ident.to_string(),
            docs: docs(attributes),
            is_plain: body.is_some_and(|body| is_plain(signature, body)),
        });
    }

    fn is_shown(&self, function: &Function) -> bool {
        let own = examples(&function.docs).next().is_some();
        let of_owner = function.owner.as_ref().and_then(|owner| self.docs.get(owner));
        own || of_owner.is_some_and(|docs| examples(docs).any(|code| calls(&code, &function.name)))
    }
}

#[test]
fn every_public_function_has_an_example() {
    let interface = Interface::of_the_library();
    assert!(interface.functions.len() > 200, "{}", interface.functions.len());
    let without = interface.functions.iter().filter(|function| !function.is_plain && !interface.is_shown(function));
    let without: Vec<_> = without
        .map(|function| {
            format!("{}: {}::{}", function.file, function.owner.as_deref().unwrap_or_default(), function.name)
        })
        .collect();
    assert!(without.is_empty(), "{} have no example:\n{}", without.len(), without.join("\n"));
}

#[test]
fn calls_and_plain_functions_are_told_from_others() {
    for code in ["space.map(1)", "UserSpace::map(&space)", "list.map(x)", ".for_each(UserSpace::map)", "a.map::<T>(1)"]
    {
        assert!(calls(code, "map"), "{code}");
    }
    for code in ["space.unmap(1)", "space.map_foreign(1)", "// of the map", "phys_map()"] {
        assert!(!calls(code, "map"), "{code}");
    }
    let plain = |source: &str| {
        let function: syn::ItemFn = syn::parse_str(source).expect("a function");
        is_plain(&function.sig, &function.block)
    };
    for source in ["fn f(&self) -> u8 { self.0.g() }", "fn f(self) -> u8 { match self { A => 1, B => 2 } }"] {
        assert!(plain(source), "{source}");
    }
    for source in
        ["fn f(&self, a: u8) -> u8 { a }", "fn f(self) { g(self) }", "fn f(&self) { unsafe { G } }", "fn f() {}"]
    {
        assert!(!plain(source), "{source}");
    }
}
