//! Owns the checks of a configuration against its surroundings. They write no row.
//! Must not know how findings are shown.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batchsql::durable::{
    DurableExt, DurableOptions,
    tools::{Inspection, IntakeFolder, LostPosition},
};
use batchsql::{BatchSql, Claim, ClaimFrom, DynSink, PartitionKey, Sink};

use crate::check::finding::{Finding, Status};
use crate::check::streams;
use crate::config::nats_sections::{Guarantee, Messages, Stream};
use crate::config::sections::{Durable, Rule, Table};
use crate::config::settings::{Database, Destination, Files, Publish, Settings, Source, SourceKind};
use crate::database;
use crate::http::tls;
use crate::intake;
use crate::load::rejects;
use crate::nats::publish;
use crate::nats::publisher::Publisher;
use crate::pattern_folders::folders_of;
use crate::sources::files;
use crate::table::target::{self, Target};

/// All checks, in the order in which `run` would meet what they find.
pub(crate) async fn all(settings: &Settings, path: &Path, offline: bool) -> Vec<Finding> {
    let mut findings = vec![configuration(settings, path)];
    findings.extend(settings.http.iter().filter_map(|http| http.tls.as_ref()).map(|tls| match tls::acceptor(tls) {
        Ok(_) => Finding::new("tls", tls.certificates.display().to_string(), Status::Ok, "certificate and key fit"),
        Err(text) => Finding::new("tls", tls.certificates.display().to_string(), Status::Failed, text),
    }));
    findings.extend(ports(settings, offline));
    let (found, inspection) = folder(settings);
    findings.extend(found);
    findings.extend(dead_letters(settings));
    findings.extend(sources(settings));
    if offline {
        let skipped = |check, subject: String| Finding::new(check, subject, Status::Skipped, "not asked (--offline)");
        findings.extend(settings.destination.catalogue().map(|database| skipped("database", scheme(database))));
        findings.extend(all_streams(settings).map(|stream| skipped("stream", stream.name.clone())));
        return findings;
    }
    let sink = match settings.destination.catalogue() {
        Some(database) => match opened(database, settings, &mut findings).await {
            Some(sink) => Some(sink),
            None => {
                let skipped = |name: &str| Finding::new("table", name, Status::Skipped, "the database was not asked");
                findings.extend(settings.table_names().into_iter().map(skipped));
                findings.extend(match &settings.destination {
                    Destination::Database(_) => streams::of_sources(settings, None).await,
                    Destination::Stream(publish) => streams::of_publish(publish).await,
                });
                return findings;
            }
        },
        None => None,
    };
    match &settings.destination {
        Destination::Database(_) => written(settings, (sink, inspection), &mut findings).await,
        Destination::Stream(publish) => published(settings, publish, sink.as_ref(), &mut findings).await,
    }
    findings
}

async fn opened(database: &Database, settings: &Settings, findings: &mut Vec<Finding>) -> Option<DynSink> {
    match database::open(database, &settings.tables, database::ConnectFor::new(database.connect_for)).await {
        Ok(sink) => {
            let detail = "it can be reached, and accepts the login";
            findings.push(Finding::new("database", sink.name(), Status::Ok, detail));
            Some(sink)
        }
        Err(error) => {
            findings.push(if error.is_mistake() {
                Finding::mistake("database", scheme(database), error.to_string())
            } else {
                Finding::unavailable("database", scheme(database), error.to_string())
            });
            None
        }
    }
}

/// The streams that the configuration names.
fn all_streams(settings: &Settings) -> impl Iterator<Item = &Stream> {
    let published = match &settings.destination {
        Destination::Stream(publish) => Some(&publish.stream),
        Destination::Database(_) => None,
    };
    let read = settings.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::JetStream(source) => Some(&source.stream),
        _ => None,
    });
    published.into_iter().chain(read)
}

fn scheme(database: &Database) -> String {
    database.dsn.reveal().split_once(':').map_or("", |(scheme, _)| scheme).to_owned()
}

fn configuration(settings: &Settings, path: &Path) -> Finding {
    let sources = settings.sources.len();
    let counted = |count: usize, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let http = if settings.http.is_some() { ", HTTP" } else { "" };
    let detail = format!("{}, {}{http}", counted(settings.tables.len(), "table"), counted(sources, "source"));
    if settings.http.is_none() && sources == 0 {
        let detail = format!("{detail}; `run` would have nothing to read: add [http] or [[sources]]");
        return Finding::new("configuration", path.display().to_string(), Status::Warning, detail);
    }
    Finding::new("configuration", path.display().to_string(), Status::Ok, detail)
}

