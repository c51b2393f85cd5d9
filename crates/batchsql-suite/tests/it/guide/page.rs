//! Owns the reading of a page: its headings, tables, blocks and links.
//! Must not know the expected content.

use std::collections::BTreeSet;
use std::path::Path;

pub(crate) const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

pub(crate) struct Page(String);

impl Page {
    /// A page of the folder `docs`.
    pub(crate) fn read(name: &str) -> Self {
        Self(std::fs::read_to_string(Path::new(DOCS).join(name)).unwrap())
    }

    /// The lines with the number of their block of code, if any.
    fn lines(&self) -> impl Iterator<Item = (Option<usize>, &str)> {
        let mut blocks = 0;
        let mut inside = false;
        self.0.lines().map(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            if is_fence {
                inside = !inside;
                blocks += usize::from(inside);
            }
            ((inside || is_fence).then_some(blocks), line)
        })
    }

    fn prose(&self) -> impl Iterator<Item = &str> {
        self.lines().filter_map(|(block, line)| block.is_none().then_some(line))
    }

    fn headings(&self) -> impl Iterator<Item = &str> {
        self.prose().filter(|line| line.starts_with('#'))
    }

    /// The level of each heading.
    pub(crate) fn levels(&self) -> Vec<usize> {
        self.headings().map(|line| line.bytes().take_while(|byte| *byte == b'#').count()).collect()
    }

    /// The anchors of headings.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let anchor = |line: &str| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
        };
        self.headings().map(anchor).collect()
    }

    /// The blocks of code with their fences.
    pub(crate) fn blocks(&self) -> Vec<String> {
        let mut blocks = Vec::new();
        for (block, line) in self.lines() {
            let Some(number) = block else { continue };
            blocks.resize(number, String::new());
            blocks[number - 1] += line;
            blocks[number - 1].push('\n');
        }
        blocks
    }

    /// The blocks of code without text in the language of the page: comments are reduced to `#` or `//`, diagrams to
    /// frames, arrows and numbers.
    pub(crate) fn code(&self) -> Vec<String> {
        let lines = |block: &String| {
            let is_diagram = block.starts_with("```text");
            let code = block.lines().map(|line| match comment(block, line) {
                Some(at) => line[..at].trim_end().to_owned() + "#",
                None if is_diagram => line.chars().filter(|c| "│┌┐└┘┬▲▼◀▶:/0123456789".contains(*c)).collect(),
                None => line.to_owned(),
            });
            code.collect::<Vec<_>>().join("\n")
        };
        self.blocks().iter().map(lines).collect()
    }

    /// The text of comments in blocks of code.
    pub(crate) fn comments(&self) -> Vec<String> {
        let comments = |block: String| {
            let of_line = |line: &str| comment(&block, line).map(|at| line[at..].to_owned());
            block.lines().filter_map(of_line).collect::<Vec<_>>()
        };
        self.blocks().into_iter().flat_map(comments).collect()
    }

    /// The cells of every row of a table, without the lines under the heads.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let cells = |line: &str| {
            let line = line.trim().trim_start_matches('|').trim_end_matches('|');
            line.split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        self.prose().filter(|line| line.starts_with('|') && !line.starts_with("|---")).map(cells).collect()
    }

    /// The number of cells in every row of a table.
    pub(crate) fn widths(&self) -> Vec<usize> {
        self.rows().iter().map(Vec::len).collect()
    }

    /// The number of list items.
    pub(crate) fn items(&self) -> usize {
        let is_item = |line: &&str| {
            let line = line.trim_start();
            let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
            line.starts_with("- ") || (rest.len() < line.len() && rest.starts_with(". "))
        };
        self.prose().filter(is_item).count()
    }

    /// The text between backticks in prose and tables.
    pub(crate) fn inline_code(&self) -> BTreeSet<String> {
        let text: Vec<_> = self.prose().collect();
        text.join("\n").split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect()
    }

    /// The targets of links and images.
    pub(crate) fn links(&self) -> Vec<String> {
        let text: Vec<_> = self.prose().collect();
        text.join("\n").split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
    }
}

/// The start of the comment of a line of code.
fn comment(block: &str, line: &str) -> Option<usize> {
    let code = line.trim_start();
    let (indent, is_rust) = (line.len() - code.len(), block.starts_with("```rust"));
    if block.starts_with("```text") || code.starts_with("```") {
        None
    } else if code.starts_with(if is_rust { "// " } else { "# " }) {
        Some(indent)
    } else {
        line.find(" # ").filter(|_| !is_rust).map(|at| at + 1)
    }
}
