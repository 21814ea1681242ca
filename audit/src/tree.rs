//! The Merkle tree of RFC 6962, section 2, cut into tiles 256 hashes wide.

use sha2::{Digest, Sha256};

/// A SHA-256 hash of the tree.
pub type Hash = [u8; 32];

/// How many hashes a full tile has, and how many entries a full bundle.
pub(crate) const WIDTH: usize = 256;

/// The hash of an entry (RFC 6962, section 2.1).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(entry);
    hash.finalize().into()
}

/// The hash of an inner node (RFC 6962, section 2.1).
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// The root of a complete subtree: `hashes` are a power of two many and not none.
pub(crate) fn reduce(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&reduce(left), &reduce(right))
        }
    }
}

/// The right edge of a growing tree: for each level of tiles, the hashes of the tile that is not
/// full yet. A tree of any size fits into a few kilobytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree with `size` leaves, from the hashes of its unfinished tiles, lowest level
    /// first. None if they are not as many as the size says.
    pub(crate) fn from_levels(size: u64, levels: Vec<Vec<Hash>>) -> Option<Edge> {
        let fits = levels.iter().enumerate().all(|(level, hashes)| hashes.len() == width_at(size, level));
        (fits && levels.len() == levels_of(size)).then_some(Edge { size, levels })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The hashes in the unfinished tile of each level, lowest first.
    pub(crate) fn levels(&self) -> &[Vec<Hash>] {
        &self.levels
    }

    /// Adds a leaf. `grown(level, n, hashes)` is called for each tile that got a hash by it, with
    /// all hashes it has now; 256 of them mean that the tile is full.
    pub(crate) fn push<E>(
        &mut self,
        leaf: Hash,
        mut grown: impl FnMut(usize, u64, &[Hash]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.size += 1;
        self.put(0, leaf, &mut grown)
    }

    /// Adds 256 leaves at once by the root over them, which begins a tile of its own: the tree has
    /// a multiple of 256 leaves. `grown` hears of the tiles above.
    pub(crate) fn push_tile<E>(
        &mut self,
        root: Hash,
        mut grown: impl FnMut(usize, u64, &[Hash]) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(self.size.is_multiple_of(WIDTH as u64));
        self.size += WIDTH as u64;
        if self.levels.is_empty() {
            self.levels.push(Vec::new());
        }
        self.put(1, root, &mut grown)
    }

    fn put<E>(
        &mut self,
        from: usize,
        mut hash: Hash,
        grown: &mut impl FnMut(usize, u64, &[Hash]) -> Result<(), E>,
    ) -> Result<(), E> {
        for level in from.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(hash);
            let n = (self.size >> (8 * level as u32)).saturating_sub(1) >> 8;
            grown(level, n, &self.levels[level])?;
            if self.levels[level].len() < WIDTH {
                break;
            }
            hash = reduce(&self.levels[level]);
            self.levels[level].clear();
        }
        Ok(())
    }

    /// The root of the tree.
    pub(crate) fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        for hashes in &self.levels {
            let mut end = hashes.len();
            // Complete subtrees from the smallest, on the right, to the largest.
            while end > 0 {
                let block = 1 << end.trailing_zeros();
                let left = reduce(&hashes[end - block..end]);
                root = Some(root.map_or(left, |right| node_hash(&left, &right)));
                end -= block;
            }
        }
        root.unwrap_or_else(|| Sha256::digest([]).into())
    }
}

/// How many levels of tiles a tree with `size` leaves has.
pub(crate) fn levels_of(size: u64) -> usize {
    (u64::BITS - size.leading_zeros()).div_ceil(8) as usize
}

/// How many hashes the unfinished tile at `level` has in a tree with `size` leaves.
pub(crate) fn width_at(size: u64, level: usize) -> usize {
    (size.checked_shr(8 * level as u32).unwrap_or(0) % WIDTH as u64) as usize
}

/// Gives the root of the complete subtree over leaves `index << level .. (index + 1) << level`.
pub(crate) trait Nodes {
    type Error;
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root over the leaves from `lo` to before `hi`, a range as RFC 6962 splits them.
pub(crate) fn range_root<N: Nodes>(nodes: &N, lo: u64, hi: u64) -> Result<Hash, N::Error> {
    let n = hi - lo;
    if n == 0 {
        return Ok(Sha256::digest([]).into());
    }
    if n.is_power_of_two() {
        let level = n.trailing_zeros();
        return nodes.node(level, lo >> level);
    }
    let k = split(n);
    Ok(node_hash(&range_root(nodes, lo, lo + k)?, &range_root(nodes, lo + k, hi)?))
}

/// PATH(index, D\[size\]) of RFC 6962, section 2.1.1. `index` lies below `size`.
pub(crate) fn inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let (mut lo, mut hi) = (0, size);
    let mut path = Vec::new();
    while hi - lo > 1 {
        let middle = lo + split(hi - lo);
        if index < middle {
            path.push(range_root(nodes, middle, hi)?);
            hi = middle;
        } else {
            path.push(range_root(nodes, lo, middle)?);
            lo = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// PROOF(old, D\[new\]) of RFC 6962, section 2.1.2. Empty where `old` is 0 or equals `new`.
pub(crate) fn consistency<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    if old == 0 || old >= new {
        return Ok(path);
    }
    let (mut lo, mut hi, mut whole) = (0, new, true);
    while hi != old {
        let middle = lo + split(hi - lo);
        if old <= middle {
            path.push(range_root(nodes, middle, hi)?);
            hi = middle;
        } else {
            path.push(range_root(nodes, lo, middle)?);
            lo = middle;
            whole = false;
        }
    }
    if !whole {
        path.push(range_root(nodes, lo, hi)?);
    }
    path.reverse();
    Ok(path)
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// Whether `proof` shows that the leaf with hash `leaf` stands at `index` of the tree with `size`
/// leaves and this `root` (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree with `new` leaves has the tree with `old` leaves as its
/// beginning (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == <Hash>::from(Sha256::digest([]));
    }
    if old > new {
        return false;
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut left, mut right) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            left = node_hash(step, &left);
            right = node_hash(step, &right);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            right = node_hash(&right, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && left == *old_root && right == *new_root
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    use super::*;

    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        type Error = Infallible;
        fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
            let from = (index << level) as usize;
            Ok(reduce(&self.0[from..from + (1 << level)]))
        }
    }

