//! The places of a file where mutants are, found in its syntax.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::mutant::{Kind, Mutant, Place};

/// Bytes of the file.
pub(crate) type Bytes = Range<usize>;

/// A place with its mutants, which have consecutive numbers.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) bytes: Bytes,
    pub(crate) shape: Shape,
    /// Number of the first of its mutants.
    pub(crate) first: u32,
    pub(crate) mutants: Vec<Mutant>,
    /// It can be computed at compile time, where no mutant is switched on.
    pub(crate) constant: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Before the first statement of a function.
    Start,
    Binary {
        left: Bytes,
        operator: Bytes,
        right: Bytes,
        class: Class,
    },
    Unary {
        operator: Bytes,
        operand: Bytes,
    },
    Guard,
    /// Before `=>`, where a guard would stand.
    NoGuard,
    /// The value of a field, with what the other fields come from.
    Field {
        name: String,
        value: Bytes,
        shorthand: bool,
        base: Bytes,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Compare,
    Logic,
    Assign,
    Calculate,
}

/// The sites of a file, numbered from `first` on, and the mutants that no place was found for.
pub(crate) fn of(text: &str, mutants: &[Mutant], first: u32) -> Result<(Vec<Site>, Vec<Mutant>)> {
    let file = syn::parse_file(text).context("no Rust")?;
    let mut wanted: BTreeMap<(Place, u8), Vec<Mutant>> = BTreeMap::new();
    for mutant in mutants {
        wanted.entry((mutant.place, mutant.kind as u8)).or_default().push(mutant.clone());
    }
    let mut finder = Finder { wanted, sites: Vec::new(), tests: Vec::new(), constant: 0 };
    finder.visit_file(&file);
    finder.wanted.retain(|((line, _), _), _| !finder.tests.iter().any(|tests| tests.contains(line)));
    let mut number = first;
    for site in &mut finder.sites {
        site.first = number;
        number += site.mutants.len() as u32;
    }
    Ok((finder.sites, finder.wanted.into_values().flatten().collect()))
}

struct Finder {
    wanted: BTreeMap<(Place, u8), Vec<Mutant>>,
    sites: Vec<Site>,
    /// Lines of modules that are tests.
    tests: Vec<RangeInclusive<usize>>,
    /// Depth of what is computed at compile time, or can be.
    constant: u32,
}

impl Finder {
    /// The mutants of this kind that begin where `span` does.
    fn take(&mut self, kind: Kind, span: Span) -> Vec<Mutant> {
        let place = span.start();
        self.wanted.remove(&((place.line, place.column), kind as u8)).unwrap_or_default()
    }

    fn add(&mut self, bytes: Bytes, shape: Shape, mutants: Vec<Mutant>) {
        if !mutants.is_empty() {
            self.sites.push(Site { bytes, shape, first: 0, mutants, constant: self.constant > 0 });
        }
    }

    fn within(&mut self, constant: bool, visit: impl FnOnce(&mut Self)) {
        self.constant += u32::from(constant);
        visit(self);
        self.constant -= u32::from(constant);
    }

    fn body(&mut self, block: &syn::Block) {
        if let Some(statement) = block.stmts.first() {
            let mutants = self.take(Kind::Value, statement.span());
            let start = statement.span().byte_range().start;
            self.add(start..start, Shape::Start, mutants);
        }
    }
}

/// Whether `cfg` names `test` anywhere.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let names_test =
        |list: &syn::MetaList| list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test");
    let lists = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(|a| a.meta.require_list().ok());
    lists.into_iter().any(names_test)
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_for_tests(&item.attrs) {
            self.tests.push(item.span().start().line..=item.span().end().line);
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(item.sig.constness.is_some(), |this| {
            this.body(&item.block);
            visit::visit_item_fn(this, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(item.sig.constness.is_some(), |this| {
            this.body(&item.block);
            visit::visit_impl_item_fn(this, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.within(item.sig.constness.is_some(), |this| {
            item.default.iter().for_each(|block| this.body(block));
            visit::visit_trait_item_fn(this, item);
        });
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.within(true, |this| visit::visit_item_const(this, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.within(true, |this| visit::visit_impl_item_const(this, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.within(true, |this| visit::visit_trait_item_const(this, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.within(true, |this| visit::visit_item_static(this, item));
    }

    fn visit_expr_const(&mut self, expression: &'ast syn::ExprConst) {
        self.within(true, |this| visit::visit_expr_const(this, expression));
    }

    fn visit_expr_repeat(&mut self, expression: &'ast syn::ExprRepeat) {
        self.visit_expr(&expression.expr);
        self.within(true, |this| this.visit_expr(&expression.len));
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.within(true, |this| visit::visit_type_array(this, array));
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        use syn::BinOp::*;
        let class = match binary.op {
            Eq(_) | Ne(_) | Lt(_) | Le(_) | Gt(_) | Ge(_) => Class::Compare,
            And(_) | Or(_) => Class::Logic,
            AddAssign(_) | SubAssign(_) | MulAssign(_) | DivAssign(_) | RemAssign(_) | BitXorAssign(_)
            | BitAndAssign(_) | BitOrAssign(_) | ShlAssign(_) | ShrAssign(_) => Class::Assign,
            _ => Class::Calculate,
        };
        let (left, operator, right) =
            (binary.left.span().byte_range(), binary.op.span().byte_range(), binary.right.span().byte_range());
        let mutants = self.take(Kind::Binary, binary.op.span());
        self.add(left.start..right.end, Shape::Binary { left, operator, right, class }, mutants);
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let (operator, operand) = (unary.op.span().byte_range(), unary.expr.span().byte_range());
        let mutants = self.take(Kind::Unary, unary.op.span());
        self.add(operator.start..operand.end, Shape::Unary { operator, operand }, mutants);
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        // An arm that is left out is one whose guard says no.
        let mut mutants: Vec<_> = self.take(Kind::Arm, arm.span());
        mutants.iter_mut().for_each(|mutant| "false".clone_into(&mut mutant.replacement));
        if let syn::Pat::Guard(syn::PatGuard { guard, .. }) = &arm.pat {
            mutants.extend(self.take(Kind::Guard, guard.span()));
            self.add(guard.span().byte_range(), Shape::Guard, mutants);
        } else {
            let start = arm.fat_arrow_token.span().byte_range().start;
            self.add(start..start, Shape::NoGuard, mutants);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expression: &'ast syn::ExprStruct) {
        if let Some(base) = &expression.rest {
            for field in &expression.fields {
                let mutants = self.take(Kind::Field, field.span());
                let syn::Member::Named(name) = &field.member else { continue };
                let shape = Shape::Field {
                    name: name.to_string(),
                    value: field.expr.span().byte_range(),
                    shorthand: field.colon_token.is_none(),
                    base: base.span().byte_range(),
                };
                self.add(field.span().byte_range(), shape, mutants);
            }
        }
        visit::visit_expr_struct(self, expression);
    }
}
