//! [`Index`]: values by their keys, in order, in memory that is asked for once.
//!
//! A balanced tree (Andersson's: a node's level is one more than its left child's and at most one more than its right child's, whose
//! right child is below it) in one array. Every operation takes as many steps as the tree is deep, which is at most twice the logarithm
//! of how many it holds, whatever keys user space makes up.

use alloc::vec::Vec;
use core::cell::Cell;

/// No node.
const NONE: u32 = u32::MAX;
/// More than the depth of any tree: twice the logarithm of how many nodes a `u32` can number.
const DEEPEST: usize = 66;

struct Node<V> {
    key: u64,
    /// `None`: the node is free, and `left` is the next that is.
    value: Option<V>,
    left: u32,
    right: u32,
    level: u8,
}

/// See the [module text](self).
pub(crate) struct Index<V> {
    nodes: Vec<Node<V>>,
    root: u32,
    free: u32,
    length: usize,
    /// Where the value of a key may be, by some bits of the key: most look-ups end there. It may be another's by now, or free.
    guesses: Vec<Cell<u32>>,
}

/// The nodes from the root to one, and how many they are.
struct Path {
    nodes: [u32; DEEPEST],
    length: usize,
}

impl Path {
    const fn new() -> Self {
        Self { nodes: [NONE; DEEPEST], length: 0 }
    }

    fn push(&mut self, node: u32) {
        self.nodes[self.length] = node;
        self.length += 1;
    }
}

impl<V> Index<V> {
    /// Room for `capacity` values. `None`: the heap has not.
    pub(crate) fn new(capacity: u32) -> Option<Self> {
        let mut nodes = Vec::new();
        nodes.try_reserve_exact(capacity as usize).ok()?;
        let (mut guesses, count) = (Vec::new(), (capacity as usize).checked_next_power_of_two()?);
        guesses.try_reserve_exact(count).ok()?;
        guesses.extend((0..count).map(|_| Cell::new(NONE)));
        let next = |node: u32| if node + 1 < capacity { node + 1 } else { NONE };
        nodes.extend((0..capacity).map(|node| Node { key: 0, value: None, left: next(node), right: NONE, level: 0 }));
        Some(Self { nodes, root: NONE, free: if capacity > 0 { 0 } else { NONE }, length: 0, guesses })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// How many there can be: places are numbered from 0.
    pub(crate) fn places(&self) -> usize {
        self.nodes.len()
    }

    /// What is at a place, whatever its key.
    pub(crate) fn at(&self, place: usize) -> Option<(u64, &V)> {
        let node = self.nodes.get(place)?;
        Some((node.key, node.value.as_ref()?))
    }

    fn node(&self, at: u32) -> &Node<V> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<V> {
        &mut self.nodes[at as usize]
    }

    fn level(&self, at: u32) -> u8 {
        if at == NONE { 0 } else { self.node(at).level }
    }

    /// Keys of one object that follow one another have places of their own.
    fn guess(&self, key: u64) -> &Cell<u32> {
        let mixed = (key as u32) ^ ((key >> 32) as u32).wrapping_mul(0x9e37_79b1);
        &self.guesses[mixed as usize & (self.guesses.len() - 1)]
    }

    fn find(&self, key: u64) -> u32 {
        let guess = self.guess(key);
        let at = guess.get();
        if self.nodes.get(at as usize).is_some_and(|node| node.key == key && node.value.is_some()) {
            return at;
        }
        let mut at = self.root;
        // `NONE` is behind the last node.
        while let Some(node) = self.nodes.get(at as usize).filter(|node| node.key != key) {
            at = if key < node.key { node.left } else { node.right };
        }
        guess.set(at);
        at
    }

    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        self.nodes.get(self.find(key) as usize)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let at = self.find(key) as usize;
        self.nodes.get_mut(at)?.value.as_mut()
    }

    /// The first key that is not below `key`, and its value.
    pub(crate) fn from(&self, key: u64) -> Option<(u64, &V)> {
        let (mut at, mut found) = (self.root, NONE);
        while at != NONE {
            let node = self.node(at);
            at = if node.key < key {
                node.right
            } else {
                found = at;
                node.left
            };
        }
        let node = self.nodes.get(found as usize)?;
        Some((node.key, node.value.as_ref()?))
    }

