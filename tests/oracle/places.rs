//! Pages that get other frames, other addresses, or go to a slot: what their process sees stays the same.

use pagepin::Zone;
use pagepin::frame::Layout;
use pagepin::space::SpaceError;

use super::reference::{Backing, whole_pages};
use super::{Effect, World};
use crate::machine::PAGE;

impl<L: Layout> World<'_, L> {
    pub(super) fn swap_out(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let process = &self.processes[who].0;
        let before = self.machine.tokens(process).len() as u64;
        let result = process.swap_out(start, length);
        let gone = self.machine.tokens(process).len() as u64 - before;
        match whole_pages(self.options.kernel_half.levels(), start, length) {
            Ok(range) => {
                let out = result.unwrap();
                let inside = self.seen.leaves(who).iter().filter(|leaf| range.contains(&(leaf.address / PAGE)));
                let pinned = inside.filter(|leaf| self.seen.is_pinned(leaf)).count() as u64;
                assert_eq!(out.pages, gone);
                assert!(out.pinned_pages <= pinned, "{out:?}");
                Effect::Anything
            }
            Err(error) => {
                assert_eq!(result, Err(error));
                Effect::Nothing
            }
        }
    }

    /// What is in a slot goes at once. What is there may be taken from then on, until somebody writes.
    pub(super) fn free_lazily(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let result = self.processes[who].0.free_lazily(start, length);
        let range = match whole_pages(self.options.kernel_half.levels(), start, length) {
            Ok(range) => range,
            Err(error) => {
                assert_eq!(result, Err(error));
                return Effect::Nothing;
            }
        };
        let pages: Vec<_> =
            self.processes[who].1.touching(&range).map(|(first, mapping)| (first, mapping.clone())).collect();
        let mut most = 0;
        for (first, mapping) in pages.into_iter().filter(|(_, mapping)| mapping.has_memory()) {
            let Backing::Anonymous(block) = &mapping.backing else { continue };
            if self.seen.tokens(who).contains_key(&(first * PAGE)) {
                self.processes[who].1.discard(first..first + 1);
                most += 1;
            } else if self.seen.leaf(who, first * PAGE).is_some_and(|leaf| leaf.is_present()) {
                block.borrow_mut().given_up = true;
                most += 1;
            }
        }
        assert!(result.unwrap().pages <= most);
        Effect::Anything
    }

    /// What goes was given up, was not written since, and is nobody's else.
    pub(super) fn reclaim_freed(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let result = self.processes[who].0.reclaim_freed(start, length);
        let range = match whole_pages(self.options.kernel_half.levels(), start, length) {
            Ok(range) => range,
            Err(error) => {
                assert_eq!(result, Err(error));
                return Effect::Nothing;
            }
        };
        let inside: Vec<_> =
            self.seen.leaves(who).iter().filter(|leaf| range.contains(&(leaf.address / PAGE))).collect();
        let process = &self.processes[who].0;
        let gone: Vec<_> =
            inside.into_iter().filter(|leaf| self.machine.leaf(process, leaf.address).is_none()).collect();
        assert_eq!(result.unwrap().pages, gone.len() as u64);
        for leaf in gone {
            let page = leaf.address / PAGE;
            let mapping = self.processes[who].1.page(leaf.address).expect("a page of a mapping").mapping.clone();
            let Backing::Anonymous(block) = &mapping.backing else { panic!("no memory of its own went: {leaf:x?}") };
            assert!(block.borrow().given_up, "nobody gave up {leaf:x?}");
            assert_eq!(self.seen.word(leaf.frame()).map(|word| (word.refs, word.pins)), Some((1, 0)), "{leaf:x?}");
            self.processes[who].1.discard(page..page + 1);
        }
        Effect::Anything
    }

    pub(super) fn write_out(&mut self) -> Effect {
        self.machine.write_out();
        Effect::Anything
    }

    pub(super) fn relocate(&mut self, who: usize, start: u64, length: u64) -> Effect {
        let result = self.processes[who].0.relocate(start, length, Zone::Unmovable);
        match whole_pages(self.options.kernel_half.levels(), start, length) {
            Ok(_) => {
                assert!(result.is_ok() || (self.starved() && result == Err(SpaceError::NoMemory)), "{result:?}");
                Effect::Anything
            }
            Err(error) => {
                assert_eq!(result, Err(error));
                Effect::Nothing
            }
        }
    }

    pub(super) fn move_pages(&mut self, who: usize, start: u64, length: u64, to: u64) -> Effect {
        let result = self.processes[who].0.move_pages(start, length, to);
        let levels = self.options.kernel_half.levels();
        let wanted = whole_pages(levels, start, length).and_then(|from| {
            let into = whole_pages(levels, to, length)?;
            self.processes[who].1.may_move(&from, &into)?;
            Ok((from, into.start))
        });
        if self.starved() && wanted.is_ok() {
            assert_eq!(result, Err(SpaceError::NoMemory));
            return Effect::EmptyTables;
        }
        assert_eq!(result, wanted.clone().map(|_| ()));
        let Ok((from, to)) = wanted else { return Effect::EmptyTables };
        self.processes[who].1.move_pages(from, to);
        Effect::Anything
    }

    /// First both write the same byte, or hardly any two would be alike.
    pub(super) fn merge(&mut self, who: usize, address: u64, other: usize, kept: u64) -> Effect {
        for (who, address) in [(who, address), (other, kept)] {
            self.note_refusals();
            _ = self.store(who, address & !(PAGE - 1), 0, 0x5a);
        }
        let (process, keeper) = (&self.processes[who].0, &self.processes[other].0);
        let result = process.merge(address, keeper, kept);
        if result.is_ok() {
            let [one, two] = [(who, address), (other, kept)].map(|(who, address)| {
                let page = self.processes[who].1.page(address).expect("a page that was merged");
                assert!(!matches!(page.mapping.backing, Backing::Registers(_)) && !page.is_borrowed());
                page.bytes().unwrap()
            });
            assert!((0..PAGE).all(|at| one.get(at) == two.get(at)), "two pages became one that are not alike");
        }
        Effect::Anything
    }
}
