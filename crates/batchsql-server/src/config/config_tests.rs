//! Bad configurations with the exact messages, and what a good one means.

use std::path::Path;
use std::time::Duration;

use crate::config::problem::SourceText;
use crate::config::read::parse;
use crate::config::settings::{Settings, SourceKind};

const GOOD: &str = r#"
[database]
dsn = "postgres://app@db/shop"

[[tables]]
name = "orders"
"#;

fn read(text: &str) -> Result<Settings, String> {
    let variable = |name: &str| match name {
        "TOKEN" => Some("s3cret".to_owned()),
        "PORT" => Some("9999".to_owned()),
        _ => None,
    };
    parse(&SourceText::new(Path::new("b.toml"), text.to_owned()), &variable).map_err(|problems| problems.to_string())
}

/// Each text comes after the good configuration, line 8 on.
#[test]
fn each_mistake_has_its_message() {
    let check = |more: &str, message: &str| {
        assert_eq!(read(&format!("{GOOD}{more}")).unwrap_err(), message, "{more}");
    };
    check("nmae = 1", "b.toml:7:1: the key `nmae` is not known; did you mean `name`?");
    check("[durabel]\nfolder = \"x\"", "b.toml:7:2: the key `durabel` is not known; did you mean `durable`?");
    check("[pipeline]\nflush_sise = 5", "b.toml:8:1: the key `flush_sise` is not known; did you mean `flush_size`?");
    check("[pipeline]\nflush_size = 0", "b.toml:7:1: flush_size is 0; set it to at least 1");
    check(
        "[pipeline]\nflush_interval = 5",
        "b.toml:8:18: invalid type: integer, expected a duration with its unit, such as \"100ms\" or \"5s\"",
    );
    check(
        "[pipeline.tables.nokye]\nflush_size = 5",
        "b.toml:7:2: [pipeline.tables] has `nokye`, and no table of [[tables]] is `nokye` in the database; remove it, or name one of: orders",
    );
    check(
        "table = \"shop.orders\"\n[pipeline.tables.orders]\nflush_size = 5",
        "b.toml:8:2: [pipeline.tables] has `orders`, and no table of [[tables]] is `orders` in the database; did you mean `shop.orders`?",
    );
    check(
        "[durable]\nfolder = \"x\"\npartitions = 0",
        "b.toml:7:1: `partitions` is 0, and a table has at least one; raise it, or leave it out for 8",
    );
    check(
        "[durable]\nfolder = \"x\"\npartitions = 4294967295",
        "b.toml:7:1: `partitions` is 4294967295, and a table has 4096 at most; lower it",
    );
    check(
        "[durable]\nfolder = \"x\"\ndisk = \"1KiB\"",
        "b.toml:7:1: `disk` is 1.0 KiB, and the log needs at least 256.0 MiB; raise it",
    );
    for listen in ["127.0.0.1:8080", "0.0.0.0:8080"] {
        check(
            &format!("[http]\nlisten = \"127.0.0.1:8080\"\n[metrics]\nlisten = \"{listen}\"\nanonymous = true"),
            &format!(
                "b.toml:9:1: [metrics] and [http] cannot both listen on {listen}; remove `listen` from [metrics] to have the metrics in \
                 the server of [http], or choose another port"
            ),
        );
    }
    check(
        "[log]\nlevel = \"loud\"",
        "b.toml:8:9: `loud` is no level of the log; the levels are off, error, warn, info, debug and trace, and a part of the program \
         has its own as `loud=debug`",
    );
    check(
        "rule = \"upsert\"",
        "b.toml:7:8: `upsert` is not known; the choice is insert, ignore, update, replace, update_only, delete",
    );
    check(
        "rule = \"updat\"",
        "b.toml:7:8: `updat` is not known; did you mean `update`? The choice is insert, ignore, update, replace, update_only, delete",
    );
    check(
        "key = [\"id\"]",
        "b.toml:5:1: table `orders`: the rule `insert` uses no `key`; remove it, or choose `ignore` or `update`",
    );
    check(
        "rule = \"ignore\"\nkey = []",
        "b.toml:5:1: table `orders`: `key` is empty; name its columns, or remove it to use the primary key",
    );
    check(
        "only_if_newer = \"v\"",
        "b.toml:5:1: table `orders`: `only_if_newer` needs `rule = \"update\"`, not `insert`",
    );
    check("set = { n = \"add\" }", "b.toml:5:1: table `orders`: `set` needs `rule = \"update\"`, not `insert`");
    check("redis = \"hash\"", "b.toml:5:1: table `orders`: `redis` needs a database of Redis; remove it");
    check("fields = { a = \"x\", b = \"x\" }", "b.toml:7:25: the fields `a` and `b` both go to column `x`; keep one");
    check("defaults = { a = [1] }", "b.toml:7:18: the default of `a` must be a single value");
    check(
        "columns = [{ name = \"id\", type = \"int\" }]",
        "b.toml:7:34: `int` is not known; the choice is bool, i16, i32, i64, u64, f32, f64, decimal, text, bytes, uuid, json, date, time, timestamp, timestamptz",
    );
    check(
        "[[tables]]\nname = \"orders\"",
        "b.toml:8:8: `orders` is the name of a table twice; give one of them another name",
    );
    check(
        "[[tables]]\nname = \"a/b\"",
        "b.toml:8:8: `a/b` cannot be the name of a table; use letters, digits, `_`, `-` and `.`",
    );
    check("[[tables]]\ntable = \"x\"", "b.toml:7:1: the key `name` is missing");
    check(
        "[[sources]]\nid = \"a\"\ntable = \"orders\"",
        "b.toml:7:1: the source says not what it reads; add `files = \"folder/*.ndjson\"`, `stdin = true` or [sources.jetstream]",
    );
    check(
        "[[sources]]\nid = \"a\"\nstdin = true",
        "b.toml:7:1: the source has no `table`; name the one that its rows are of",
    );
    check(
        "[[sources]]\nid = \"a\"\ntables = [\"orders\"]\nstdin = true",
        "b.toml:7:1: `tables` is for streams; name one `table`",
    );
    check(
        "[[sources]]\nid = \"a\"\ntable = \"ordres\"\nstdin = true",
        "b.toml:9:9: there is no table `ordres`; did you mean `orders`?",
    );
    check(
        "[[sources]]\nid = \"a\"\ntable = \"orders\"\nstdin = true\nfiles = \"*\"",
        "b.toml:7:1: a source has one of `files`, `stdin` and `jetstream`; make two sources of it",
    );
    check(
        "[[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*\"\n[[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*.csv\"",
        "b.toml:12:6: `a` is the id of a source twice; give one of them another name",
    );
    check(
        "[[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*\"\n[[sources]]\nid = \"b\"\ntable = \"orders\"\nfiles = \"*\"",
        "b.toml:11:1: two sources load the same `files` into one table, and would keep each other waiting; remove one of them",
    );
    check(
        "[[http]]\nlisten = \"127.0.0.1:80\"",
        "b.toml:7:3: there is one section http at most; write [http] in place of [[http]]",
    );
    check(
        "[[sources]]\nid = \"a\"\n[[sources.jetstream]]\nsource = \"a\"",
        "b.toml:9:11: there is one section sources.jetstream at most; write [sources.jetstream] in place of [[sources.jetstream]]",
    );
    check("[sources]\nid = \"a\"", "b.toml:7:2: there may be several sources; write [[sources]] in place of [sources]");
    check(
        "[http.tokens]\nname = \"a\"",
        "b.toml:7:7: there may be several http.tokens; write [[http.tokens]] in place of [http.tokens]",
    );
    check(
        "[[sources]]\nid = \"a\"\ntable = \"orders\"\nstdin = true\n[[sources]]\nid = \"b\"\ntable = \"orders\"\nstdin = true",
        "b.toml:11:1: two sources read standard input; remove one of them",
    );
    check(
        "[http]\nlisten = \"localhost\"",
        "b.toml:8:10: `localhost` is not an address with a port; write for example \"127.0.0.1:8080\"",
    );
    check(
        "[metrics]\nlisten = \"9090\"",
        "b.toml:8:10: `9090` is not an address with a port; write for example \"127.0.0.1:8080\"",
    );
    check(
        "[metrics]\ntoken = \"m\"\n[http]\nlisten = \"0.0.0.0:8080\"",
        "b.toml:9:1: everyone who can reach 0.0.0.0:8080 can write rows; require a token, listen on 127.0.0.1, or set `anonymous = true`",
    );
    check(
        "[http]\nlisten = \"0.0.0.0:80\"\nanonymous = true\n[metrics]\nlive_page = false",
        "b.toml:10:1: everyone who can reach 0.0.0.0:80 can read the metrics; require a token, listen on 127.0.0.1, or set \
         `anonymous = true`; or give [metrics] a `listen` of its own (section [metrics])",
    );
    check(
        "[metrics]\nlive_page = false",
        "b.toml:7:1: [metrics] has no `listen`, and there is no [http] server to serve it; add `listen`",
    );
    check("[[http.tokens]]\nname = \"x\"", "b.toml:7:1: the token `x` has no `token` and no `token_file`");
    check(
        "[[http.tokens]]\nname = \"x\"\ntoken = \"a b\"",
        "b.toml:7:1: a token is printable ASCII without spaces; make another one",
    );
    check(
        "[[http.tokens]]\nname = \"x\"\ntoken = \"a\"\ntables = [\"ordes\"]",
        "b.toml:7:1: there is no table `ordes`; did you mean `orders`?",
    );
    check(
        "[[http.tokens]]\nname = \"x\"\ntoken = \"${NOPE}\"",
        "b.toml:9:9: the variable NOPE is not set; set it, or write ${NOPE:-default}",
    );
    check(
        "[[http.tokens]]\nname = \"x\"\ntoken = \"s3cret\"\n[[http.tokens]]\nname = \"y\"\ntoken = \"s3cret\"\ntables = [\"orders\"]",
        "b.toml:10:1: the tokens `x` and `y` have the same value; make another one for one of them, or write one token with the \
         tables of both",
    );
    check(
        "[[http.tokens]]\nname = \"x\"\ntoken_file = \"/no/such/file\"",
        "b.toml:9:14: the file /no/such/file cannot be read: No such file or directory (os error 2)",
    );
    check(
        "[http.limits]\nline = \"big\"",
        "b.toml:8:8: couldn't parse \"big\" into a ByteSize, cannot parse float from empty string; write for example \"32MiB\"",
    );
    check(
        "[durable]\nfolder = \"d\"\nsync = \"os\"\nexactly_once = \"s\"",
        "b.toml:7:1: `exactly_once` needs `sync = \"always\"`; remove one of them",
    );
    check("[run]\ndrain_for = \"soon\"", "b.toml:8:13: expected number at 0; write for example \"5s\"");
    check(
        "[run]\ndrain_for = 30",
        "b.toml:8:13: invalid type: integer, expected a duration with its unit, such as \"100ms\" or \"5s\"",
    );
    let source = "[[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*\"\n";
    let longer = "it must be longer than 0; write for example \"5s\"";
    check(&format!("{source}every = \"0s\""), &format!("b.toml:11:9: {longer}"));
    for key in ["header_time", "body_pause", "body_time", "answer_time"] {
        check(&format!("[http.limits]\n{key} = \"0s\""), &format!("b.toml:8:{}: {longer}", key.len() + 4));
    }
    check("[http.idempotency]\nkeep_for = \"0s\"", &format!("b.toml:8:12: {longer}"));
    check("[http.limits]\nline = 0", "b.toml:7:2: `limits.line` is 0, so nothing could be sent; raise it");
    check("[http.limits]\nline = -1", "b.toml:8:8: it is below 0; write for example \"32MiB\"");
    check(
        "[http.limits]\nline = true",
        "b.toml:8:8: invalid type: boolean, expected a number of bytes, or a size such as \"32MiB\"",
    );
}

