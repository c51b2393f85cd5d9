//! The references of one file to other files: imports, paths in its code, declared modules, defined names.
//! Must not know where those files are. Code that is compiled only for tests is ignored.

use std::collections::BTreeSet;

use super::tokens::{Kind, Token, tokens};

/// The imports of one file. All `inside` fields name the inline modules around an item.
#[derive(Debug, Default)]
pub(super) struct SourceFile {
    pub(super) imports: Vec<Import>,
    pub(super) paths: Vec<Path>,
    pub(super) modules: Vec<Declaration>,
    /// Items by the inline module around them.
    pub(super) defined: BTreeSet<(Vec<String>, String)>,
    pub(super) words: BTreeSet<String>,
    /// The whole file is code of tests: `#![cfg(test)]`.
    pub(super) only_for_tests: bool,
}

/// One leaf of a `use` tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) inside: Vec<String>,
    pub(super) segments: Vec<String>,
    pub(super) binds: Binds,
    /// `pub use`, with any restriction.
    pub(super) is_reexport: bool,
    pub(super) line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binds {
    Name(String),
    /// `as _`
    Nothing,
    /// `*`
    Everything,
}

/// A path of two or more segments in code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) inside: Vec<String>,
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

/// `mod name;`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) inside: Vec<String>,
    pub(super) name: String,
    /// `#[path = ".."]`
    pub(super) file: Option<String>,
}

pub(super) fn parse(source: &str) -> SourceFile {
    let tokens = tokens(source);
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, inline: Vec::new(), file: SourceFile::default() };
    parser.run();
    parser.file
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Open braces.
    depth: usize,
    /// Inline modules, each with the depth of its content.
    inline: Vec<(String, usize)>,
    file: SourceFile,
}

/// Words before the name of an item.
const ITEMS: [&str; 10] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod", "macro_rules"];

