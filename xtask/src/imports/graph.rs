//! Cycles in a graph of names. Must not know the meaning of the names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Each node and its successors.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The nodes of a cycle in order; the last one leads to the first one.
pub(super) type Circle = Vec<String>;

/// Cycles that together contain every edge that is part of a cycle. Short cycles come first, and each begins with its
/// alphabetically first name.
pub(super) fn circles(graph: &Graph) -> Vec<Circle> {
    let edges = || graph.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from.as_str(), to.as_str())));
    let mut shortest: Vec<_> =
        edges().filter(|(from, to)| from != to).filter_map(|(from, to)| way(graph, to, from)).collect();
    shortest.sort_by_key(Vec::len);
    let mut covered = BTreeSet::new();
    let mut circles = Vec::new();
    for circle in shortest {
        let following = circle.iter().cycle().skip(1);
        let edges: Vec<_> = circle.iter().copied().zip(following.copied()).collect();
        // The last edge is the one for which the cycle was searched.
        if edges.last().is_none_or(|edge| covered.contains(edge)) {
            continue;
        }
        covered.extend(edges);
        let first = circle.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(at, _)| at);
        circles.push(circle.iter().cycle().skip(first).take(circle.len()).map(|name| (*name).to_owned()).collect());
    }
    circles
}

/// The shortest path, including both ends.
fn way<'a>(graph: &'a Graph, from: &'a str, to: &'a str) -> Option<Vec<&'a str>> {
    let mut reached_from = BTreeMap::new();
    let mut waiting = VecDeque::from([from]);
    while let Some(node) = waiting.pop_front() {
        if node == to {
            let mut way = vec![to];
            while let Some(before) = way.last().filter(|node| **node != from).and_then(|node| reached_from.get(node)) {
                way.push(*before);
            }
            way.reverse();
            return Some(way);
        }
        for next in graph.get(node).into_iter().flatten() {
            if next != from && !reached_from.contains_key(next.as_str()) {
                reached_from.insert(next.as_str(), node);
                waiting.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[&str], expected: &[&str]) {
        let mut graph = Graph::new();
        for edge in edges {
            let (from, to) = edge.split_once(' ').unwrap();
            graph.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
        let found: Vec<_> = circles(&graph).iter().map(|circle| circle.join(" ")).collect();
        assert_eq!(found, expected, "{edges:?}");
    }

    #[test]
    fn no_circle() {
        check(&[], &[]);
        check(&["a b", "a c", "b d", "c d"], &[]);
        check(&["a a"], &[]);
    }

    #[test]
    fn each_edge_of_a_circle_is_shown() {
        check(&["b c", "c a", "a b", "c d"], &["a b c"]);
        check(&["a b", "b a", "b c", "c b", "x a"], &["a b", "b c"]);
        // The long cycle has an edge that is not in the short one.
        check(&["a b", "b a", "b c", "c a"], &["a b", "a b c"]);
    }
}
