//! Owns the checks of a configuration that need nothing but its file and those of its secrets.
//! Must not know databases.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;

use bytesize::ByteSize;
use toml::Spanned;

use crate::config::access::{address, check_open, check_token, one_secret, place};
use crate::config::letters_checks;
use crate::config::level;
use crate::config::mistakes::Mistakes;
use crate::config::nats_checks;
use crate::config::problem::{Problems, SourceText};
use crate::config::secret::with_password;
use crate::config::sections::{self, Config, Durable, Sync};
use crate::config::settings::{Database, Destination, Http, Metrics, Settings, Token, letters_of};
use crate::config::source_checks::{self, Around};
use crate::config::table_checks::{self, Catalogue};
use crate::config::taken_files::TakenFiles;

/// Of `[http]`, if it names none.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// A group of rows is in half of a segment of the log, with what it takes beside the rows.
const MOST_TOGETHER: u64 = 24 << 20;

/// Those of a stream have the same limit. Each has tasks and memory of its own.
const MOST_PARTITIONS: u32 = 4096;

/// Four files of the log.
const LEAST_DISK: u64 = 256 << 20;

/// # Errors
/// All mistakes that are found.
pub(super) fn check(config: Config, source: &SourceText) -> Result<Settings, Problems> {
    let mut checks = Mistakes { source, found: Vec::new() };
    let folder = source.folder();
    if let Err(error) = config.pipeline.value.validate() {
        let problem = source.problem(config.pipeline.span.clone(), error.to_string());
        checks.found.push(problem);
    }
    let has_section = config.database.is_some();
    let database = config.database.and_then(|section| database(&mut checks, section, &folder));
    let nats = config.nats.and_then(|section| nats_checks::nats(&mut checks, section, &folder));
    let publish = config.publish.map(|section| (section.span(), section.into_inner()));
    let is_redis = publish.is_none() && database.as_ref().is_some_and(Database::is_redis);
    if config.tables.is_empty() {
        let text = "no table is configured; add a section [[tables]] with a name";
        checks.found.push(source.problem(None, text));
    }
    let catalogue = match (is_redis, has_section || publish.is_none()) {
        (true, _) => Catalogue::Redis,
        (false, true) => Catalogue::Database,
        (false, false) => Catalogue::Nothing,
    };
    let tables = table_checks::check(&mut checks, config.tables, catalogue);
    let names: Vec<&str> = tables.iter().map(|table| table.name.get_ref().as_str()).collect();
    let mut durable = config.durable.map(|durable| {
        let span = durable.span();
        let durable_span = span.clone();
        let mut durable = durable.into_inner();
        durable.folder = folder.join(&durable.folder);
        if durable.partitions == Some(0) {
            checks.problem(
                span.clone(),
                "`partitions` is 0, and a table has at least one; raise it, or leave it out for 8",
            );
        }
        if let Some(partitions) = durable.partitions.filter(|partitions| *partitions > MOST_PARTITIONS) {
            let text = format!("`partitions` is {partitions}, and a table has {MOST_PARTITIONS} at most; lower it");
            checks.problem(span.clone(), text);
        }
        if durable.disk < LEAST_DISK {
            let (disk, least) = (ByteSize(durable.disk), ByteSize(LEAST_DISK));
            checks.problem(span.clone(), format!("`disk` is {disk}, and the log needs at least {least}; raise it"));
        }
        if durable.exactly_once.is_some() && durable.sync == Sync::Os {
            checks.problem(span, "`exactly_once` needs `sync = \"always\"`; remove one of them");
        } else if durable.exactly_once.is_some() && is_redis {
            checks.problem(span, "Redis has no transactions, so `exactly_once` is not possible; remove it");
        }
        (durable_span, durable)
    });
    let publishes = publish.is_some();
    let destination = match publish {
        Some((span, section)) => {
            let publish = nats_checks::publish(&mut checks, (span, section), nats.as_ref(), database);
            if let (Some(publish), Some((span, durable))) = (&publish, &mut durable) {
                nats_checks::partitions(&mut checks, &publish.stream, (span.clone(), durable));
            }
            publish.map(|publish| Destination::Stream(Box::new(publish)))
        }
        None => database.map(Destination::Database),
    };
    if !has_section && !publishes {
        let text = "the section [database] is missing; add it with a `dsn`, or [publish] to write to a stream";
        checks.found.push(source.problem(None, text));
    }
    let http = config.http.and_then(|http| http_settings(&mut checks, http, &folder, &names));
    let metrics = metrics(&mut checks, config.metrics, http.as_ref(), &folder);
    if let Some(level) = &config.log.level {
        checks.ok(level.span(), level::check(level.get_ref()));
    }
    for name in config.pipeline.value.tables.keys() {
        let span = config.pipeline.span.clone().unwrap_or_default();
        checks.ok(span, table_checks::has_settings(name, &tables));
    }
    let taken = TakenFiles {
        configuration: source.file(),
        database: destination.as_ref().and_then(Destination::catalogue),
        durable: durable.as_ref().map(|(_, durable)| &*durable.folder),
    };
    let letters = config.dead_letters.and_then(|section| {
        let (span, given) = (section.span(), section.into_inner().file);
        letters_checks::file(&mut checks, (span.clone(), &given), &folder, taken).map(|file| (span, file))
    });
    let dead_letters = letters.as_ref().map(|(_, file)| file.clone());
    let around = Around {
        folder: &folder,
        tables: &tables,
        destination: destination.as_ref(),
        durable: durable.as_ref().map(|(_, durable)| durable),
        pipeline: &config.pipeline.value,
        nats: nats.as_ref(),
        dead_letters: dead_letters.as_deref(),
    };
    let sources = source_checks::check(&mut checks, config.sources, &around);
    let of_durable = |(span, durable): &(Range<usize>, Durable)| (span.clone(), letters_of(&durable.folder));
    if let Some((span, file)) = letters.or_else(|| durable.as_ref().map(of_durable)) {
        letters_checks::is_not_read(&mut checks, (span, &file), &sources);
    }
    if http.is_none() {
        source_checks::without_fields(&mut checks, &tables, &sources);
        if let Some((span, _)) = &durable {
            source_checks::without_log(&mut checks, span.clone(), &sources);
        }
    }
    match (destination, metrics) {
        (Some(destination), Some(metrics)) if checks.found.is_empty() => Ok(Settings {
            destination,
            pipeline: config.pipeline.value,
            durable: durable.map(|(_, durable)| durable),
            http,
            metrics,
            dead_letters,
            log: config.log,
            drain_for: config.run.drain_for,
            tables,
            sources,
        }),
        _ => Err(Problems(checks.found)),
    }
}