fn ports(settings: &Settings, offline: bool) -> Vec<Finding> {
    let http = settings.http.iter().map(|http| http.listen);
    let addresses = http.chain(settings.metrics.listen);
    let finding = |address: std::net::SocketAddr| {
        if offline {
            return Finding::new("port", address.to_string(), Status::Skipped, "not asked (--offline)");
        }
        match TcpListener::bind(address) {
            Ok(_) => Finding::new("port", address.to_string(), Status::Ok, "it is free"),
            Err(error) => {
                let detail = format!("{error}; if this service runs there already, that is as it should be");
                Finding::new("port", address.to_string(), Status::Warning, detail)
            }
        }
    };
    addresses.map(finding).collect()
}

/// The folder of the durable intake, and what is in it.
fn folder(settings: &Settings) -> (Option<Finding>, Option<Inspection>) {
    let Some(durable) = &settings.durable else { return (None, None) };
    let only = |finding| (Some(finding), None);
    let (check, name) = ("durable", durable.folder.display().to_string());
    let parent = durable.folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    // A file that is made and removed is the only proof of the right to write.
    if let Err(error) = can_write(parent) {
        return only(Finding::unavailable(check, name, format!("the folder cannot be written: {error}")));
    }
    let free = rustix::fs::statvfs(parent).map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    if let Ok(free) = free
        && free < durable.min_free
    {
        let (free, needed) = (bytesize::ByteSize(free), bytesize::ByteSize(durable.min_free));
        let detail = format!("the disk has {free} free, and no row is accepted below {needed} (durable.min_free)");
        return only(Finding::unavailable(check, name, detail));
    }
    if !durable.folder.join("log").exists() {
        return only(Finding::new(check, name, Status::Ok, "the folder is new; it can be made"));
    }
    let inspected = IntakeFolder::lock(&durable.folder).and_then(|folder| folder.inspect());
    let finding = match &inspected {
        Ok(Inspection { recovery, .. }) if recovery.damages.is_empty() && recovery.gaps.is_empty() => {
            let rows: u64 = recovery.partitions.iter().map(|state| state.unsettled).sum();
            match recovery.unfinished_segments.is_empty() {
                true => Finding::new(check, name, Status::Ok, format!("the log is whole; {rows} rows wait in it")),
                false => {
                    let detail = format!("rows may be missing; see `batchsql log verify`; {rows} rows wait in the log");
                    Finding::new(check, name, Status::Warning, detail)
                }
            }
        }
        Ok(_) => {
            let detail = "the log is damaged; see `batchsql log verify`";
            Finding::new(check, name, Status::Failed, detail)
        }
        Err(error) if error.is_locked() => {
            let detail = "a program uses it; if this service runs already, that is as it should be";
            Finding::new(check, name, Status::Warning, detail)
        }
        Err(error) => Finding::unavailable(check, name, error.to_string()),
    };
    (Some(finding), inspected.ok())
}

fn can_write(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".batchsql-check-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(probe)
}

fn dead_letters(settings: &Settings) -> Option<Finding> {
    let check = "dead letters";
    let Some(path) = &settings.dead_letters else {
        let detail = "rows that the database refuses are only logged; add [dead_letters] with a `file`";
        // Those of files are beside their files.
        let has_others = settings.http.is_some()
            || settings.sources.is_empty()
            || settings.sources.iter().any(|source| !matches!(source.kind, SourceKind::Files(_)));
        return (settings.durable.is_none() && has_others).then(|| Finding::new(check, "", Status::Warning, detail));
    };
    let name = path.display().to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.exists() && !path.is_file() {
        let detail =
            "it is no regular file, so `dead-letters` cannot read the rows again; name a file (dead_letters.file)";
        return Some(Finding::new(check, name, Status::Warning, detail));
    }
    if path.is_file()
        && let Err(error) = OpenOptions::new().append(true).open(path)
    {
        return Some(Finding::unavailable(check, name, format!("the file cannot be written: {error}")));
    }
    let durable = settings.durable.as_ref().map(|durable| durable.folder.as_path());
    if durable == Some(folder) && !folder.exists() {
        return Some(Finding::new(check, name, Status::Ok, "the file is in the folder of [durable]"));
    }
    Some(match can_write(folder) {
        Ok(()) => Finding::new(check, name, Status::Ok, "the file can be written"),
        Err(error) => Finding::unavailable(check, name, format!("its folder cannot be written: {error}")),
    })
}

/// Folders of a pattern that are tried.
const MOST_FOLDERS: usize = 100;

/// The folder that a pattern begins with, without those that are patterns themselves.
fn folder_of(files: &Files) -> PathBuf {
    let is_plain = |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let folder = files.given.parent().unwrap_or(Path::new(""));
    let folder: PathBuf = files.folder.join(folder.components().take_while(is_plain).collect::<PathBuf>());
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder }
}

