//! Owns the checks of a configuration against its surroundings. They write no row.
//! Must not know how findings are shown.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use batchsql::durable::{DurableExt, DurableOptions, tools::IntakeFolder};
use batchsql::{BatchSql, Claim, ClaimFrom, DynSink, PartitionKey, Sink};

use crate::check::finding::{Finding, Status};
use crate::config::sections::{Rule, Table};
use crate::config::settings::{Settings, SourceKind};
use crate::database;
use crate::http::tls;
use crate::intake;
use crate::table::target::{self, Target};

/// All checks, in the order in which `run` would meet what they find.
pub(crate) async fn all(settings: &Settings, path: &Path, offline: bool) -> Vec<Finding> {
    let mut findings = vec![configuration(settings, path)];
    findings.extend(settings.http.iter().filter_map(|http| http.tls.as_ref()).map(|tls| match tls::acceptor(tls) {
        Ok(_) => Finding::new("tls", tls.certificates.display().to_string(), Status::Ok, "certificate and key fit"),
        Err(text) => Finding::new("tls", tls.certificates.display().to_string(), Status::Failed, text),
    }));
    findings.extend(ports(settings, offline));
    findings.extend(folder(settings));
    findings.extend(dead_letters(settings));
    findings.extend(sources(settings));
    if offline {
        let scheme = scheme(settings);
        findings.push(Finding::new("database", scheme, Status::Skipped, "not asked (--offline)"));
        return findings;
    }
    match database::open(settings).await {
        Ok(sink) => {
            findings.push(Finding::new(
                "database",
                sink.name(),
                Status::Ok,
                "it can be reached, and accepts the login",
            ));
            tables(settings, sink, &mut findings).await;
        }
        Err(error) => {
            let finding = if error.is_invalid_options() {
                Finding::new("database", scheme(settings), Status::Failed, error.to_string())
            } else {
                Finding::unavailable("database", scheme(settings), error.to_string())
            };
            findings.push(finding);
            let skipped = |name: &str| Finding::new("table", name, Status::Skipped, "the database was not asked");
            findings.extend(settings.table_names().into_iter().map(skipped));
        }
    }
    findings
}

fn scheme(settings: &Settings) -> String {
    settings.database.dsn.reveal().split_once(':').map_or("", |(scheme, _)| scheme).to_owned()
}

fn configuration(settings: &Settings, path: &Path) -> Finding {
    let (tables, sources) = (settings.tables.len(), settings.sources.len());
    let http = if settings.http.is_some() { ", HTTP" } else { "" };
    let detail = format!("{tables} tables, {sources} sources{http}");
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

fn folder(settings: &Settings) -> Option<Finding> {
    let durable = settings.durable.as_ref()?;
    let (check, name) = ("durable", durable.folder.display().to_string());
    let parent = durable.folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    // A file that is made and removed is the only proof of the right to write.
    if let Err(error) = can_write(parent) {
        return Some(Finding::unavailable(check, name, format!("the folder cannot be written: {error}")));
    }
    let free = rustix::fs::statvfs(parent).map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    if let Ok(free) = free
        && free < durable.min_free
    {
        let (free, needed) = (bytesize::ByteSize(free), bytesize::ByteSize(durable.min_free));
        let detail = format!("the disk has {free} free, and no row is accepted below {needed} (durable.min_free)");
        return Some(Finding::unavailable(check, name, detail));
    }
    if !durable.folder.join("log").exists() {
        return Some(Finding::new(check, name, Status::Ok, "the folder is new; it can be made"));
    }
    Some(match IntakeFolder::lock(&durable.folder).and_then(|folder| folder.verify()) {
        Ok(recovery) if recovery.damages.is_empty() && recovery.gaps.is_empty() => {
            let rows: u64 = recovery.partitions.iter().map(|state| state.next - 1 - state.settled_up_to).sum();
            Finding::new(check, name, Status::Ok, format!("the log is whole; {rows} rows wait in it"))
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
    })
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
        return settings.durable.is_none().then(|| Finding::new(check, "", Status::Warning, detail));
    };
    let name = path.display().to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(match can_write(folder) {
        Ok(()) => Finding::new(check, name, Status::Ok, "the file can be written"),
        Err(error) => Finding::unavailable(check, name, format!("its folder cannot be written: {error}")),
    })
}

fn sources(settings: &Settings) -> Vec<Finding> {
    let finding = |source: &crate::config::settings::Source| match &source.kind {
        SourceKind::Stdin => Finding::new("source", &source.id, Status::Ok, "reads standard input"),
        SourceKind::Files(files) => {
            let found = glob::glob(&files.pattern).map(|paths| paths.filter_map(Result::ok).count());
            let detail = format!("{}: {} files now", files.pattern, found.unwrap_or(0));
            Finding::new("source", &source.id, Status::Ok, detail)
        }
    };
    settings.sources.iter().map(finding).collect()
}

async fn tables(settings: &Settings, sink: DynSink, findings: &mut Vec<Finding>) {
    let db = match BatchSql::builder(sink.clone()).config(settings.pipeline.clone()).start() {
        Ok(db) => db,
        Err(error) => {
            findings.push(Finding::new("pipeline", "", Status::Failed, error.to_string()));
            return;
        }
    };
    let mut targets = Vec::new();
    for table in &settings.tables {
        let (finding, target) = one_table(&sink, &db, table).await;
        findings.push(finding);
        findings.extend(advice(settings, table));
        targets.extend(target);
    }
    findings.extend(durable_settings(settings, &sink, &targets));
    let exactly_once = settings.durable.as_ref().and_then(|durable| durable.exactly_once.as_deref());
    let reads_files = settings.sources.iter().any(|source| match &source.kind {
        SourceKind::Files(files) => !files.at_least_once,
        SourceKind::Stdin => false,
    });
    if exactly_once.is_some() || (reads_files && sink.keeps_positions()) {
        findings.push(positions(&db).await);
    }
    db.close(Duration::from_secs(5)).await;
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

async fn one_table(sink: &DynSink, db: &BatchSql, table: &Table) -> (Finding, Option<Target>) {
    let name = table.name.get_ref();
    let target = match target::open(sink, table).await {
        Ok(target) => target,
        Err(text) => return (Finding::new("table", name, Status::Failed, text), None),
    };
    if let Err(error) = db.prepare(&target.schema).await {
        return (Finding::new("table", name, Status::Failed, error.to_string()), None);
    }
    let schema = &target.schema;
    let key: Vec<&str> = schema.key_columns().iter().map(|column| schema.columns()[*column].name()).collect();
    let key = if key.is_empty() { String::new() } else { format!(" by {}", key.join(", ")) };
    let columns = schema.columns().len();
    let mut detail =
        format!("{} in {}, {columns} columns{key}; it may be written", table.rule.name(), schema.table_display());
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

/// Claims a partition of a source that has no rows, which makes the table of positions if it is missing.
async fn positions(db: &BatchSql) -> Finding {
    let key = PartitionKey::new("batchsql check", "check", "check", 0);
    let claim = Claim::of("batchsql check").from(ClaimFrom::Anyone);
    match db.claim(&key, &claim).await {
        Ok(_) => Finding::new("positions", "batchsql_positions", Status::Ok, "the table is there and may be written"),
        Err(error) => Finding::new("positions", "batchsql_positions", Status::Failed, error.to_string()),
    }
}
