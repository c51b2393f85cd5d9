//! The timings of a `cargo test`: the build, and each test program, from the standard error of cargo.
//! Must not know how cargo is run, or the clock: every line comes with its time.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// One `cargo test`, from its first line to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Timings {
    /// Time until the first program ran.
    pub(crate) build: Duration,
    /// The programs that have ended, in order.
    pub(crate) programs: Vec<(String, Duration)>,
    running: Option<(String, Duration)>,
}

impl Timings {
    /// Takes a line and its time since the start. `read` reads the list of sources that cargo keeps beside each test
    /// program; without it the name of the file is used.
    pub(crate) fn line(&mut self, line: &str, at: Duration, read: impl FnOnce(&Path) -> Option<String>) {
        let line = without_colours(line);
        if let Some(program) = program(line.trim_start(), read) {
            self.next(Some(program), at);
        }
    }

    /// The end of cargo.
    pub(crate) fn end(&mut self, at: Duration) {
        self.next(None, at);
    }

    /// The time in which test programs ran.
    pub(crate) fn run(&self) -> Duration {
        self.programs.iter().map(|(_, took)| *took).sum()
    }

    /// The slowest first.
    pub(crate) fn slowest(&self, number: usize) -> Vec<&(String, Duration)> {
        let mut programs: Vec<_> = self.programs.iter().collect();
        programs.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        programs.truncate(number);
        programs
    }

    fn next(&mut self, program: Option<String>, at: Duration) {
        match self.running.take() {
            Some((name, since)) => self.programs.push((name, at.saturating_sub(since))),
            None => self.build = at,
        }
        self.running = program.map(|name| (name, at));
    }
}

/// The test program that a line announces.
fn program(line: &str, read: impl FnOnce(&Path) -> Option<String>) -> Option<String> {
    if let Some(library) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doctests of {}", library.trim()));
    }
    let (source, program) = line.strip_prefix("Running ")?.strip_suffix(')')?.rsplit_once(" (")?;
    let source = source.strip_prefix("unittests ").unwrap_or(source);
    let sources = read(&PathBuf::from(program).with_extension("d"));
    let package = sources.as_deref().and_then(|sources| package(sources, source));
    let shown = source.strip_suffix("/main.rs").filter(|shown| *shown != "src").unwrap_or(source);
    Some(match package {
        Some(package) => format!("{package} {shown}"),
        None => Path::new(program).file_name().map_or(program, |name| name.to_str().unwrap_or(program)).to_owned(),
    })
}

/// The folder of the package whose file `source` is among the sources of a program.
fn package<'a>(sources: &'a str, source: &str) -> Option<&'a str> {
    let paths = sources.split_whitespace();
    let folder = paths.filter_map(|path| path.strip_suffix(source)?.strip_suffix('/')).next()?;
    folder.rsplit('/').next()
}

/// The line without colour sequences.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// One row for each step and slow program of a verb. `None` is a step without programs.
pub(crate) fn table<'a>(steps: impl IntoIterator<Item = (&'a str, Duration, Option<&'a Timings>)>) -> Vec<String> {
    const SLOWEST: usize = 5;
    let mut rows = vec![["step", "total", "build", "run", "slowest test programs"].map(str::to_owned)];
    for (step, total, timings) in steps {
        let [build, run] = timings.map_or([None, None], |timings| [Some(timings.build), Some(timings.run())]);
        let figures = [Some(total), build, run].map(|time| time.map(seconds).unwrap_or_default());
        let slowest = timings.map(|timings| timings.slowest(SLOWEST)).unwrap_or_default();
        let mut slowest = slowest.into_iter().map(|(name, took)| format!("{:>8}  {name}", seconds(*took)));
        let [total, build, run] = figures;
        rows.push([step.to_owned(), total, build, run, slowest.next().unwrap_or_default()]);
        rows.extend(slowest.map(|program| [String::new(), String::new(), String::new(), String::new(), program]));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [0, 1, 2, 3].map(width);
    let line = |[step, total, build, run, programs]: &[String; 5]| {
        let [first, second, third, fourth] = widths;
        let line = format!("{step:<first$}  {total:>second$}  {build:>third$}  {run:>fourth$}  {programs}");
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    const LINES: [(u64, &str); 6] = [
        (1, "   Compiling batchsql-core v0.1.0 (/w/crates/batchsql-core)"),
        (9, "    Finished `test` profile [unoptimized + debuginfo] target(s) in 9.00s"),
        (10, "     Running unittests src/lib.rs (target/debug/deps/batchsql_core-01ab)"),
        (12, "\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m tests/it/main.rs (/t/debug/deps/it-02cd)"),
        (14, "a test says that it is Running somewhere (else)"),
        (30, "   Doc-tests batchsql_core"),
    ];

    fn read(path: &Path) -> Option<String> {
        match path.to_str()? {
            "target/debug/deps/batchsql_core-01ab.d" => {
                Some("/t/x: crates/batchsql-core/src/lib.rs crates/batchsql-core/src/row.rs".to_owned())
            }
            "/t/debug/deps/it-02cd.d" => Some("/t/it: crates/batchsql-core/tests/it/main.rs".to_owned()),
            _ => None,
        }
    }

    fn timings() -> Timings {
        let mut timings = Timings::default();
        for (at, line) in LINES {
            timings.line(line, second(at), read);
        }
        timings.end(second(33));
        timings
    }

    #[test]
    fn each_program_runs_until_the_next_one() {
        let timings = timings();
        let programs = timings.programs.iter().map(|(name, took)| (name.as_str(), took.as_secs()));
        let expected =
            [("batchsql-core src/lib.rs", 2), ("batchsql-core tests/it", 18), ("doctests of batchsql_core", 3)];
        assert_eq!(programs.collect::<Vec<_>>(), expected);
        assert_eq!((timings.build, timings.run()), (second(10), second(23)));
        assert_eq!(timings.slowest(1), [&("batchsql-core tests/it".to_owned(), second(18))]);
    }

    #[test]
    fn a_build_that_fails_is_a_build() {
        let mut timings = Timings::default();
        timings.line("error: could not compile `x`", second(3), |_| None);
        timings.end(second(4));
        assert_eq!((timings.build, timings.run()), (second(4), Duration::ZERO));
    }

    #[test]
    fn a_program_without_a_list_of_its_sources_is_called_as_its_file() {
        assert_eq!(program("Running tests/it/main.rs (target/it-02)", |_| None).as_deref(), Some("it-02"));
        assert_eq!(program("Running behind", |_| None), None);
    }

    #[test]
    fn the_table_has_a_line_for_each_slow_program() {
        let timings = timings();
        let lines = table([("build", second(100), None), ("tests", second(33), Some(&timings))]);
        assert_eq!(
            lines,
            [
                "step     total   build     run  slowest test programs",
                "build  100.0 s",
                "tests   33.0 s  10.0 s  23.0 s    18.0 s  batchsql-core tests/it",
                "                                   3.0 s  doctests of batchsql_core",
                "                                   2.0 s  batchsql-core src/lib.rs",
            ]
        );
    }
}