/// What is too large for a clock, a sum or a semaphore is what is without a limit.
#[test]
fn values_without_a_limit_have_bounds() {
    let large = "18446744073709551615s";
    let text = format!(
        "{GOOD}[run]\ndrain_for = \"{large}\"\n[durable]\nfolder = \"d\"\nkeep_for = \"{large}\"\ndisk = \"99999999EiB\"\n\
         min_free = 9223372036854775807\n[http.idempotency]\nkeep_for = \"{large}\"\nkeys = 9223372036854775807\n[http.limits]\n\
         connections = 9223372036854775807\nrejections = 9223372036854775807\nheader_time = \"{large}\"\nheld = \"16000PiB\"\n\
         [[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*\"\nevery = \"{large}\"\nunchanged_for = \"{large}\"\n"
    );
    let settings = read(&text).unwrap();
    let (durable, http) = (settings.durable.unwrap(), settings.http.unwrap());
    let SourceKind::Files(files) = &settings.sources[0].kind else { panic!("{:?}", settings.sources) };
    let now = std::time::Instant::now();
    let times = [
        settings.drain_for,
        durable.keep_for,
        http.idempotency.keep_for,
        http.limits.header_time,
        files.every,
        files.unchanged_for,
    ];
    for time in times {
        assert!(now.checked_add(time).is_some(), "{time:?}");
    }
    for bytes in [durable.disk, durable.min_free, http.limits.held] {
        assert!(bytes.checked_mul(8).is_some(), "{bytes}");
    }
    for count in [http.limits.connections, http.limits.rejections, http.idempotency.keys] {
        assert!(count < tokio::sync::Semaphore::MAX_PERMITS, "{count}");
    }
}

