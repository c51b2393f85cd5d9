//! Owns the checks of the sections of sources.
//! Must not know databases.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use batchsql::PipelineConfig;
use toml::Spanned;

use crate::config::mistakes::Mistakes;
use crate::config::nats_checks;
use crate::config::nats_sections::{self, Guarantee, Messages};
use crate::config::sections::{self, Durable, Missing, SetTo, Table, Unknown};
use crate::config::settings::{Destination, Files, JetStream, Nats, Source, SourceKind};

/// The rest of the configuration, as far as it has no mistake.
pub(super) struct Around<'a> {
    pub(super) folder: &'a Path,
    pub(super) tables: &'a [Table],
    pub(super) destination: Option<&'a Destination>,
    pub(super) durable: Option<&'a Durable>,
    pub(super) pipeline: &'a PipelineConfig,
    pub(super) nats: Option<&'a Nats>,
    pub(super) dead_letters: Option<&'a Path>,
}

impl Around<'_> {
    fn table_names(&self) -> Vec<&str> {
        self.tables.iter().map(|table| table.name.get_ref().as_str()).collect()
    }

    fn publishes(&self) -> bool {
        matches!(self.destination, Some(Destination::Stream(_)))
    }

    /// Whether the log writes its own subjects, and nobody else does.
    fn publishes_exactly_once(&self) -> bool {
        self.publishes() && self.durable.is_some_and(|durable| durable.exactly_once.is_some())
    }

    fn is_redis(&self) -> bool {
        matches!(self.destination, Some(Destination::Database(database)) if database.is_redis())
    }
}

/// What is known of the sources before one.
#[derive(Default)]
struct Before {
    ids: BTreeSet<String>,
    has_stdin: bool,
    streams: BTreeSet<String>,
    /// Patterns of files, with their tables.
    files: BTreeSet<(String, String)>,
    /// Names in the table of positions.
    readers: BTreeSet<String>,
}

pub(super) fn check(
    checks: &mut Mistakes<'_>,
    sections: Vec<Spanned<sections::Source>>,
    around: &Around<'_>,
) -> Vec<Source> {
    let mut before = Before::default();
    let mut sources = Vec::new();
    for section in sections {
        let span = section.span();
        let section = section.into_inner();
        checks.name(&section.id, &mut before.ids, "the id of a source");
        let id = section.id.get_ref().clone();
        if let Some(kind) = kind(checks, span, section, around, &mut before) {
            sources.push(Source { id, kind });
        }
    }
    sources
}

/// Whether each repeat of a row changes the table once more.
fn adds(table: &Table) -> bool {
    table.set.values().any(|set| *set == SetTo::Add)
}

/// Why a table is not loaded at least once.
pub(crate) fn adds_twice(table: &str) -> String {
    format!(
        "table `{table}` has a rule that adds (`set`), and at least once a row may be written more than once; load it exactly once \
         (without `at_least_once` or --at-least-once, and not on Redis), or use another rule"
    )
}