    fn tree(size: u64) -> (Leaves, Edge) {
        let mut edge = Edge::default();
        let leaves: Vec<Hash> = (0..size).map(|i| leaf_hash(&i.to_le_bytes())).collect();
        for leaf in &leaves {
            edge.push(*leaf, |_, _, _| Ok::<(), Infallible>(())).unwrap();
        }
        (Leaves(leaves), edge)
    }

    #[test]
    fn roots_and_proofs_are_those_of_another_implementation() {
        let mut oracle = MemoryBackedTree::<Sha256, [u8; 8]>::new();
        let (all, mut edge) = (tree(600).0, Edge::default());
        for size in 1..=600_u64 {
            oracle.push((size - 1).to_le_bytes());
            edge.push(all.0[size as usize - 1], |_, _, _| Ok::<(), Infallible>(())).unwrap();
            let root: Hash = oracle.root().as_bytes()[..].try_into().unwrap();
            assert_eq!(edge.root(), root, "size {size}");
            if size % 37 != 0 && size > 20 {
                continue;
            }
            for at in 0..size {
                let proof = inclusion(&all, at, size).unwrap();
                assert_eq!(proof.concat(), oracle.prove_inclusion(at as usize).as_bytes());
                assert!(verify_inclusion(&all.0[at as usize], at, size, &proof, &root));
                assert!(!verify_inclusion(&all.0[at as usize], at + 1, size, &proof, &root));
            }
            for old in 1..size {
                let proof = consistency(&all, old, size).unwrap();
                let theirs = oracle.prove_consistency((size - old) as usize);
                assert_eq!(proof.concat(), theirs.as_bytes());
                let old_root = range_root(&all, 0, old).unwrap();
                assert!(verify_consistency(old, &old_root, size, &root, &proof));
                assert!(!verify_consistency(old, &root, size, &root, &proof));
            }
        }
    }

    #[test]
    fn an_edge_is_rebuilt_from_its_levels() {
        for size in [0, 1, 255, 256, 257, 512, 66_000] {
            let edge = tree(size).1;
            let mut levels = edge.levels().to_vec();
            levels.truncate(levels_of(size));
            let again = Edge::from_levels(size, levels).unwrap();
            assert_eq!(again.root(), edge.root(), "size {size}");
        }
        assert!(Edge::from_levels(5, vec![vec![[0; 32]; 4]]).is_none());
    }

    #[test]
    fn whole_tiles_make_the_same_edge_as_their_leaves() {
        let leaves = tree(256 * 300).0.0;
        let (mut one, mut many) = (Edge::default(), Edge::default());
        let (mut told_one, mut told_many) = (Vec::new(), Vec::new());
        for tile in leaves.chunks(WIDTH) {
            for leaf in tile {
                one.push(*leaf, |level, n, hashes| {
                    if level > 0 {
                        told_one.push((level, n, hashes.len()));
                    }
                    Ok::<(), Infallible>(())
                })
                .unwrap();
            }
            many.push_tile(reduce(tile), |level, n, hashes| {
                told_many.push((level, n, hashes.len()));
                Ok::<(), Infallible>(())
            })
            .unwrap();
        }
        assert_eq!((one, told_one), (many, told_many));
    }

    #[test]
    fn a_grown_tile_is_told_with_its_number() {
        let mut edge = Edge::default();
        let mut full = Vec::new();
        for _ in 0..65_537 {
            edge.push([1; 32], |level, n, hashes| {
                if hashes.len() == WIDTH {
                    full.push((level, n));
                }
                Ok::<(), Infallible>(())
            })
            .unwrap();
        }
        assert_eq!(full.len(), 257);
        assert_eq!((full[0], full[1], full[255], full[256]), ((0, 0), (0, 1), (0, 255), (1, 0)));
        assert_eq!(edge.levels().iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1]);
    }

    proptest::proptest! {
        #[test]
        fn a_changed_proof_proves_nothing(size in 2_u64..300, at: u64, bit in 0_usize..256, step: usize) {
            let (leaves, edge) = tree(size);
            let at = at % size;
            let mut proof = inclusion(&leaves, at, size).unwrap();
            let step = step % proof.len();
            proof[step][bit / 8] ^= 1 << (bit % 8);
            proptest::prop_assert!(!verify_inclusion(&leaves.0[at as usize], at, size, &proof, &edge.root()));
        }

        #[test]
        fn foreign_proofs_never_panic(old: u64, new: u64, proof: Vec<Hash>) {
            let _ = verify_inclusion(&[0; 32], old, new, &proof, &[1; 32]);
            let _ = verify_consistency(old, &[0; 32], new, &[1; 32], &proof);
        }
    }
}