#[test]
fn the_database_is_named_once_and_shown_without_its_password() {
    let check = |text: &str, message: &str| assert_eq!(read(text).unwrap_err(), message, "{text}");
    let table = "[[tables]]\nname = \"t\"";
    check(
        &format!("[database]\n{table}"),
        "b.toml:1:1: the database has no `dsn`; add dsn = \"postgres://user@host/database\", or `dsn_file`",
    );
    check(table, "b.toml: the section [database] is missing; add it with a `dsn`, or [publish] to write to a stream");
    check("[database]\ndsn = \"sqlite:a.db\"", "b.toml: no table is configured; add a section [[tables]] with a name");
    check("database = \"postgres://u:hunter2@h/x\"", "b.toml:1:12: invalid type: text, expected struct Database");
    check(
        &format!("[database]\ndsn = \"sqlite:a\"\ndsn_file = \"b\"\n{table}"),
        "b.toml:3:12: `dsn` and `dsn_file` are both given; keep one of them",
    );
    check(
        &format!("[database]\ndsn = \"postgres://u@h/x\"\npassword_file = \"/no/such\"\n{table}"),
        "b.toml:3:17: the file /no/such cannot be read: No such file or directory (os error 2)",
    );
    check(
        &format!("[database]\ndsn = \"postgres://u:hunter2@h/x\"\npassword = \"other\"\n{table}"),
        "b.toml:1:1: the dsn has a password of its own; remove one of the two",
    );
    check(
        &format!("[database]\ndsn = \"redis://h\"\n{table}"),
        "b.toml:3:1: table `t`: Redis has no catalogue of columns; declare them: columns = [{ name = \"id\", type = \"i64\" }]",
    );
    check("[database", "b.toml:1:10: unclosed table, expected `]`");
    let redis = format!(
        "[database]\ndsn = \"redis://h\"\n{table}\nkey = [\"id\"]\ncolumns = [{{ name = \"id\", type = \"i64\" }}]"
    );
    let text = format!("{redis}\nrule = \"update\"\n[durable]\nfolder = \"d\"\nexactly_once = \"x\"");
    check(&text, "b.toml:8:1: Redis has no transactions, so `exactly_once` is not possible; remove it");
}