fn kind(
    checks: &mut Mistakes<'_>,
    span: Range<usize>,
    mut section: sections::Source,
    around: &Around<'_>,
    before: &mut Before,
) -> Option<SourceKind> {
    match (section.files.take(), section.stdin, section.jetstream.take()) {
        (None, false, Some(stream)) => {
            if let Some(table) = &section.table {
                checks.problem(
                    table.span(),
                    "a stream has several tables; write `tables = [...]`, or leave it out for all",
                );
                return None;
            }
            let tables = tables(checks, span, section.tables, around)?;
            jetstream(checks, stream, tables, around, before).map(|stream| SourceKind::JetStream(Box::new(stream)))
        }
        (Some(pattern), false, None) => {
            let table = table(checks, span.clone(), &section, around)?;
            let (given, folder) = (PathBuf::from(pattern), around.folder.to_owned());
            let pattern = Path::new(&glob::Pattern::escape(&folder.to_string_lossy())).join(&given);
            let pattern = pattern.to_string_lossy().into_owned();
            if let Err(error) = glob::Pattern::new(&pattern) {
                checks.problem(span, format!("`files` is not a pattern of paths: {}", error.msg));
                return None;
            }
            if !before.files.insert((pattern.clone(), table.clone())) {
                let text = "two sources load the same `files` into one table, and would keep each other waiting; remove one of them";
                checks.problem(span, text);
                return None;
            }
            if around.publishes_exactly_once() {
                // They do not go through the log, which finds its position in the last message of a subject at the next start.
                let text = "a log that is published exactly once has its subjects for itself, and files are published beside \
                            it; remove `exactly_once`, or publish the files to another stream with a program of their own";
                checks.problem(span, text);
                return None;
            }
            if around.publishes() && !section.at_least_once {
                let text = "a stream does not keep how far a file is written; set `at_least_once = true`";
                checks.problem(span, text);
                return None;
            }
            let is_repeated = section.at_least_once || around.is_redis();
            if is_repeated && around.tables.iter().any(|known| *known.name.get_ref() == table && adds(known)) {
                checks.problem(span, adds_twice(&table));
                return None;
            }
            let (every, unchanged_for) = (section.every, section.unchanged_for);
            let (format, at_least_once) = (section.format, section.at_least_once);
            Some(SourceKind::Files(Files {
                table,
                given,
                folder,
                pattern,
                format,
                at_least_once,
                every,
                unchanged_for,
            }))
        }
        (None, true, None) if before.has_stdin => {
            checks.problem(span, "two sources read standard input; remove one of them");
            None
        }
        (None, true, None) if section.format.is_some_and(|format| format != sections::Format::Ndjson) => {
            checks.problem(span, "standard input is read as NDJSON; remove `format`");
            None
        }
        (None, true, None) => {
            before.has_stdin = true;
            Some(SourceKind::Stdin { table: table(checks, span, &section, around)? })
        }
        (None, false, None) => {
            let text = "the source says not what it reads; add `files = \"folder/*.ndjson\"`, `stdin = true` or \
                        [sources.jetstream]";
            checks.problem(span, text);
            None
        }
        _ => {
            checks.problem(span, "a source has one of `files`, `stdin` and `jetstream`; make two sources of it");
            None
        }
    }
}

/// The table of a source whose rows are all of one.
fn table(
    checks: &mut Mistakes<'_>,
    span: Range<usize>,
    section: &sections::Source,
    around: &Around<'_>,
) -> Option<String> {
    if section.tables.is_some() {
        checks.problem(span, "`tables` is for streams; name one `table`");
        return None;
    }
    let Some(table) = &section.table else {
        checks.problem(span, "the source has no `table`; name the one that its rows are of");
        return None;
    };
    checks.known_table(table.span(), table.get_ref(), &around.table_names());
    Some(table.get_ref().clone())
}

/// The tables of a stream; default: all.
fn tables(
    checks: &mut Mistakes<'_>,
    span: Range<usize>,
    given: Option<Vec<Spanned<String>>>,
    around: &Around<'_>,
) -> Option<Vec<String>> {
    let known = around.table_names();
    let Some(given) = given else { return Some(known.into_iter().map(str::to_owned).collect()) };
    if given.is_empty() {
        checks.problem(span, "`tables` is empty, so nothing would be written; name a table, or leave it out for all");
        return None;
    }
    let mut before = BTreeSet::new();
    for table in &given {
        checks.known_table(table.span(), table.get_ref(), &known);
        if !before.insert(table.get_ref()) {
            checks.problem(table.span(), format!("`{}` is in `tables` twice; remove one", table.get_ref()));
        }
    }
    Some(given.into_iter().map(Spanned::into_inner).collect())
}

