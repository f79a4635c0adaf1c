//! The text of a file with its mutants in it, each of which can be switched on.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::sites::{Bytes, Class, Shape, Site};

/// Mutants and whole sites that are not to be in it, by number and by number of their first.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    pub(crate) mutants: BTreeSet<u32>,
    pub(crate) sites: BTreeSet<u32>,
}

pub(crate) fn file(text: &str, sites: &[Site], left_out: &LeftOut) -> String {
    let mut order: Vec<&Site> = sites.iter().filter(|site| !left_out.sites.contains(&site.first)).collect();
    // What encloses comes first. What stands between two bytes stands before what begins there. Sites of the same bytes are
    // in the order in which the syntax has them.
    order.sort_by_key(|site| (site.bytes.start, !site.bytes.is_empty(), std::cmp::Reverse(site.bytes.end)));
    Writer { text, sites: &order, left_out }.part(0..text.len(), 0).0
}

/// What an error lies in: the innermost of these whose text encloses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Culprit {
    Mutant(u32),
    Site(u32),
}

/// Finds it by the comments in a text that [`file()`] has made.
pub(crate) fn culprit(text: &str, at: usize) -> Option<Culprit> {
    let mut open = Vec::new();
    let mut rest = 0;
    while let Some(begin) = text[rest..].find("/*").map(|place| rest + place).filter(|begin| *begin < at) {
        let end = begin + text[begin..].find("*/")?;
        let (kind, number) = text[begin + 2..end].split_at_checked(1).unwrap_or_default();
        match (kind, number.parse()) {
            ("<", Ok(first)) => open.push(Culprit::Site(first)),
            ("[", Ok(number)) => open.push(Culprit::Mutant(number)),
            (">" | "]", Ok(_)) => drop(open.pop()),
            _ => {}
        }
        rest = end + 2;
    }
    open.pop()
}

struct Writer<'a> {
    text: &'a str,
    sites: &'a [&'a Site],
    left_out: &'a LeftOut,
}

