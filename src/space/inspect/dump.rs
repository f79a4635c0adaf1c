//! [`Dump`]: an address space for a person to read.

use core::fmt::{self, Display};

use super::{Leaf, counted, leaves_of, resident};
use crate::addr::PageAddr;
use crate::env::{Env, FrameSource};
use crate::frame::Snapshot;
use crate::paging::{Cursor, TableError, Tables};
use crate::rights::Rights;
use crate::space::{MOST_PLACES, UserSpace};

/// What [`UserSpace::dump`] prints.
pub struct Dump<'a, K: Env, C> {
    space: &'a UserSpace<K, C>,
}

impl<K: Env, C> UserSpace<K, C> {
    /// The VMAs, and what their pages are mapped to, to print. Pages that are alike, in frames side by side, share a line.
    ///
    /// ```text
    /// root Pfn(0x7c), 1 VMAs, pages: 2 exclusive, 0 shared, 0 zero, 0 foreign; 4 tables
    /// 0x10000..0x14000 rw- Anonymous
    ///   0x10000 2 pages -> Pfn(0x80) rw- Frame(Anonymous, refs 1, pins 0, exclusive)
    /// ```
    ///
    /// It looks in steps and prints between them, with nothing held. What others change meanwhile is shown as it was or as it is.
    #[must_use]
    pub const fn dump(&self) -> Dump<'_, K, C> {
        Dump { space: self }
    }
}

/// Pages in a row of which the same can be said.
struct Line {
    first: Leaf,
    leaves: u64,
    word: Option<Snapshot>,
}

impl Line {
    /// Whether `leaf` goes on where this ends.
    fn continues(&self, leaf: &Leaf, word: Option<Snapshot>) -> bool {
        let pages = self.leaves * self.first.size.pages();
        let is_zero = leaf.entry.is_special() && !leaf.entry.is_borrowed() && word.is_some();
        let frame = if is_zero { 0 } else { pages };
        let tokens = leaf.entry.is_token() || self.first.entry.is_token();
        !tokens
            && leaf.size == self.first.size
            && leaf.page == self.first.page.offset(pages)
            && leaf.frame() == self.first.frame().offset(frame)
            && word == self.word
            && rights(leaf) == rights(&self.first)
    }
}

fn rights(leaf: &Leaf) -> Rights {
    let mut rights = if leaf.entry.is_present() { Rights::READ } else { Rights::empty() };
    rights.set(Rights::WRITE, leaf.is_writable());
    rights.set(Rights::EXECUTE, leaf.entry.is_present() && leaf.entry.is_executable());
    rights
}

/// As `ls` shows them.
struct Letters(Rights);

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(Rights::READ, "r"), (Rights::WRITE, "w"), (Rights::EXECUTE, "x")] {
            f.write_str(if self.0.contains(right) { letter } else { "-" })?;
        }
        Ok(())
    }
}

impl<K: Env, C> Display for Dump<'_, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { space } = self;
        let vmas = match space.hold() {
            Ok(vmas) => vmas.len(),
            Err(error) => return error.fmt(f),
        };
        write!(f, "root {:?}, {vmas} VMAs, ", space.root())?;
        match space.resident() {
            Ok(resident::Resident { exclusive, shared, zero, foreign, object, swapped, tables }) => {
                write!(f, "pages: {exclusive} exclusive, {shared} shared, {zero} zero, {foreign} foreign")?;
                for (pages, of) in [(object, "of objects"), (swapped, "swapped")] {
                    if pages != 0 {
                        write!(f, ", {pages} {of}")?;
                    }
                }
                writeln!(f, "; {tables} tables")?;
            }
            Err(error) => writeln!(f, "{error}")?,
        }
        for vma in space.vmas() {
            let vma = match vma {
                Ok(vma) => vma,
                Err(error) => return error.fmt(f),
            };
            let (start, end) = (vma.start(), vma.end());
            write!(f, "{:#x}..{:#x} {} {:?}", start.address(), end.address(), Letters(vma.rights()), vma.backing())?;
            if vma.data() != 0 {
                write!(f, ", data {:#x}", vma.data())?;
            }
            writeln!(f)?;
            lines(f, space, start, end)?;
        }
        Ok(())
    }
}

/// Most lines that one step finds: they are printed when the mm lock was let go.
const MOST_LINES: usize = 8;

fn lines<K: Env, C>(
    f: &mut fmt::Formatter<'_>,
    space: &UserSpace<K, C>,
    first: PageAddr,
    end: PageAddr,
) -> fmt::Result {
    let (mut cursor, mut line, mut is_done) = (Cursor::new(first, end), None, false);
    while !is_done {
        let mut found = [const { None }; MOST_LINES];
        let looked = match space.hold() {
            Ok(held) => find_lines(&space.tables(&held), &mut cursor, end, &mut line, &mut found),
            Err(error) => return error.fmt(f),
        };
        found.iter().flatten().try_for_each(|line| print(f, line))?;
        is_done = match looked {
            Ok(is_done) => is_done,
            Err(error) => {
                line.iter().try_for_each(|line| print(f, line))?;
                return writeln!(f, "  {error}");
            }
        };
    }
    line.iter().try_for_each(|line| print(f, line))
}

/// Goes on with `line`, and puts those that are complete into `found`: whether that was all, or there are more leaves than one step
/// looks at, or more lines.
fn find_lines<K: Env>(
    tables: &Tables<'_, K>,
    cursor: &mut Cursor,
    end: PageAddr,
    line: &mut Option<Line>,
    found: &mut [Option<Line>; MOST_LINES],
) -> Result<bool, TableError> {
    let zero = tables.env().source().zero_frame();
    let (mut found, mut places) = (found.iter_mut(), 0);
    while let Some(chunk) = cursor.next_chunk(tables)? {
        for leaf in leaves_of(tables, chunk) {
            // Of what is not counted, the word says nothing; but all of it that is the zero frame is one.
            let is_counted = leaf.entry.is_counted() || zero == Some(leaf.frame());
            let word = counted(tables, &leaf).1.filter(|_| is_counted);
            match line {
                Some(line) if line.continues(&leaf, word) => line.leaves += 1,
                _ => {
                    let Some(complete) = found.next() else {
                        *cursor = Cursor::new(leaf.page, end);
                        return Ok(false);
                    };
                    *complete = line.replace(Line { first: leaf, leaves: 1, word });
                }
            }
        }
        places += chunk.cost();
        if places >= MOST_PLACES {
            return Ok(false);
        }
    }
    Ok(true)
}

fn print(f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
    let Line { first, leaves, word } = line;
    let (address, pages) = (first.page.address(), leaves * first.size.pages());
    if let Some(token) = first.entry.as_token() {
        return writeln!(f, "  {address:#x} {pages} pages -> {token:?}");
    }
    write!(f, "  {address:#x} {pages} pages -> {:?} {}", first.frame(), Letters(rights(first)))?;
    match word {
        Some(_) if first.entry.is_special() && !first.entry.is_borrowed() => writeln!(f, " the zero frame"),
        Some(word) => writeln!(f, " {word:?}"),
        None => writeln!(f, " not counted"),
    }
}

impl<K: Env, C> fmt::Debug for Dump<'_, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