fn database(checks: &mut Mistakes<'_>, section: Spanned<sections::Database>, folder: &Path) -> Option<Database> {
    let span = section.span();
    let section = section.into_inner();
    let at = place(section.dsn_file.as_ref(), &span);
    let dsn = checks.ok(at, one_secret("dsn", section.dsn, section.dsn_file, folder))?;
    let at = place(section.password_file.as_ref(), &span);
    let password = checks.ok(at, one_secret("password", section.password, section.password_file, folder))?;
    let Some(dsn) = dsn else {
        checks.problem(span, "the database has no `dsn`; add dsn = \"postgres://user@host/database\", or `dsn_file`");
        return None;
    };
    let dsn = match password {
        Some(password) => checks.ok(span.clone(), with_password(dsn.reveal(), &password))?,
        None => dsn,
    };
    if let Err(error) = batchsql::check_dsn(dsn.reveal()) {
        checks.problem(span, error.to_string());
    }
    Some(Database { dsn, connect_for: section.connect_for })
}

fn http_settings(
    checks: &mut Mistakes<'_>,
    section: Spanned<sections::Http>,
    folder: &Path,
    tables: &[&str],
) -> Option<Http> {
    let span = section.span();
    let section = section.into_inner();
    let mut tokens: Vec<Token> = Vec::new();
    let mut names = BTreeSet::new();
    let has_token = !section.tokens.is_empty();
    for token in section.tokens {
        let span = token.span();
        let (at_token, known) = (span.clone(), tokens.len());
        let token = token.into_inner();
        if !names.insert(token.name.clone()) {
            checks.problem(span.clone(), format!("two tokens have the name `{}`; rename one of them", token.name));
        }
        for table in token.tables.iter().flatten() {
            checks.known_table(span.clone(), table, tables);
        }
        let at = place(token.token_file.as_ref(), &span);
        let secret = one_secret("token", token.token, token.token_file, folder).and_then(|secret| {
            let secret =
                secret.ok_or_else(|| format!("the token `{}` has no `token` and no `token_file`", token.name))?;
            check_token(&secret).map(|()| secret)
        });
        if let Some(secret) = checks.ok(at, secret) {
            tokens.push(Token { name: token.name, secret, tables: token.tables });
        }
        // A request has only the value, so it would not be known which of the names and tables count.
        if let [before @ .., new] = &tokens[..]
            && before.len() == known
            && let Some(same) = before.iter().find(|token| token.secret == new.secret)
        {
            let (one, other) = (&same.name, &new.name);
            let text = format!(
                "the tokens `{one}` and `{other}` have the same value; make another one for one of them, or write one token with \
                 the tables of both"
            );
            checks.problem(at_token, text);
        }
    }
    let limits = section.limits;
    let positive = [
        ("connections", limits.connections as u64),
        ("line", limits.line),
        ("body", limits.body),
        ("together", limits.together),
    ];
    for (name, _) in positive.iter().filter(|(_, value)| *value == 0) {
        checks.problem(span.clone(), format!("`limits.{name}` is 0, so nothing could be sent; raise it"));
    }
    if section.idempotency.keys == 0 {
        let text = "`idempotency.keys` is 0, so every request with a key would be refused; raise it, or leave it out";
        checks.problem(span.clone(), text);
    }
    if limits.together > MOST_TOGETHER {
        let text = format!(
            "`limits.together` is above {MOST_TOGETHER} bytes, which is what fits into a file of the log; lower it"
        );
        checks.problem(span.clone(), text);
    }
    if limits.together > limits.held {
        checks.problem(span.clone(), "`limits.together` is above `limits.held`; lower it");
    }
    if limits.line > limits.decompressed {
        checks.problem(span.clone(), "`limits.line` is above `limits.decompressed`; lower it");
    }
    let tls = section.tls.map(|tls| {
        let tls = tls.into_inner();
        sections::Tls { certificates: folder.join(tls.certificates), key: folder.join(tls.key) }
    });
    let listen = match &section.listen {
        Some(listen) => checks.ok(listen.span(), address(listen.get_ref()))?,
        None => LISTEN,
    };
    checks.ok(span, check_open(listen, has_token, section.anonymous, "write rows"));
    Some(Http { listen, tokens, tls, limits, idempotency: section.idempotency })
}

