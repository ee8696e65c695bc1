//! What the percentiles need: all values that count, by rank. Which readings come here, and whether the window is
//! covered, is decided by [`super::Window`].
//!
//! A weight-balanced search tree (as Hirai and Yamamoto proved it, with 3 and 2) whose nodes lie in one vector: each
//! node knows the size of its subtree, so a rank is found on one way down, and the value of a slice that has left is
//! taken out at once. A pair of heaps could not tell the percentile without the slices that have lapsed since the latest
//! reading, which an evaluation must, and it may change nothing.

use super::ring::{Ring, growth};
use crate::units::Moment;

/// The value of each slice, ordered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ranking {
    /// Of 100.
    percent: usize,
    /// The node of each slice.
    ring: Ring<NodeId>,
    tree: Tree,
}

/// Place of a node in the tree's vector.
type NodeId = usize;

#[derive(Clone, Debug, PartialEq)]
struct Tree {
    nodes: Vec<Node>,
    root: Option<NodeId>,
    /// The first of the nodes that are not in use. The others follow on `left`.
    free: Option<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    value: f64,
    left: Option<NodeId>,
    right: Option<NodeId>,
    /// Nodes in the subtree, with this one.
    size: usize,
}

impl Ranking {
    pub(super) const fn new(percent: usize) -> Self {
        Self {
            percent,
            ring: Ring::new(),
            tree: Tree {
                nodes: Vec::new(),
                root: None,
                free: None,
            },
        }
    }

    pub(super) fn drop_lapsed(&mut self, now: Moment, length: u64) {
        while self.ring.len() > 0 && !self.ring.oldest_counts(now, length) {
            if let Some(node) = self.ring.pop() {
                self.tree.take(node);
                self.tree.release(node);
            }
        }
    }

    pub(super) fn open(&mut self, start: Moment, value: f64) {
        let node = self.tree.acquire(value);
        self.tree.put(node);
        self.ring.push(start, node);
    }

    pub(super) fn amend(&mut self, value: f64) {
        if let Some(&node) = self.ring.latest() {
            self.tree.take(node);
            self.tree.nodes[node].value = value;
            self.tree.put(node);
        }
    }

    /// The value of the nearest rank; `None` when nothing counts.
    pub(super) fn value(&self, now: Moment, length: u64) -> Option<f64> {
        let lapsed = self.ring.lapsed(now, length);
        let count = self.ring.len() - lapsed;
        let before = (self.percent * count).div_ceil(100).checked_sub(1)?;
        self.tree
            .at_rank(before, || self.ring.iter().take(lapsed).copied())
    }

    pub(super) fn reserve(&mut self, slices: usize) {
        self.ring.reserve(slices);
        let nodes = &mut self.tree.nodes;
        nodes.reserve_exact(slices.saturating_sub(nodes.len()));
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.tree.nodes.clear();
        self.tree.root = None;
        self.tree.free = None;
    }
}

impl Tree {
    /// The value that so many others come before, where the `lapsed` nodes count neither as the one nor among the
    /// others. On the way down each level looks at all of these; they are those of the last three periods at most, as
    /// a window without a newer reading is unknown.
    fn at_rank<I>(&self, before: usize, lapsed: impl Fn() -> I) -> Option<f64>
    where
        I: Iterator<Item = NodeId>,
    {
        let mut next = self.root;
        let mut passed = 0;
        while let Some(here) = next {
            let node = self.nodes[here];
            let smaller = passed + self.size(node.left);
            let uncounted = lapsed().filter(|&other| self.precedes(other, here)).count();
            let rank = smaller - uncounted;
            if rank == before && lapsed().all(|other| other != here) {
                return Some(node.value);
            }
            if rank > before {
                next = node.left;
            } else {
                passed = smaller + 1;
                next = node.right;
            }
        }
        None
    }

