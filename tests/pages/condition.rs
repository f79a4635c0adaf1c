//! Build conditions, as far as every normal build decides them alike.

use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Attribute, Meta, Token};

/// What no normal build has.
const NEVER: [&str; 3] = ["test", "doctest", "pagepin_checker"];

/// Whether an attribute keeps its item out of every normal build.
pub(crate) fn is_left_out(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args().is_ok_and(|condition| holds(&condition) == Some(false))
}

/// What a condition comes to in a normal build, if that is the same in each.
fn holds(condition: &Meta) -> Option<bool> {
    let Meta::List(list) = condition else {
        return NEVER.iter().any(|name| condition.path().is_ident(name)).then_some(false);
    };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
    let parts: Vec<Option<bool>> = parts.iter().map(holds).collect();
    if list.path.is_ident("not") {
        return parts.first()?.map(|value| !value);
    }
    // One part that is `decisive` decides.
    let decisive = list.path.is_ident("any");
    if parts.contains(&Some(decisive)) {
        return Some(decisive);
    }
    parts.iter().all(Option::is_some).then_some(!decisive)
}

#[test]
fn only_what_no_build_has_is_left_out() {
    let left_out = |condition: &str| {
        let attributes = Attribute::parse_outer.parse_str(&format!("#[cfg({condition})]")).expect("an attribute");
        attributes.iter().any(is_left_out)
    };
    for condition in ["test", "pagepin_checker = \"loom\"", "all(unix, test)", "any(test, doctest)", "not(not(test))"] {
        assert!(left_out(condition), "{condition}");
    }
    for condition in
        ["unix", "feature = \"alloc\"", "not(feature = \"alloc\")", "not(test)", "any(unix, test)", "not(unix)"]
    {
        assert!(!left_out(condition), "{condition}");
    }
}
