//! Owns the queries inside documents: blocks of code marked `promql`.
//! Must not know how queries are checked.

/// A query in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Number of its first line, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// Marked `promql wrong`: an example of a mistake, which the checks must find.
    pub(crate) is_wrong: bool,
}

/// The queries of a Markdown text. Queries within a block are separated by empty lines.
pub(crate) fn queries(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    // The open fence, whether its queries are read, and whether they are marked as wrong.
    let mut open: Option<(&str, Option<bool>)> = None;
    let mut block: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        let words = line.trim();
        let ticks = &words[..words.len() - words.trim_start_matches('`').len()];
        match open {
            None if ticks.len() >= 3 => {
                let mut info = words.trim_start_matches('`').split_whitespace();
                let is_query = info.next() == Some("promql");
                open = Some((ticks, is_query.then(|| info.next() == Some("wrong"))));
            }
            None => {}
            Some((fence, _)) if ticks.len() >= fence.len() && words == ticks => {
                open = None;
                found.extend(block.take());
            }
            Some((_, Some(is_wrong))) if !words.is_empty() => match &mut block {
                Some(block) => block.text = format!("{}\n{line}", block.text),
                None => block = Some(Block { line: number + 1, text: line.to_owned(), is_wrong }),
            },
            Some(_) => found.extend(block.take()),
        }
    }
    found.extend(block);
    found.retain(|block| block.text.lines().any(|line| !line.trim().starts_with('#')));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_in_blocks_that_say_so() {
        let text = "```rust\nup\n```\n\n```promql\n# a comment\nup\n\nsum(\n  up)\n\n# alone\n```\ntext\n   ```promql wrong\nrate(up[5m])\n   ```\n";
        let check = |line, text: &str, is_wrong| Block { line, text: text.to_owned(), is_wrong };
        let expected =
            [check(6, "# a comment\nup", false), check(9, "sum(\n  up)", false), check(16, "rate(up[5m])", true)];
        assert_eq!(queries(text), expected);
    }

    #[test]
    fn a_block_that_is_not_closed_ends_with_the_text() {
        assert_eq!(queries("```promql\nup").len(), 1);
        assert_eq!(queries("````promql\nup\n```\ndown\n````\nup").len(), 1);
    }
}