    /// Adds a value. It comes back if there is one of that key, or no room.
    pub(crate) fn insert(&mut self, key: u64, value: V) -> Result<(), V> {
        let (mut path, mut at) = (Path::new(), self.root);
        while at != NONE {
            path.push(at);
            let node = self.node(at);
            if node.key == key {
                return Err(value);
            }
            at = if key < node.key { node.left } else { node.right };
        }
        let new = self.free;
        if new == NONE {
            return Err(value);
        }
        self.free = self.node(new).left;
        self.guess(key).set(new);
        *self.node_mut(new) = Node { key, value: Some(value), left: NONE, right: NONE, level: 1 };
        self.length += 1;
        match path.length.checked_sub(1).map(|last| path.nodes[last]) {
            None => self.root = new,
            Some(above) if key < self.node(above).key => self.node_mut(above).left = new,
            Some(above) => self.node_mut(above).right = new,
        }
        self.repair(&path, |index, top| {
            let top = index.skew(top);
            index.split(top)
        });
        Ok(())
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        let (mut path, mut at) = (Path::new(), self.root);
        while at != NONE && self.node(at).key != key {
            path.push(at);
            at = if key < self.node(at).key { self.node(at).left } else { self.node(at).right };
        }
        let found = at;
        let value = self.nodes.get_mut(found as usize)?.value.take();
        path.push(found);
        // A node without children is what goes: the neighbour in order takes the place of one that has some.
        let (left, right) = (self.node(found).left, self.node(found).right);
        if left != NONE || right != NONE {
            let to_the_left = left != NONE;
            at = if to_the_left { left } else { right };
            while at != NONE {
                path.push(at);
                at = if to_the_left { self.node(at).right } else { self.node(at).left };
            }
        }
        path.length -= 1;
        let leaf = path.nodes[path.length];
        // Of the two neighbours the left one may have a left child, and the right one a right child: of level 1, both have none.
        if leaf != found {
            let (key, value) = (self.node(leaf).key, self.node_mut(leaf).value.take());
            let node = self.node_mut(found);
            (node.key, node.value) = (key, value);
        }
        match path.length.checked_sub(1).map(|last| path.nodes[last]) {
            None => self.root = NONE,
            Some(above) if self.node(above).left == leaf => self.node_mut(above).left = NONE,
            Some(above) => self.node_mut(above).right = NONE,
        }
        *self.node_mut(leaf) = Node { key: 0, value: None, left: self.free, right: NONE, level: 0 };
        self.free = leaf;
        self.length -= 1;
        self.repair(&path, Self::lower);
        value
    }

    /// Puts each subtree along the path in order again, from below, and links it where it was.
    fn repair(&mut self, path: &Path, mend: impl Fn(&mut Self, u32) -> u32) {
        for depth in (0..path.length).rev() {
            let old = path.nodes[depth];
            let new = mend(self, old);
            match depth.checked_sub(1).map(|above| path.nodes[above]) {
                None => self.root = new,
                Some(above) if self.node(above).left == old => self.node_mut(above).left = new,
                Some(above) => self.node_mut(above).right = new,
            }
        }
    }

    /// A left child of the same level becomes the top.
    fn skew(&mut self, top: u32) -> u32 {
        let left = if top == NONE { NONE } else { self.node(top).left };
        if left == NONE || self.level(left) != self.level(top) {
            return top;
        }
        self.node_mut(top).left = self.node(left).right;
        self.node_mut(left).right = top;
        left
    }

    /// The middle of three of the same level becomes the top, one level higher.
    fn split(&mut self, top: u32) -> u32 {
        let right = if top == NONE { NONE } else { self.node(top).right };
        if right == NONE || self.level(self.node(right).right) != self.level(top) {
            return top;
        }
        self.node_mut(top).right = self.node(right).left;
        self.node_mut(right).left = top;
        self.node_mut(right).level += 1;
        right
    }