fn metrics(
    checks: &mut Mistakes<'_>,
    section: Option<Spanned<sections::Metrics>>,
    http: Option<&Http>,
    folder: &Path,
) -> Option<Metrics> {
    let is_given = section.is_some();
    let (span, section) =
        section.map_or((0..0, sections::Metrics::default()), |section| (section.span(), section.into_inner()));
    let at = place(section.token_file.as_ref(), &span);
    let token = checks.ok(at, one_secret("token", section.token, section.token_file, folder))?;
    if let Some(token) = &token {
        checks.ok(span.clone(), check_token(token));
    }
    let listen = match &section.listen {
        Some(listen) => Some(checks.ok(listen.span(), address(listen.get_ref()))?),
        None => None,
    };
    let reached = listen.or_else(|| http.map(|http| http.listen));
    if let Some(reached) = reached {
        let what = "read the metrics";
        checks.ok(
            span.clone(),
            check_open(reached, token.is_some(), section.anonymous, what).map_err(|text| {
                let place = if listen.is_none() { "; or give [metrics] a `listen` of its own" } else { "" };
                format!("{text}{place} (section [metrics])")
            }),
        );
    } else if is_given {
        checks.problem(
            span.clone(),
            "[metrics] has no `listen`, and there is no [http] server to serve it; add `listen`",
        );
    }
    if let (Some(listen), Some(http)) = (listen, http)
        && overlap(listen, http.listen)
    {
        let text = format!(
            "[metrics] and [http] cannot both listen on {listen}; remove `listen` from [metrics] to have the metrics in the server of \
             [http], or choose another port"
        );
        checks.problem(span, text);
    }
    Some(Metrics { listen, token, live_page: section.live_page })
}

/// Whether two servers cannot have these addresses.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let is_same = a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()));
    // Port 0 is any free one.
    is_same && one.port() == other.port() && one.port() != 0
}