impl Writer<'_> {
    /// These bytes with the sites in them that come from `next` on, and the first that comes after them.
    fn part(&self, bytes: Bytes, mut next: usize) -> (String, usize) {
        let mut out = String::new();
        let mut done = bytes.start;
        while let Some(site) = self.sites.get(next) {
            if site.bytes.start < done {
                // Of another part of the site that encloses both.
                next += 1;
                continue;
            }
            if site.bytes.end > bytes.end || (site.bytes.is_empty() && site.bytes.end == bytes.end) {
                break;
            }
            out += &self.text[done..site.bytes.start];
            out += &self.site(site, next + 1);
            done = site.bytes.end;
            next += 1;
        }
        out += &self.text[done..bytes.end];
        (out, next)
    }

    fn site(&self, site: &Site, next: usize) -> String {
        let part = |bytes: &Bytes| self.part(bytes.clone(), next).0;
        let plain = |bytes: &Bytes| &self.text[bytes.clone()];
        let replacements = |replace: &dyn Fn(&str) -> String| self.replacements(site, replace);
        let text = match &site.shape {
            Shape::Start => format!("{};", self.choice(site, "{}", &replacements(&|value| format!("return {value}")))),
            Shape::Binary { left, operator, right, class } => {
                let (left, operator, right) = (part(left), plain(operator), part(right));
                match class {
                    Class::Calculate | Class::Compare => {
                        let (borrow, follow) = if *class == Class::Compare { ("&", "*") } else { ("", "") };
                        let with = |operator: &str| format!("{follow}left {operator} {follow}right");
                        let choice = self.choice(site, &with(operator), &replacements(&|other| with(other)));
                        format!("(match ({borrow}({left}), {borrow}({right})) {{ (left, right) => {choice} }})")
                    }
                    Class::Logic | Class::Assign => {
                        let with = |operator: &str| format!("{{ ({left}) {operator} ({right}) }}");
                        format!("({})", self.choice(site, &with(operator), &replacements(&|other| with(other))))
                    }
                }
            }
            Shape::Unary { operator, operand } => {
                let (operator, operand) = (plain(operator), part(operand));
                let choice = self.choice(site, &format!("{operator}({operand})"), &replacements(&|_| operand.clone()));
                format!("({choice})")
            }
            Shape::Guard => {
                format!("({})", self.choice(site, &part(&site.bytes), &replacements(&|value| value.to_owned())))
            }
            Shape::NoGuard => {
                format!(" if ({}) ", self.choice(site, "true", &replacements(&|value| value.to_owned())))
            }
            Shape::Field { name, value, shorthand, base } => {
                let (value, base) = (if *shorthand { plain(value).to_owned() } else { part(value) }, part(base));
                let choice = self.choice(site, &value, &replacements(&|_| format!("({base}).{name}")));
                format!("{name}: {choice}")
            }
        };
        format!("/*<{first}*/{text}/*>{first}*/", first = site.first)
    }

    /// The numbers of the mutants that are not left out, with their texts.
    fn replacements(&self, site: &Site, replace: &dyn Fn(&str) -> String) -> Vec<(u32, String)> {
        let numbered = (site.first..).zip(&site.mutants);
        let there = numbered.filter(|(number, _)| !self.left_out.mutants.contains(number));
        there.map(|(number, mutant)| (number, replace(&mutant.replacement))).collect()
    }

    fn choice(&self, site: &Site, original: &str, mutants: &[(u32, String)]) -> String {
        let Some(((_, last), others)) = mutants.split_last() else { return format!("{{ {original} }}") };
        let [first, end] = [site.first, site.first + site.mutants.len() as u32 - 1];
        let mut out = format!("match crate::mutation::which({first}, {end}) {{ 0 => {original}, ");
        for (number, text) in others {
            let _ = write!(out, "{number} => /*[{number}*/{text}/*]{number}*/, ");
        }
        let number = mutants[others.len()].0;
        let _ = write!(out, "_ => /*[{number}*/{last}/*]{number}*/ }}");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutant::{Kind, Mutant};
    use crate::sites;

    const TEXT: &str = "fn f(a: u8, b: bool) -> bool { a + 1 < 3 && !b }
const fn g(a: Option<u8>) -> u8 { match a { Some(0) => 1, Some(a) if a > 1 => a, _ => 2 } }
#[cfg(test)] mod tests { fn h() -> u8 { 1 } }
";

    fn mutant(kind: Kind, before: &str, replacement: &str) -> Mutant {
        let place = TEXT.find(before).unwrap();
        let line = TEXT[..place].matches('\n').count() + 1;
        let column = place - TEXT[..place].rfind('\n').map_or(0, |end| end + 1);
        let name = format!("{before} -> {replacement}");
        Mutant { name, place: (line, column), replacement: replacement.to_owned(), kind, opaque: false }
    }

    fn sites(mutants: &[Mutant]) -> (Vec<Site>, Vec<Mutant>) {
        sites::of(TEXT, mutants, 1).unwrap()
    }

    #[test]
    fn each_place_asks_which_mutant_is_switched_on() {
        let mutants = [
            mutant(Kind::Value, "a + 1", "true"),
            mutant(Kind::Binary, "&&", "||"),
            mutant(Kind::Binary, "< 3", ">"),
            mutant(Kind::Binary, "< 3", "=="),
            mutant(Kind::Unary, "!b", ""),
        ];
        let (sites, unplaced) = sites(&mutants);
        assert!(unplaced.is_empty() && sites.iter().all(|site| !site.constant));
        let (first, _) = TEXT.split_once('\n').unwrap();
        let out = file(TEXT, &sites, &LeftOut::default());
        let (line, rest) = out.split_once('\n').unwrap();
        let plain = |numbers: [u32; 4]| {
            let [start, and, less, not] = numbers;
            format!(
                "fn f(a: u8, b: bool) -> bool {{ \
                 /*<{start}*/match crate::mutation::which({start}, {start}) {{ 0 => {{}}, _ => /*[{start}*/return true/*]{start}*/ }};/*>{start}*/\
                 /*<{and}*/(match crate::mutation::which({and}, {and}) {{ 0 => {{ (L) && (N) }}, _ => /*[{and}*/{{ (L) || (N) }}/*]{and}*/ }})/*>{and}*/ }}"
            )
            .replace('L', &format!(
                "/*<{less}*/(match (&(a + 1), &(3)) {{ (left, right) => match crate::mutation::which({less}, {end}) {{ \
                 0 => *left < *right, {less} => /*[{less}*/*left > *right/*]{less}*/, _ => /*[{end}*/*left == *right/*]{end}*/ }} }})/*>{less}*/",
                end = less + 1
            ))
            .replace('N', &format!("/*<{not}*/(match crate::mutation::which({not}, {not}) {{ 0 => !(b), _ => /*[{not}*/b/*]{not}*/ }})/*>{not}*/"))
        };
        assert_eq!(line, plain([1, 2, 3, 5]), "made of {first}");
        assert_eq!(rest, TEXT.split_once('\n').unwrap().1, "nothing else changes");
    }

    #[test]
    fn what_is_left_out_is_as_it_was() {
        let mutants = [mutant(Kind::Value, "a + 1", "true"), mutant(Kind::Binary, "&&", "||")];
        let (sites, _) = sites(&mutants);
        let all = LeftOut { mutants: BTreeSet::new(), sites: [1, 2].into() };
        assert_eq!(file(TEXT, &sites, &all), TEXT);
        let one = LeftOut { mutants: [2].into(), sites: BTreeSet::new() };
        assert!(file(TEXT, &sites, &one).contains("/*<2*/({ { (a + 1 < 3) && (!b) } })/*>2*/"));
    }

    #[test]
    fn arms_and_guards_become_guards_and_tests_have_no_mutants() {
        let mutants = [
            mutant(Kind::Arm, "Some(0)", ""),
            mutant(Kind::Arm, "Some(a) if", ""),
            mutant(Kind::Guard, "a > 1", "true"),
            mutant(Kind::Value, "1 } }", "0"),
        ];
        let (sites, unplaced) = sites(&mutants);
        assert!(unplaced.is_empty() && sites.len() == 2 && sites.iter().all(|site| site.constant));
        let out = file(TEXT, &sites, &LeftOut::default());
        let missing =
            "Some(0) /*<1*/ if (match crate::mutation::which(1, 1) { 0 => true, _ => /*[1*/false/*]1*/ }) /*>1*/=> 1";
        let guarded = "if /*<2*/(match crate::mutation::which(2, 3) { 0 => a > 1, 2 => /*[2*/false/*]2*/, _ => /*[3*/true/*]3*/ })/*>2*/ => a";
        assert!(out.contains(missing) && out.contains(guarded), "{out}");
    }

    #[test]
    fn an_error_is_of_the_innermost_that_is_open() {
        let text = " a /*<1*/ b /*[1*/ c /*<2*/ d /*>2*/ e /*]1*/ f /*>1*/ g /* words */ h";
        let of = |letter: char| culprit(text, text.find(&format!(" {letter}")).unwrap());
        assert_eq!((of('a'), of('g'), of('h')), (None, None, None));
        assert_eq!((of('b'), of('f')), (Some(Culprit::Site(1)), Some(Culprit::Site(1))));
        assert_eq!((of('c'), of('e')), (Some(Culprit::Mutant(1)), Some(Culprit::Mutant(1))));
        assert_eq!(of('d'), Some(Culprit::Site(2)));
    }
}
