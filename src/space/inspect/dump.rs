//! [`Dump`]: an address space for a person to read.

use core::fmt;

use super::{Leaf, leaves, resident, word_of};
use crate::env::{Env, FrameSource};
use crate::frame::Snapshot;
use crate::paging::Tables;
use crate::rights::Rights;
use crate::space::UserSpace;
use crate::vma::Vma;

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
    /// Nothing changes while it prints, so the writer must be one that touches no user memory.
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
        let frame = if leaf.entry.is_special() && word.is_some() { 0 } else { pages };
        leaf.size == self.first.size
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

impl<K: Env, C> fmt::Display for Dump<'_, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { space } = self;
        let vmas = match space.vmas.write(space.env().extras()) {
            Ok(vmas) => vmas,
            Err(reentered) => return reentered.fmt(f),
        };
        // SAFETY: the mm lock is held for writing, through `vmas`.
        let tables = unsafe { Tables::under_mm_lock(&space.mm) };
        write!(f, "root {:?}, {} VMAs, ", tables.mm().root(), vmas.iter().count())?;
        match resident::count(&tables) {
            Ok(resident::Resident { exclusive, shared, zero, foreign, tables }) => writeln!(
                f,
                "pages: {exclusive} exclusive, {shared} shared, {zero} zero, {foreign} foreign; {tables} tables"
            )?,
            Err(error) => writeln!(f, "{error}")?,
        }
        for vma in vmas.iter() {
            let (start, end) = (vma.start(), vma.end());
            write!(f, "{:#x}..{:#x} {} {:?}", start.address(), end.address(), Letters(vma.rights()), vma.backing())?;
            if vma.data() != 0 {
                write!(f, ", data {:#x}", vma.data())?;
            }
            writeln!(f)?;
            lines(f, &tables, vma)?;
        }
        Ok(())
    }
}

fn lines<K: Env>(f: &mut fmt::Formatter<'_>, tables: &Tables<'_, K>, vma: &Vma) -> fmt::Result {
    let zero = tables.env().source().zero_frame();
    let (mut line, mut result): (Option<Line>, fmt::Result) = (None, Ok(()));
    let walked = leaves(tables, (vma.start(), vma.end()), |leaf| {
        // Of what is not counted, the word says nothing; but all of it that is the zero frame is one.
        let counted = !leaf.entry.is_special() || zero == Some(leaf.frame());
        let word = word_of(tables, leaf.frame()).filter(|_| counted);
        match &mut line {
            Some(line) if line.continues(&leaf, word) => line.leaves += 1,
            _ => {
                let done = line.replace(Line { first: leaf, leaves: 1, word });
                result = result.and_then(|()| print(f, done.as_ref()));
            }
        }
    });
    result?;
    print(f, line.as_ref())?;
    walked.or_else(|error| writeln!(f, "  {error}"))
}

fn print(f: &mut fmt::Formatter<'_>, line: Option<&Line>) -> fmt::Result {
    let Some(Line { first, leaves, word }) = line else { return Ok(()) };
    let (address, pages) = (first.page.address(), leaves * first.size.pages());
    write!(f, "  {address:#x} {pages} pages -> {:?} {}", first.frame(), Letters(rights(first)))?;
    match word {
        Some(_) if first.entry.is_special() => writeln!(f, " the zero frame"),
        Some(word) => writeln!(f, " {word:?}"),
        None => writeln!(f, " not counted"),
    }
}

impl<K: Env, C> fmt::Debug for Dump<'_, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