fn jetstream(
    checks: &mut Mistakes<'_>,
    section: Spanned<nats_sections::JetStream>,
    tables: Vec<String>,
    around: &Around<'_>,
    before: &mut Before,
) -> Option<JetStream> {
    let span = section.span();
    let section = section.into_inner();
    nats_checks::stream(checks, span.clone(), &section.stream)?;
    if around.publishes() {
        checks.problem(span, "a worker writes to a [database], and [publish] to a stream; make two files of this one");
        return None;
    }
    let guarantee = match section.guarantee {
        Some(Guarantee::ExactlyOnce) if around.is_redis() => {
            let text = "Redis has no transactions, so rows cannot be written exactly once; remove `guarantee`";
            checks.problem(span, text);
            return None;
        }
        None if around.is_redis() => Guarantee::AtLeastOnce,
        given => given.unwrap_or(Guarantee::ExactlyOnce),
    };
    let is_meant = |table: &&Table| tables.contains(table.name.get_ref()) && adds(table);
    if guarantee == Guarantee::AtLeastOnce
        && let Some(table) = around.tables.iter().find(is_meant)
    {
        let text = format!(
            "at least once, a row may be written twice, and table `{}` adds it up (`set`); use the guarantee exactly_once",
            table.name.get_ref()
        );
        checks.problem(span, text);
        return None;
    }
    let Some(dead_letters) = around.dead_letters else {
        let text = "a stream needs a file for rows that the database refuses; add [dead_letters] with a `file`";
        checks.problem(span, text);
        return None;
    };
    let source = section.source.unwrap_or_else(|| section.stream.name.clone());
    let name = &section.stream.name;
    if !before.streams.insert(name.clone()) {
        // Each would write every row.
        checks.problem(span, format!("two sources read the stream {name}; give them one section with all `tables`"));
        return None;
    }
    if !before.readers.insert(source.clone()) {
        let text =
            format!("two streams have the `source` {source}, and would share leases; give one of them another name");
        checks.problem(span, text);
        return None;
    }
    let stream = JetStream {
        nats: nats_checks::needed(checks, span.clone(), around.nats)?,
        stream: section.stream,
        tables,
        guarantee,
        source,
        worker: section.worker,
        lease: section.lease,
        ack_wait: section.ack_wait,
        keep_for: section.keep_for,
        format: section.format,
        decompressed: section.decompressed,
        dead_letters: dead_letters.to_owned(),
    };
    #[cfg(feature = "nats")]
    {
        let checked = crate::config::nats_options::worker(&stream).validate(around.pipeline);
        checks.ok(span, checked.map_err(|error| error.to_string()))?;
    }
    Some(stream)
}

/// Rows of streams are written from there. So a log would not be opened, and rows that an earlier configuration has stored in it
/// would wait without a word.
pub(super) fn without_log(checks: &mut Mistakes<'_>, durable: Range<usize>, sources: &[Source]) {
    if !sources.is_empty() && !sources.iter().any(|source| source.kind.needs_intake()) {
        let text = "all rows come from streams, which keep them until they are written, so [durable] would store none; remove \
                    it, when `batchsql log inspect` shows that no rows wait in its folder";
        checks.problem(durable, text);
    }
}

/// Blocks of rows in a stream have columns already. So a table that has no other rows has no use for settings of fields.
pub(super) fn without_fields(checks: &mut Mistakes<'_>, tables: &[Table], sources: &[Source]) {
    let of_streams = sources.iter().filter_map(|source| match &source.kind {
        SourceKind::JetStream(stream) => Some(&stream.tables),
        _ => None,
    });
    let of_streams: BTreeSet<&String> = of_streams.flatten().collect();
    let has_lines = |name: &String| {
        sources.iter().any(|source| match &source.kind {
            SourceKind::Files(files) => files.table == *name,
            SourceKind::Stdin { table } => table == name,
            SourceKind::JetStream(stream) => stream.format == Messages::Json && stream.tables.contains(name),
        })
    };
    for table in tables {
        let name = table.name.get_ref();
        if !of_streams.contains(name) || has_lines(name) {
            continue;
        }
        let settings = [
            ("fields", !table.fields.is_empty()),
            ("defaults", !table.defaults.is_empty()),
            ("unknown_fields", table.unknown_fields != Unknown::default()),
            ("missing_fields", table.missing_fields != Missing::default()),
        ];
        if let Some((setting, _)) = settings.iter().find(|(_, is_given)| *is_given) {
            let text = format!(
                "table `{name}` has rows of a stream only, which have columns and no fields; move `{setting}` to the \
                 configuration that publishes them, or set `format = \"json\"` in [sources.jetstream] if other programs do"
            );
            checks.problem(table.name.span(), text);
        }
    }
}