/// A file of rejected records that is there, and to which none can be added.
fn closed_rejects(pattern: &str) -> Option<(PathBuf, std::io::Error)> {
    let found = glob::glob(pattern).into_iter().flatten().filter_map(Result::ok);
    let rejects = found.map(|path| files::rejects(&path)).filter(|path| path.exists());
    rejects.take(MOST_FOLDERS).find_map(|path| rejects::can_add(&path).err().map(|error| (path, error)))
}

fn sources(settings: &Settings) -> Vec<Finding> {
    let finding = |Source { id, kind }: &Source| match kind {
        SourceKind::Stdin { .. } => Finding::new("source", id, Status::Ok, "reads standard input"),
        SourceKind::Files(files) => {
            let found = glob::glob(&files.pattern).map(|paths| paths.filter_map(Result::ok).count());
            let detail = format!("{}: {} files now", files.shown().display(), found.unwrap_or(0));
            let folder = folder_of(files);
            if !folder.is_dir() {
                let detail = format!("{detail}; there is no folder {} yet", folder.display());
                return Finding::new("source", id, Status::Warning, detail);
            }
            let refused = |folder: PathBuf| can_write(&folder).err().map(|error| (folder, error));
            match folders_of(Path::new(&files.pattern)).take(MOST_FOLDERS).find_map(refused) {
                None => match closed_rejects(&files.pattern) {
                    None => Finding::new("source", id, Status::Ok, detail),
                    Some((path, error)) => {
                        let path = path.display();
                        let detail = format!("{detail}; rejected records cannot be added to {path}: {error}");
                        Finding::new("source", id, Status::Warning, detail)
                    }
                },
                Some((folder, error)) => {
                    let what = "cannot be written, where rejected records and marks of files go";
                    let detail = format!("{detail}; the folder {} {what}: {error}", folder.display());
                    Finding::new("source", id, Status::Warning, detail)
                }
            }
        }
        SourceKind::JetStream(source) => {
            let guarantee = match source.guarantee {
                Guarantee::ExactlyOnce => "exactly once",
                Guarantee::AtLeastOnce => "at least once",
            };
            let json = if source.format == Messages::Json { ", also of messages of others in JSON" } else { "" };
            let tables = source.tables.join(", ");
            let detail = format!("the stream {}, {guarantee}, tables {tables}{json}", source.stream.name);
            Finding::new("source", id, Status::Ok, detail)
        }
    };
    settings.sources.iter().map(finding).collect()
}

/// Tables that are written, and what is read for them.
async fn written(
    settings: &Settings,
    (sink, inspection): (Option<DynSink>, Option<Inspection>),
    findings: &mut Vec<Finding>,
) {
    let Some(sink) = sink else { return };
    let db = match BatchSql::builder(sink.clone()).config(settings.pipeline.clone()).start() {
        Ok(db) => db,
        Err(error) => {
            findings.push(Finding::new("pipeline", "", Status::Failed, error.to_string()));
            return;
        }
    };
    let targets = tables(settings, Some(&sink), Some(&db), findings).await;
    findings.extend(durable_settings(settings, &sink, &targets));
    let exactly_once = settings.durable.as_ref().and_then(|durable| durable.exactly_once.as_deref());
    let has_positions = settings.sources.iter().any(|source| match &source.kind {
        SourceKind::Files(files) => !files.at_least_once && sink.keeps_positions(),
        SourceKind::Stdin { .. } => false,
        SourceKind::JetStream(source) => source.guarantee == Guarantee::ExactlyOnce,
    });
    if exactly_once.is_some() || has_positions {
        findings.push(positions(&db).await);
    }
    if let (Some(source), Some(inspection), Some(durable)) = (exactly_once, &inspection, &settings.durable) {
        findings.extend(lost_positions(&db, source, (durable, inspection)).await);
    }
    findings.extend(streams::of_sources(settings, Some(&db)).await);
    db.close(Duration::from_secs(5)).await;
}

/// Tables that are published. Their columns are those of the catalogue, or declared.
async fn published(settings: &Settings, publish: &Publish, catalogue: Option<&DynSink>, findings: &mut Vec<Finding>) {
    let targets = tables(settings, catalogue, None, findings).await;
    // With a log the stream is opened later, so it need not be there yet.
    if settings.durable.is_some()
        && let Ok(Publisher { sink, .. }) = publish::publisher(publish, settings).await
    {
        findings.extend(durable_settings(settings, &sink, &targets));
    }
    findings.extend(streams::of_publish(publish).await);
}