    /// A node of its own, which is not in the tree yet.
    fn acquire(&mut self, value: f64) -> NodeId {
        let node = Node {
            value,
            left: None,
            right: None,
            size: 1,
        };
        if let Some(id) = self.free {
            self.free = self.nodes[id].left;
            self.nodes[id] = node;
            return id;
        }
        if self.nodes.len() == self.nodes.capacity() {
            self.nodes.reserve_exact(growth(self.nodes.len()));
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Gives back a node that is not in the tree any more.
    fn release(&mut self, id: NodeId) {
        self.nodes[id].left = self.free;
        self.free = Some(id);
    }

    fn put(&mut self, id: NodeId) {
        self.root = Some(self.with(self.root, id));
    }

    fn take(&mut self, id: NodeId) {
        self.root = self.without(self.root, id);
    }

    /// The order of the tree. Equal values are told apart by their nodes, so that each is found again.
    fn precedes(&self, a: NodeId, b: NodeId) -> bool {
        let order = self.nodes[a].value.total_cmp(&self.nodes[b].value);
        order.then(a.cmp(&b)).is_lt()
    }

    fn size(&self, subtree: Option<NodeId>) -> usize {
        subtree.map_or(0, |id| self.nodes[id].size)
    }

    fn with(&mut self, subtree: Option<NodeId>, id: NodeId) -> NodeId {
        let Some(here) = subtree else {
            let node = &mut self.nodes[id];
            (node.left, node.right, node.size) = (None, None, 1);
            return id;
        };
        if self.precedes(id, here) {
            self.nodes[here].left = Some(self.with(self.nodes[here].left, id));
        } else {
            self.nodes[here].right = Some(self.with(self.nodes[here].right, id));
        }
        self.balanced(here)
    }

    fn without(&mut self, subtree: Option<NodeId>, id: NodeId) -> Option<NodeId> {
        let here = subtree?;
        let Node { left, right, .. } = self.nodes[here];
        if here == id {
            return self.joined(left, right);
        }
        if self.precedes(id, here) {
            self.nodes[here].left = self.without(left, id);
        } else {
            self.nodes[here].right = self.without(right, id);
        }
        Some(self.balanced(here))
    }

    /// One tree of two, all of the first before all of the second.
    fn joined(&mut self, left: Option<NodeId>, right: Option<NodeId>) -> Option<NodeId> {
        let (Some(_), Some(first_right)) = (left, right) else {
            return left.or(right);
        };
        let mut least = first_right;
        while let Some(lesser) = self.nodes[least].left {
            least = lesser;
        }
        let rest = self.without(right, least);
        self.nodes[least].left = left;
        self.nodes[least].right = rest;
        Some(self.balanced(least))
    }

    /// The root of the subtree after one of its sides has gained or lost a node.
    fn balanced(&mut self, here: NodeId) -> NodeId {
        let Node { left, right, .. } = self.nodes[here];
        match (left, right) {
            (_, Some(heavy)) if self.outweighs(right, left) => {
                let Node { left, right, .. } = self.nodes[heavy];
                if let Some(inner) = left
                    && self.is_double(left, right)
                {
                    self.nodes[here].right = Some(self.turned_right(heavy, inner));
                    return self.turned_left(here, inner);
                }
                self.turned_left(here, heavy)
            }
            (Some(heavy), _) if self.outweighs(left, right) => {
                let Node { left, right, .. } = self.nodes[heavy];
                if let Some(inner) = right
                    && self.is_double(right, left)
                {
                    self.nodes[here].left = Some(self.turned_left(heavy, inner));
                    return self.turned_right(here, inner);
                }
                self.turned_right(here, heavy)
            }
            _ => {
                self.measure(here);
                here
            }
        }
    }

    /// Whether one side is too heavy for the other.
    fn outweighs(&self, side: Option<NodeId>, other: Option<NodeId>) -> bool {
        self.size(side) + 1 > 3 * (self.size(other) + 1)
    }

    /// Whether the inner side of a side that is too heavy must itself be turned outwards first.
    fn is_double(&self, inner: Option<NodeId>, outer: Option<NodeId>) -> bool {
        self.size(inner) + 1 >= 2 * (self.size(outer) + 1)
    }

    /// Makes `child`, the right one of `here`, the root of both.
    fn turned_left(&mut self, here: NodeId, child: NodeId) -> NodeId {
        self.nodes[here].right = self.nodes[child].left;
        self.measure(here);
        self.nodes[child].left = Some(here);
        self.measure(child);
        child
    }

    /// Makes `child`, the left one of `here`, the root of both.
    fn turned_right(&mut self, here: NodeId, child: NodeId) -> NodeId {
        self.nodes[here].left = self.nodes[child].right;
        self.measure(here);
        self.nodes[child].right = Some(here);
        self.measure(child);
        child
    }

    fn measure(&mut self, here: NodeId) {
        let Node { left, right, .. } = self.nodes[here];
        self.nodes[here].size = self.size(left) + self.size(right) + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks order, sizes and balance of a subtree and gives its nodes in order.
    fn nodes_in_order(tree: &Tree, subtree: Option<NodeId>, nodes: &mut Vec<NodeId>) {
        let Some(here) = subtree else { return };
        let Node {
            left, right, size, ..
        } = tree.nodes[here];
        assert_eq!(size, tree.size(left) + tree.size(right) + 1);
        assert!(!tree.outweighs(left, right) && !tree.outweighs(right, left));
        nodes_in_order(tree, left, nodes);
        nodes.push(here);
        nodes_in_order(tree, right, nodes);
    }

    fn check(ranking: &Ranking) {
        let mut nodes = Vec::new();
        nodes_in_order(&ranking.tree, ranking.tree.root, &mut nodes);
        assert_eq!(nodes.len(), ranking.ring.len());
        assert!(
            nodes
                .windows(2)
                .all(|pair| ranking.tree.precedes(pair[0], pair[1]))
        );
    }

    #[test]
    fn the_tree_stays_balanced_in_whatever_order_values_come_and_go() {
        let orders: [fn(u32) -> u32; 5] = [
            |n| n,
            |n| u32::MAX - n,
            |_| 7,
            |n| n % 3,
            |n| n.wrapping_mul(2_654_435_761),
        ];
        for order in orders {
            let mut ranking = Ranking::new(50);
            for n in 0..600_u32 {
                let at = Moment(u64::from(n));
                // The window is now wide, now narrow, so that one comes and many leave.
                ranking.drop_lapsed(at, if n % 250 > 200 { 20 } else { 150 });
                ranking.open(at, f64::from(order(n)));
                check(&ranking);
                if n % 5 == 0 {
                    ranking.amend(f64::from(order(n + 1)));
                    check(&ranking);
                }
            }
            ranking.drop_lapsed(Moment(10_000), 1);
            assert_eq!(ranking.tree.root, None);
            assert!(
                ranking.tree.nodes.len() <= 151,
                "nodes that were given back are used again"
            );
        }
    }
}