impl Parser<'_> {
    fn run(&mut self) {
        while self.at < self.tokens.len() {
            self.next();
        }
    }

    /// Reads at least one token.
    fn next(&mut self) {
        let token = &self.tokens[self.at];
        match &token.kind {
            Kind::Mark('#') if self.opens_attribute() => self.attributes(),
            Kind::Mark('{') => {
                self.depth += 1;
                self.at += 1;
            }
            Kind::Mark('}') => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last().is_some_and(|(_, depth)| *depth > self.depth) {
                    self.inline.pop();
                }
                self.at += 1;
            }
            Kind::Word(word) if !self.is_field_or_method() => self.word(word.clone()),
            _ => self.at += 1,
        }
    }

    fn word(&mut self, word: String) {
        match word.as_str() {
            // `use<'a>` captures lifetimes.
            "use" if !self.peek(1).is_some_and(|next| next.is('<')) => {
                let is_reexport = self.follows_visibility();
                self.at += 1;
                self.use_tree(Vec::new(), is_reexport);
            }
            "pub" => {
                self.at += 1;
                self.restriction();
            }
            "mod" if self.word_at(1).is_some() => self.module(None),
            _ => {
                let previous_is_separator =
                    self.at.checked_sub(1).is_some_and(|at| self.tokens[at].kind == Kind::PathSeparator);
                let line = self.tokens[self.at].line;
                let name = self.word_at(1).or_else(|| self.peek(1).filter(|next| next.is('!')).and(self.word_at(2)));
                let at_top = self.depth == self.inline.last().map_or(0, |(_, depth)| *depth);
                if let Some(name) = name.filter(|_| at_top && ITEMS.contains(&word.as_str())) {
                    let defined = (self.inside(), name.to_owned());
                    self.file.defined.insert(defined);
                }
                self.file.words.insert(word.clone());
                self.at += 1;
                let mut segments = vec![word];
                while self.peek(0).is_some_and(|next| next.kind == Kind::PathSeparator)
                    && let Some(segment) = self.word_at(1).map(str::to_owned)
                {
                    segments.push(segment);
                    self.at += 2;
                }
                // `::name` is another crate, and `<T>::name` belongs to a type.
                if segments.len() > 1 && !previous_is_separator {
                    let inside = self.inside();
                    self.file.paths.push(Path { inside, segments, line });
                }
            }
        }
    }

    /// `mod name;` or `mod name {`.
    fn module(&mut self, file: Option<String>) {
        let name = self.word_at(1).unwrap_or_default().to_owned();
        let inside = self.inside();
        self.file.defined.insert((inside.clone(), name.clone()));
        self.at += 2;
        match self.peek(0) {
            Some(next) if next.is('{') => {
                self.at += 1;
                self.depth += 1;
                self.inline.push((name, self.depth));
            }
            Some(next) if next.is(';') => self.file.modules.push(Declaration { inside, name, file }),
            _ => {}
        }
    }

    /// What follows `use`, or a part of it after `prefix`.
    fn use_tree(&mut self, mut prefix: Vec<String>, is_reexport: bool) {
        // `::name` is another crate; so is `name` if this crate does not define it.
        let other_crate = prefix.is_empty() && self.peek(0).is_some_and(|next| next.kind == Kind::PathSeparator);
        if other_crate {
            self.at += 1;
            prefix.push(String::new());
        }
        loop {
            let Some(token) = self.peek(0) else { return };
            let line = token.line;
            match &token.kind {
                Kind::Mark('{') => {
                    self.at += 1;
                    while self.peek(0).is_some_and(|next| !next.is('}')) {
                        let before = self.at;
                        if self.peek(0).is_some_and(|next| next.is(',')) {
                            self.at += 1;
                        } else {
                            self.use_tree(prefix.clone(), is_reexport);
                        }
                        if self.at == before {
                            return;
                        }
                    }
                    self.at += 1;
                    return;
                }
                Kind::Mark('*') => {
                    self.at += 1;
                    return self.import(prefix, Binds::Everything, is_reexport, line);
                }
                Kind::Word(word) => {
                    let word = word.clone();
                    self.at += 1;
                    // `a::{self}` is `a`.
                    if word != "self" || prefix.is_empty() {
                        prefix.push(word);
                    }
                    if self.peek(0).is_some_and(|next| next.kind == Kind::PathSeparator) {
                        self.at += 1;
                        continue;
                    }
                    let mut binds = prefix.last().cloned().map_or(Binds::Nothing, Binds::Name);
                    if self.word_at(0) == Some("as") {
                        let name = self.word_at(1).filter(|name| *name != "_");
                        binds = name.map_or(Binds::Nothing, |name| Binds::Name(name.to_owned()));
                        self.at += 2;
                    }
                    return self.import(prefix, binds, is_reexport, line);
                }
                _ => return,
            }
        }
    }

    fn import(&mut self, segments: Vec<String>, binds: Binds, is_reexport: bool, line: usize) {
        let inside = self.inside();
        self.file.imports.push(Import { inside, segments, binds, is_reexport, line });
    }

    /// Consecutive attributes; their item is skipped if it is compiled only for tests.
    fn attributes(&mut self) {
        let mut only_for_tests = false;
        let mut file = None;
        while self.opens_attribute() {
            let inner = self.peek(1).is_some_and(|next| next.is('!'));
            let first = self.at + if inner { 3 } else { 2 };
            self.at = self.end_of_group(first - 1);
            let content = &self.tokens[first..self.at.saturating_sub(1).max(first)];
            if inner {
                self.file.only_for_tests |= self.depth == 0 && is_only_for_tests(content);
                continue;
            }
            only_for_tests |= is_only_for_tests(content);
            if let [name, equals, Token { kind: Kind::Text(text), .. }] = content
                && name.word() == Some("path")
                && equals.is('=')
            {
                file = Some(text.clone());
            }
        }
        if only_for_tests {
            return self.skip_item();
        }
        if file.is_some() {
            if self.word_at(0) == Some("pub") {
                self.at += 1;
                self.restriction();
            }
            if self.word_at(0) == Some("mod") && self.word_at(1).is_some() {
                self.module(file);
            }
        }
    }

    /// Skips an item, a statement or a field: up to its `;`, its block, or the comma after it.
    fn skip_item(&mut self) {
        if self.word_at(0) == Some("pub") {
            self.at += 1;
            self.restriction();
        }
        let first = self.word_at(0).unwrap_or_default();
        let is_item = ITEMS.contains(&first) || ["use", "impl", "unsafe", "async", "extern"].contains(&first);
        let ends_with_semicolon = first == "use" || first == "let";
        while let Some(token) = self.peek(0) {
            match token.kind {
                Kind::Mark(';') => {
                    self.at += 1;
                    return;
                }
                Kind::Mark(',') if !is_item => {
                    self.at += 1;
                    return;
                }
                Kind::Mark('}' | ')' | ']') => return,
                Kind::Mark('{') => {
                    self.at = self.end_of_group(self.at);
                    if !ends_with_semicolon {
                        return;
                    }
                }
                Kind::Mark('(' | '[') => self.at = self.end_of_group(self.at),
                _ => self.at += 1,
            }
        }
    }

    /// The position after the group that opens at `open`.
    fn end_of_group(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.kind {
                Kind::Mark('(' | '[' | '{') => depth += 1,
                Kind::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.tokens.len()
    }

    /// `(crate)`, `(super)` or `(in crate::a)` after `pub`: not a path that imports something.
    fn restriction(&mut self) {
        if !self.peek(0).is_some_and(|next| next.is('(')) {
            return;
        }
        let closes = self.peek(2).is_some_and(|next| next.is(')'));
        if matches!((self.word_at(1), closes), (Some("in"), _) | (Some("crate" | "super" | "self"), true)) {
            self.at = self.end_of_group(self.at);
        }
    }

    /// Whether the token before is `pub` or the end of `pub(..)`.
    fn follows_visibility(&self) -> bool {
        let before = &self.tokens[..self.at];
        match before.last() {
            Some(last) if last.is(')') => {
                let open = before.iter().rposition(|token| token.is('('));
                open.and_then(|open| before[..open].last()).and_then(Token::word) == Some("pub")
            }
            last => last.and_then(Token::word) == Some("pub"),
        }
    }

    fn opens_attribute(&self) -> bool {
        let is = |ahead, mark| self.peek(ahead).is_some_and(|token| token.is(mark));
        is(0, '#') && (is(1, '[') || is(1, '!') && is(2, '['))
    }

    /// After one dot; two dots are a range or the rest of a struct.
    fn is_field_or_method(&self) -> bool {
        let dot = |back| self.at.checked_sub(back).is_some_and(|before| self.tokens[before].is('.'));
        dot(1) && !dot(2)
    }

    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn word_at(&self, ahead: usize) -> Option<&str> {
        self.peek(ahead).and_then(Token::word)
    }

    fn inside(&self) -> Vec<String> {
        self.inline.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Whether an attribute restricts its item to tests: `test`, `tokio::test`, `cfg(test)`, `cfg(all(test, ..))`.
fn is_only_for_tests(attribute: &[Token]) -> bool {
    match attribute {
        [name, open, condition @ .., _] if name.word() == Some("cfg") && open.is('(') => implies_test(condition),
        _ => {
            let path = attribute.iter().take_while(|token| !token.is('('));
            path.last().and_then(Token::word) == Some("test")
        }
    }
}

fn implies_test(condition: &[Token]) -> bool {
    match condition {
        [only] => matches!(only.word(), Some("test" | "doctest")),
        [name, open, list @ .., close] if open.is('(') && close.is(')') => {
            let mut parts = split_at_commas(list).into_iter().filter(|part| !part.is_empty()).peekable();
            match name.word() {
                Some("all") => parts.any(implies_test),
                Some("any") => parts.peek().is_some() && parts.all(implies_test),
                _ => false,
            }
        }
        _ => false,
    }
}

fn split_at_commas(list: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_usize;
    let at_top = |token: &Token| {
        match token.kind {
            Kind::Mark('(') => depth += 1,
            Kind::Mark(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.is(',')
    };
    list.split(at_top).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(source: &str) -> Vec<String> {
        let show = |import: Import| {
            let binds = match import.binds {
                Binds::Name(name) => format!(" as {name}"),
                Binds::Nothing => " as _".to_owned(),
                Binds::Everything => "::*".to_owned(),
            };
            let public = if import.is_reexport { "pub " } else { "" };
            let inside = import.inside.iter().map(|name| format!("{name}: ")).collect::<String>();
            format!("{}: {inside}{public}{}{binds}", import.line, import.segments.join("::"))
        };
        parse(source).imports.into_iter().map(show).collect()
    }

    #[test]
    fn use_trees() {
        let check = |source, expected: &[&str]| assert_eq!(imports(source), expected, "{source}");
        check("use crate::a;", &["1: crate::a as a"]);
        check(
            "use crate::{\n a::{B, C as D,},\n d::{self, e::*}};",
            &["2: crate::a::B as B", "2: crate::a::C as D", "3: crate::d as d", "3: crate::d::e::*"],
        );
        check("pub(in crate::x) use {super::a, b::T as _};", &["1: pub super::a as a", "1: pub b::T as _"]);
        check("use ::a::b; use self::c;", &["1: ::a::b as b", "1: self::c as c"]);
        check(
            "mod m { use super::a; mod n { pub use b::c; } } use d;",
            &["1: m: super::a as a", "1: m: n: pub b::c as c", "1: d as d"],
        );
        check("fn f() -> impl Sized + use<'a> { use crate::a; }", &["1: crate::a as a"]);
    }

    #[test]
    fn code_of_tests_is_left_out() {
        let check = |source, expected: &[&str]| assert_eq!(imports(source), expected, "{source}");
        let left = &["1: left as left"];
        check("#[cfg(test)] use crate::a; use left;", left);
        check("#[cfg(test)] pub(crate) use crate::{a, b}; use left;", left);
        check("#[cfg(all(test, not(x)))] #[allow(y)] mod tests { use crate::a; fn f() {} } use left;", left);
        check("#[cfg(test)] pub(super) fn f(x: [u8; 2]) { use crate::a; } use left;", left);
        check("#[tokio::test(flavor = \"x\")] async fn f() { use crate::a; } use left;", left);
        check("struct A { #[cfg(test)] a: B<C>, b: D } use left;", left);
        check("fn f() { #[cfg(test)] let a = if b { c } else { d }; use left; }", left);
        check("#[cfg(not(test))] use left;", left);
        check("#[cfg(any(test, feature = \"x\"))] use left;", left);
        assert!(parse("#![cfg(test)] use crate::a;").only_for_tests);
        assert!(!parse("#![allow(test)] mod m { #![cfg(test)] }").only_for_tests);
    }

    #[test]
    fn paths_in_code() {
        let check = |source, expected: &[&str]| {
            let paths = parse(source).paths.into_iter().map(|path| path.segments.join("::"));
            assert_eq!(paths.collect::<Vec<_>>(), expected, "{source}");
        };
        check(
            "fn f(x: crate::a::B) -> super::C<d::E> { x.f::<self::G>() }",
            &["crate::a::B", "super::C", "d::E", "self::G"],
        );
        check("f(::a::b, <T as c::D>::e, ..crate::g())", &["c::D", "crate::g"]);
        check("pub(in crate::a) fn f() {} // crate::b", &[]);
        check("struct A(pub (crate::b::C));", &["crate::b::C"]);
        check("macro_rules! m { () => { $crate::a::b() } }", &["crate::a::b"]);
    }

    #[test]
    fn modules_and_items() {
        let file = parse(
            "mod a; pub(crate) mod b { mod c; struct D { e: F } } #[path = \"x/y.rs\"] pub mod z; const fn g() {}",
        );
        let modules: Vec<_> = file
            .modules
            .iter()
            .map(|module| (module.inside.join("::"), &*module.name, module.file.as_deref()))
            .collect();
        assert_eq!(
            modules,
            [(String::new(), "a", None), ("b".into(), "c", None), (String::new(), "z", Some("x/y.rs"))]
        );
        assert!(file.defined.contains(&(vec!["b".to_owned()], "D".to_owned())));
        assert!(file.defined.contains(&(Vec::new(), "g".to_owned())));
    }
}