async fn tables(
    settings: &Settings,
    catalogue: Option<&DynSink>,
    db: Option<&BatchSql>,
    findings: &mut Vec<Finding>,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for table in &settings.tables {
        let (finding, target) = one_table(catalogue, db, table).await;
        findings.push(finding);
        findings.extend(advice(settings, table));
        let of_fields = target.iter().flat_map(Target::advice);
        findings.extend(of_fields.map(|text| Finding::new("table", table.name.get_ref(), Status::Warning, text)));
        targets.extend(target);
    }
    targets
}

/// Settings with which a durable intake would not start.
fn durable_settings(settings: &Settings, sink: &DynSink, targets: &[Target]) -> Option<Finding> {
    let durable = settings.durable.as_ref()?;
    let schemas = targets.iter().map(|target| &target.schema);
    let options = schemas.fold(intake::options(durable), DurableOptions::schema);
    let builder = BatchSql::builder(sink.clone()).config(settings.pipeline.clone()).durable(options);
    let error = builder.validate().err()?;
    Some(Finding::new("durable", durable.folder.display().to_string(), Status::Failed, error.to_string()))
}

/// `db` is the pipeline that writes it; `None` if it is published.
async fn one_table(catalogue: Option<&DynSink>, db: Option<&BatchSql>, table: &Table) -> (Finding, Option<Target>) {
    let name = table.name.get_ref();
    let target = match target::open(catalogue, table).await {
        Ok(target) => target,
        Err(text) => {
            return (Finding::new("table", name, Status::Failed, target::without_name(name, &text.to_string())), None);
        }
    };
    if let Some(db) = db
        && let Err(error) = db.prepare(&target.schema).await
    {
        let text = error.to_string();
        return (Finding::new("table", name, Status::Failed, target::without_name(name, &text)), None);
    }
    let schema = &target.schema;
    let key: Vec<&str> = schema.key_columns().iter().map(|column| schema.columns()[*column].name()).collect();
    let key = if key.is_empty() { String::new() } else { format!(" by {}", key.join(", ")) };
    let columns = schema.columns().len();
    let end = if db.is_some() { "; it may be written" } else { "" };
    let mut detail = format!("{} in {}, {columns} columns{key}{end}", table.rule.name(), schema.table_display());
    if !target.left_out.is_empty() {
        let names: Vec<&str> = target.left_out.iter().map(|(column, _)| column.as_str()).collect();
        detail.push_str(&format!("; not written by rows: {}", names.join(", ")));
    }
    (Finding::new("table", name, Status::Ok, detail), Some(target))
}

/// What is allowed and may surprise.
fn advice(settings: &Settings, table: &Table) -> Option<Finding> {
    let exactly_once = settings.durable.as_ref().is_some_and(|durable| durable.exactly_once.is_some());
    let repeats = settings.durable.is_some() && !exactly_once;
    (repeats && table.rule == Rule::Insert).then(|| {
        let detail = "the durable intake writes at least once, and `insert` has no key: a row may be there twice after a crash; \
                      set `exactly_once`, or choose `ignore` or `update`";
        Finding::new("table", table.name.get_ref(), Status::Warning, detail)
    })
}

/// Partitions of the log that `run` would stop.
async fn lost_positions(
    db: &BatchSql,
    source: &str,
    (durable, inspection): (&Durable, &Inspection),
) -> Option<Finding> {
    let failed = |detail: String| Some(Finding::new("positions", source, Status::Failed, detail));
    let stored = match db.positions(source).await {
        Ok(stored) => stored,
        Err(error) => return failed(error.to_string()),
    };
    // The lock is not held while the database is asked.
    let lost = match IntakeFolder::in_use(&durable.folder).lost_positions(inspection, &stored) {
        Ok(lost) => lost,
        Err(error) => {
            return failed(format!("the file POSITIONS of {} cannot be read: {error}", durable.folder.display()));
        }
    };
    let LostPosition { table, partition, ended, reached, .. } = lost.first()?;
    let has = reached.map_or("no position".to_owned(), |reached| format!("the position {reached}"));
    failed(format!(
        "the database has {has} of partition {partition} of {table}, whose rows up to {ended} were written ({} such partitions): it was made \
         anew or restored from a backup, and `run` stops them; restore a newer one, or start once with `batchsql run CONFIG \
         --accept-log-gap`, which gives rows up that were written since then",
        lost.len()
    ))
}

/// Claims a partition of a source that has no rows, which makes the table of positions if it is missing.
async fn positions(db: &BatchSql) -> Finding {
    let key = PartitionKey::new("batchsql check", "check", "check", 0);
    let claim = Claim::of("batchsql check").from(ClaimFrom::Anyone);
    match db.claim(&key, &claim).await {
        Ok(_) => Finding::new("positions", "batchsql_positions", Status::Ok, "the table is there and may be written"),
        Err(error) => Finding::new("positions", "batchsql_positions", Status::Failed, error.to_string()),
    }
}