#[test]
fn all_mistakes_are_shown_together() {
    let text = format!(
        "{GOOD}only_if_newer = \"v\"\n[[tables]]\nname = \"a b\"\n[[sources]]\nid = \"x\"\ntable = \"y\"\nstdin = true"
    );
    let message = read(&text).unwrap_err();
    assert_eq!(message.lines().count(), 3, "{message}");
}

#[test]
fn a_good_configuration_is_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "p@ss\n").unwrap();
    let text = r#"
        [database]
        dsn = "mysql://app@db/shop"
        password_file = "password"
        connect_for = "1m"
        [run]
        drain_for = "5s"
        [durable]
        folder = "intake"
        keep_for = "36h"
        [http]
        listen = "127.0.0.1:${PORT}"
        limits = { line = "2MiB", connections = 7 }
        [[http.tokens]]
        name = "shop"
        token = "${TOKEN}"
        tables = ["orders"]
        [[tables]]
        name = "orders"
        table = "shop.orders"
        rule = "update"
        only_if_newer = "version"
        set = { seen = "add" }
        fields = { orderId = "id" }
        defaults = { region = "eu", since = 2026-01-31 }
        [[sources]]
        id = "drop"
        table = "orders"
        files = "in/*.csv"
    "#;
    let path = folder.path().join("b.toml");
    let variable = |name: &str| match name {
        "TOKEN" => Some("s3cret".to_owned()),
        "PORT" => Some("9999".to_owned()),
        _ => None,
    };
    let settings = parse(&SourceText::new(&path, text.to_owned()), &variable).unwrap();
    assert_eq!(settings.database().unwrap().dsn.reveal(), "mysql://app:p%40ss@db/shop");
    let durable = settings.durable.as_ref().unwrap();
    assert_eq!(durable.folder, folder.path().join("intake"), "relative to the file");
    assert_eq!(durable.keep_for, Duration::from_secs(36 * 3600));
    let http = settings.http.as_ref().unwrap();
    assert_eq!((http.listen.port(), http.limits.line, http.limits.connections), (9999, 2 << 20, 7));
    assert_eq!(http.tokens[0].secret.reveal(), "s3cret");
    assert_eq!(settings.drain_for, Duration::from_secs(5));
    let SourceKind::Files(files) = &settings.sources[0].kind else { panic!("{:?}", settings.sources) };
    assert_eq!(files.pattern, folder.path().join("in/*.csv").to_str().unwrap());
    let shown = format!("{settings:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("p%40ss"), "{shown}");
}

/// As the driver reads it. The scheme, the port and the parameters need no database.
#[test]
fn a_dsn_that_the_driver_does_not_understand_is_a_mistake_of_the_file() {
    for (dsn, part) in [
        ("postgrse://app@db/shop", "no driver for the scheme"),
        ("postgres://app@db:99999/shop", "port"),
        ("postgres://app:hunter2@db/shop?sslmod=require", "sslmod"),
    ] {
        let problem = read(&GOOD.replace("postgres://app@db/shop", dsn)).unwrap_err();
        assert!(problem.starts_with("b.toml:2:1: ") && problem.contains(part), "{dsn}: {problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}
