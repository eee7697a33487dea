//! Which nodes of the expert tree an owner answers for a row: pure integers, no sums.
//!
//! ```text
//! S(0,8) = S(0,4) + S(4,8)      owner of 0..6 answers nodes (0,4) and (4,6), each only when a choice hit it
//! ```

use std::ops::Range;

/// Maximal nodes of the tree over `0..experts` that `owned` holds whole and that contain one of `chosen`, ascending.
/// `owned` and `chosen` are ascending; a node splits at ⌊(lo + hi) / 2⌋.
#[must_use]
pub fn owned_nodes(experts: u32, owned: &[Range<u32>], chosen: &[u32]) -> Vec<(u32, u32)> {
    let mut nodes = Vec::new();
    visit(0..experts, owned, chosen, &mut nodes);
    nodes
}

fn visit(node: Range<u32>, owned: &[Range<u32>], chosen: &[u32], nodes: &mut Vec<(u32, u32)>) {
    let begin = chosen.partition_point(|&expert| expert < node.start);
    let end = chosen.partition_point(|&expert| expert < node.end);
    if begin == end {
        return;
    }
    if holds_whole(owned, &node) {
        nodes.push((node.start, node.end));
        return;
    }
    if node.len() < 2 {
        return;
    }
    let middle = node.start + (node.end - node.start) / 2;
    visit(node.start..middle, owned, &chosen[begin..end], nodes);
    visit(middle..node.end, owned, &chosen[begin..end], nodes);
}

/// Neighbouring ranges count as one.
fn holds_whole(owned: &[Range<u32>], node: &Range<u32>) -> bool {
    let mut next = node.start;
    for range in owned {
        if range.start <= next && next < range.end {
            next = range.end;
        }
    }
    next >= node.end
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_aligned_owner_answers_one_node_and_an_unaligned_one_a_node_per_piece() {
        let range = |begin, end| std::slice::from_ref(&(begin..end)).to_vec();
        assert_eq!(owned_nodes(8, &range(0, 4), &[1, 3]), [(0, 4)]);
        assert_eq!(owned_nodes(8, &range(0, 6), &[1, 3, 5]), [(0, 4), (4, 6)]);
        assert_eq!(owned_nodes(8, &range(0, 6), &[5]), [(4, 6)]);
        assert_eq!(owned_nodes(8, &range(1, 4), &[1, 2]), [(1, 2), (2, 4)]);
        assert_eq!(owned_nodes(8, &[0..2, 2..4], &[0]), [(0, 4)]);
        assert_eq!(owned_nodes(5, &range(2, 5), &[4]), [(2, 5)]);
        assert_eq!(owned_nodes(8, &range(0, 4), &[6]), []);
    }

    proptest! {
        /// The nodes lie inside what is owned, ascend, and every owned choice is in exactly one.
        #[test]
        fn every_owned_choice_is_in_exactly_one_node(
            experts in 1..70_u32, cuts in prop::collection::btree_set(0..70_u32, 0..4),
            chosen in prop::collection::btree_set(0..70_u32, 0..9),
        ) {
            let cuts: Vec<u32> = cuts.into_iter().filter(|&cut| cut < experts).collect();
            let owned: Vec<Range<u32>> = cuts.chunks(2).map(|pair| pair[0]..pair.get(1).map_or(experts, |&e| e)).collect();
            let chosen: Vec<u32> = chosen.into_iter().filter(|&e| e < experts).collect();
            let nodes = owned_nodes(experts, &owned, &chosen);
            for &expert in &chosen {
                let inside = nodes.iter().filter(|(lo, hi)| (*lo..*hi).contains(&expert)).count();
                let is_owned = owned.iter().any(|range| range.contains(&expert));
                prop_assert_eq!(inside, usize::from(is_owned));
            }
            prop_assert!(nodes.is_sorted_by(|a, b| a.1 <= b.0));
        }
    }
}