    /// A child has become lower: so does its parent, and what is at its right is put in order.
    fn lower(&mut self, top: u32) -> u32 {
        let level = self.level(self.node(top).left).min(self.level(self.node(top).right)) + 1;
        if level < self.level(top) {
            let right = self.node(top).right;
            if self.level(right) > level {
                self.node_mut(right).level = level;
            }
            self.node_mut(top).level = level;
        }
        let top = self.skew(top);
        let right = self.skew(self.node(top).right);
        self.node_mut(top).right = right;
        if right != NONE {
            let further = self.skew(self.node(right).right);
            self.node_mut(right).right = further;
        }
        let top = self.split(top);
        let right = self.split(self.node(top).right);
        self.node_mut(top).right = right;
        top
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The depth below `at`; every rule of the tree holds there.
    fn check(index: &Index<u32>, at: u32, keys: (u64, u64)) -> usize {
        if at == NONE {
            return 0;
        }
        let node = index.node(at);
        assert!(node.value.is_some() && (keys.0..=keys.1).contains(&node.key));
        assert_eq!(index.level(node.left) + 1, node.level);
        assert!(node.level - index.level(node.right) <= 1);
        assert!(node.right == NONE || index.level(index.node(node.right).right) < node.level);
        let left = node.key.checked_sub(1).map_or(0, |last| check(index, node.left, (keys.0, last)));
        assert!(node.key > 0 || node.left == NONE);
        1 + left.max(check(index, node.right, (node.key + 1, keys.1)))
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u64),
        Remove(u64),
        From(u64),
    }

    fn steps() -> impl Strategy<Value = std::vec::Vec<Step>> {
        let key = 0u64..48;
        let step = prop_oneof![
            3 => key.clone().prop_map(Step::Insert),
            2 => key.clone().prop_map(Step::Remove),
            1 => key.prop_map(Step::From),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_is_a_map_with_so_many_places(steps in steps()) {
            const CAPACITY: u32 = 24;
            let (mut index, mut model) = (Index::new(CAPACITY).unwrap(), BTreeMap::new());
            for (number, step) in steps.into_iter().enumerate() {
                let number = number as u32;
                match step {
                    Step::Insert(key) => {
                        let fits = !model.contains_key(&key) && model.len() < CAPACITY as usize;
                        assert_eq!(index.insert(key, number).is_ok(), fits);
                        if fits {
                            model.insert(key, number);
                        }
                    }
                    Step::Remove(key) => assert_eq!(index.remove(key), model.remove(&key)),
                    Step::From(key) => {
                        let first = model.range(key..).next();
                        assert_eq!(index.from(key), first.map(|(key, value)| (*key, value)));
                    }
                }
                assert_eq!(index.len(), model.len());
                assert_eq!(index.is_full(), model.len() == CAPACITY as usize);
                for key in 0..48 {
                    assert_eq!(index.get(key), model.get(&key));
                }
                let places = (0..index.places()).filter_map(|place| index.at(place)).map(|(key, value)| (key, *value));
                assert_eq!(places.collect::<BTreeMap<_, _>>(), model);
                check(&index, index.root, (0, u64::MAX - 1));
            }
        }
    }

    /// Keys in order, which a tree that is not balanced takes for a list.
    #[test]
    fn it_stays_as_deep_as_a_logarithm() {
        const COUNT: u32 = 1 << 14;
        let mut index = Index::new(COUNT).unwrap();
        (0..COUNT).for_each(|key| index.insert(u64::from(key), key).unwrap());
        assert!(check(&index, index.root, (0, u64::MAX - 1)) <= 2 * 15);
        (0..COUNT).filter(|key| key % 3 != 0).for_each(|key| assert_eq!(index.remove(u64::from(key)), Some(key)));
        assert!(check(&index, index.root, (0, u64::MAX - 1)) <= 2 * 14);
        assert!(index.insert(u64::from(COUNT), 0).is_ok());
    }

    #[test]
    fn none_fits_into_an_index_without_room() {
        let mut index = Index::new(0).unwrap();
        assert_eq!((index.insert(1, 2), index.remove(1), index.from(0)), (Err(2), None, None));
    }
}
