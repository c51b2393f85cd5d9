//! Bad configurations of streams with the exact messages, and what good ones mean.

use std::path::Path;
use std::time::Duration;

use crate::config::nats_sections::{Guarantee, KeepFor, Messages};
use crate::config::problem::SourceText;
use crate::config::read::parse;
use crate::config::settings::{Destination, JetStream, Login, Settings, SourceKind};

const WORKER: &str = r#"
[database]
dsn = "postgres://app@db/shop"
[nats]
servers = "nats://a"
[dead_letters]
file = "letters"
[[tables]]
name = "orders"
[[sources]]
id = "orders"
"#;

const FRONT: &str = r#"
[nats]
servers = "nats://a"
[publish]
stream = { name = "orders", partitions = 4 }
[[tables]]
name = "orders"
columns = [{ name = "id", type = "i64" }]
"#;

fn read(text: &str) -> Result<Settings, String> {
    let source = SourceText::new(Path::new("b.toml"), text.to_owned());
    parse(&source, &|_| None).map_err(|problems| problems.to_string())
}

fn jetstream(settings: &Settings) -> &JetStream {
    let SourceKind::JetStream(stream) = &settings.sources[0].kind else { panic!("{:?}", settings.sources) };
    stream
}

#[test]
fn each_mistake_of_a_worker_has_its_message() {
    let check = |more: &str, message: &str| {
        assert_eq!(read(&format!("{WORKER}{more}")).unwrap_err(), message, "{more}");
    };
    check("[sources.jetstream]", "b.toml:12:1: the key `stream` is missing");
    check("[sources.jetstream]\nsteam = {}", "b.toml:13:1: the key `steam` is not known; did you mean `stream`?");
    check(
        "[sources.jetstream]\nstream = { name = \"a.b\" }",
        "b.toml:12:1: `a.b` cannot be the name of a stream; use letters, digits, `_` and `-`",
    );
    check(
        "[sources.jetstream]\nstream = { name = \"a\", partitions = 0 }",
        "b.toml:12:1: a table has 1 to 4096 partitions, not 0",
    );
    check(
        "[sources.jetstream]\nstream = { name = \"a\", prefix = \"a.*\" }",
        "b.toml:12:1: \"a.*\" cannot be the prefix of subjects: use letters, digits, - and _, and dots between",
    );
    check("[sources.jetstream]\nstream = { name = \"a\", create = {} }", "b.toml:13:33: the key `replicas` is missing");
    check(
        "[sources.jetstream]\nstream = { name = \"a\", create = { replicas = 0 } }",
        "b.toml:12:1: `create.replicas` is 1 to 5, better odd; 3 survives the loss of a server",
    );
    check(
        "[sources.jetstream]\nstream = { name = \"a\" }\nlease = \"31s\"",
        "b.toml:12:1: lease is 31s; it must be longer than statement_timeout (30s) and the time between renewals (2s), because \
         it is not renewed while rows are written; raise lease or lower statement_timeout",
    );
    check(
        "[sources.jetstream]\nstream = { name = \"a\" }\nkeep_for = \"long\"",
        "b.toml:14:12: expected number at 0; write for example \"1h\", or \"forever\"",
    );
    check(
        "[sources.jetstream]\nstream = { name = \"a\" }\nguarantee = \"twice\"",
        "b.toml:14:13: `twice` is not known; the choice is exactly-once, exactly_once, at-least-once, at_least_once",
    );
    check(
        "table = \"orders\"\n[sources.jetstream]\nstream = { name = \"a\" }",
        "b.toml:12:9: a stream has several tables; write `tables = [...]`, or leave it out for all",
    );
    check(
        "tables = [\"ordres\"]\n[sources.jetstream]\nstream = { name = \"a\" }",
        "b.toml:12:11: there is no table `ordres`; did you mean `orders`?",
    );
    check(
        "tables = []\n[sources.jetstream]\nstream = { name = \"a\" }",
        "b.toml:10:1: `tables` is empty, so nothing would be written; name a table, or leave it out for all",
    );
    check(
        "tables = [\"orders\", \"orders\"]\n[sources.jetstream]\nstream = { name = \"a\" }",
        "b.toml:12:21: `orders` is in `tables` twice; remove one",
    );
    check(
        "stdin = true\n[sources.jetstream]\nstream = { name = \"a\" }",
        "b.toml:10:1: a source has one of `files`, `stdin` and `jetstream`; make two sources of it",
    );
    check(
        "jetstream = { stream = { name = \"a\" } }\n[[sources]]\nid = \"orders\"\njetstream = { stream = { name = \"b\" } }",
        "b.toml:14:6: `orders` is the id of a source twice; give one of them another name",
    );
    check(
        "jetstream = { stream = { name = \"a\" } }\n[[sources]]\nid = \"b\"\njetstream = { stream = { name = \"a\" } }",
        "b.toml:15:13: two sources read the stream a; give them one section with all `tables`",
    );
    check(
        "jetstream = { stream = { name = \"a\" } }\n[[sources]]\nid = \"b\"\njetstream = { stream = { name = \"b\" }, source = \"a\" }",
        "b.toml:15:13: two streams have the `source` a, and would share leases; give one of them another name",
    );
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let worker = |from: &str, to: &str, message: &str| {
        let text = format!("{WORKER}jetstream = {{ stream = {{ name = \"a\" }} }}").replace(from, to);
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    };
    worker(
        "[dead_letters]\nfile = \"letters\"\n",
        "",
        "b.toml:10:13: a stream needs a file for rows that the database refuses; add [dead_letters] with a `file`",
    );
    worker(
        "[nats]\nservers = \"nats://a\"\n",
        "",
        "b.toml:10:13: a stream needs the section [nats] with its `servers`; add it",
    );
    worker(
        "name = \"orders\"\n",
        "name = \"orders\"\nfields = { orderId = \"id\" }\n",
        "b.toml:9:8: table `orders` has rows of a stream only, which have columns and no fields; move `fields` to the \
         configuration that publishes them, or set `format = \"json\"` in [sources.jetstream] if other programs do",
    );
    // Their messages have fields.
    let json = format!("{WORKER}jetstream = {{ stream = {{ name = \"a\" }}, format = \"json\" }}");
    assert!(read(&json.replace("name = \"orders\"\n", "name = \"orders\"\nfields = { orderId = \"id\" }\n")).is_ok());
    worker(
        "[nats]",
        "[durable]\nfolder = \"d\"\n[nats]",
        "b.toml:4:1: all rows come from streams, which keep them until they are written, so [durable] would store none; remove it, \
         when `batchsql log inspect` shows that no rows wait in its folder",
    );
    let redis = "redis://h\"\n[[tables]]\nname = \"r\"\nkey = [\"id\"]\ncolumns = [{ name = \"id\", type = \"i64\" }]";
    let text = format!("[database]\ndsn = \"{redis}\nrule = \"update\"\n{}", &WORKER[WORKER.find("[nats]").unwrap()..]);
    let text = text.replace("[[tables]]\nname = \"orders\"\n", "");
    let exactly = "jetstream = { stream = { name = \"a\" }, guarantee = \"exactly_once\" }";
    assert_eq!(
        read(&format!("{text}{exactly}")).unwrap_err(),
        "b.toml:14:13: Redis has no transactions, so rows cannot be written exactly once; remove `guarantee`"
    );
    let settings = read(&format!("{text}jetstream = {{ stream = {{ name = \"a\" }} }}")).unwrap();
    assert_eq!(jetstream(&settings).guarantee, Guarantee::AtLeastOnce, "the default of Redis");
    let adds = WORKER.replace("name = \"orders\"\n", "name = \"orders\"\nrule = \"update\"\nset = { n = \"add\" }\n");
    let at_least_once = "jetstream = { stream = { name = \"a\" }, guarantee = \"at-least-once\" }";
    assert_eq!(
        read(&format!("{adds}{at_least_once}")).unwrap_err(),
        "b.toml:14:13: at least once, a row may be written twice, and table `orders` adds it up (`set`); use the guarantee \
         exactly_once"
    );
}

#[test]
fn each_mistake_of_a_publisher_has_its_message() {
    let check = |from: &str, to: &str, message: &str| {
        let text = FRONT.replace(from, to);
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    };
    check(
        "columns = [{ name = \"id\", type = \"i64\" }]",
        "",
        "b.toml:6:1: table `orders`: there is no [database] to read its columns from; declare them as the database of the workers \
         has them: columns = [{ name = \"id\", type = \"i64\" }]",
    );
    check(
        "[publish]",
        "[durable]\nfolder = \"d\"\npartitions = 5\n[publish]",
        "b.toml:4:1: with [publish] a log has as many partitions as its stream (4); remove `partitions`",
    );
    check(
        "[publish]",
        "[database]\ndsn = \"redis://h\"\n[publish]",
        "b.toml:6:1: with [publish], [database] is where columns are read, and Redis has no catalogue of columns; remove \
         [database]",
    );
    let text = "[[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*\"\nat_least_once = true\n";
    check(
        "[[tables]]\nname = \"orders\"\n",
        &format!("{text}[[tables]]\nname = \"orders\"\nrule = \"update\"\nkey = [\"id\"]\nset = {{ n = \"add\" }}\n"),
        "b.toml:6:1: table `orders` has a rule that adds (`set`), and at least once a row may be written more than once; load it \
         exactly once (without `at_least_once` or --at-least-once, and not on Redis), or use another rule",
    );
    check(
        "[[tables]]",
        "[[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*\"\n[[tables]]",
        "b.toml:6:1: a stream does not keep how far a file is written; set `at_least_once = true`",
    );
    check(
        "[[tables]]",
        "[[sources]]\nid = \"a\"\ntable = \"orders\"\nfiles = \"*\"\nat_least_once = true\n[durable]\nfolder = \
         \"d\"\nexactly_once = \"front\"\n[[tables]]",
        "b.toml:6:1: a log that is published exactly once has its subjects for itself, and files are published beside it; remove \
         `exactly_once`, or publish the files to another stream with a program of their own",
    );
    check(
        "[[tables]]",
        "[[sources]]\nid = \"a\"\njetstream = { stream = { name = \"b\" } }\n[[tables]]",
        "b.toml:8:13: a worker writes to a [database], and [publish] to a stream; make two files of this one",
    );
    check("\"nats://a\"", "\"\"", "b.toml:2:1: `servers` is empty; give it a value or remove it");
    check(
        "\"nats://a\"",
        "\"nats://a,http://b\"",
        "b.toml:2:1: URL 2 of `servers` is none; write for example \"nats://host:4222\" or \"tls://host\"",
    );
    // The second one is cut in two by its comma.
    for url in ["nats://u:hunter2@a", "nats://u:hun,ter2@a", "s3cret@a"] {
        check(
            "nats://a",
            url,
            "b.toml:2:1: `servers` has a URL with a login, which is not used there; write `user` with `password`, or `token`, and \
             only the hosts in `servers`",
        );
    }
    check(
        "\"nats://a\"",
        "\"nats://a\"\nuser = \"u\"",
        "b.toml:2:1: `user` and `password` belong together; add the other one",
    );
    check(
        "\"nats://a\"",
        "\"nats://a\"\ntoken = \"t\"\nuser = \"u\"\npassword = \"p\"",
        "b.toml:2:1: there are several ways to log in; keep one of `token`, `user` with `password`, and `credentials_file`",
    );
    check(
        "\"nats://a\"",
        "\"nats://a\"\ntls = { key = \"k\" }",
        "b.toml:2:1: `tls.certificates` and `tls.key` belong together; add the other one",
    );
    check(
        "\"nats://a\"",
        "\"nats://a\"\ntls = { ca = \"/no/such/file\" }",
        "b.toml:2:1: the file /no/such/file cannot be read: No such file or directory (os error 2)",
    );
    check(
        "\"nats://a\"",
        "\"nats://a\"\nservres = 1",
        "b.toml:4:1: the key `servres` is not known; did you mean `servers`?",
    );
}

#[test]
fn good_configurations_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    let text =
        WORKER.replace("[nats]", "[nats]\ntoken_file = \"token\"").replace("\"nats://a\"", "\"nats://a:1, tls://b\"")
            + r#"
        tables = ["orders"]
        [sources.jetstream]
        stream = { name = "orders", prefix = "shop", partitions = 3, create = { replicas = 3, max_bytes = "50GiB" } }
        guarantee = "exactly-once"
        worker = "w1"
        lease = "1m"
        keep_for = "forever"
        format = "json"
        decompressed = "1MiB"
    "#;
    let source = SourceText::new(&folder.path().join("b.toml"), text);
    let settings = parse(&source, &|_| None).unwrap();
    let stream = jetstream(&settings);
    assert_eq!((stream.source.as_str(), stream.worker.as_deref()), ("orders", Some("w1")));
    assert_eq!((stream.guarantee, stream.lease), (Guarantee::ExactlyOnce, Duration::from_secs(60)));
    assert_eq!((stream.keep_for, stream.dead_letters.clone()), (KeepFor::Forever, folder.path().join("letters")));
    assert_eq!((stream.format, stream.decompressed), (Messages::Json, 1 << 20));
    assert_eq!(stream.stream.create.as_ref().unwrap().max_bytes, Some(50 << 30));
    assert_eq!(stream.nats.servers.len(), 2);
    assert!(matches!(&stream.nats.login, Login::Token(token) if token.reveal() == "s3cret"));
    assert!(!format!("{settings:?}").contains("s3cret"));

    let front = format!("{FRONT}[durable]\nfolder = \"d\"\n[http]\n");
    let settings = read(&front).unwrap();
    let Destination::Stream(publish) = &settings.destination else { panic!("{:?}", settings.destination) };
    assert!(publish.catalogue.is_none() && settings.database().is_err());
    assert_eq!(settings.durable.unwrap().partitions, Some(4), "those of the stream");
    // With a database its columns are read.
    let front = front.replace("[publish]", "[database]\ndsn = \"postgres://app@db/shop\"\n[publish]");
    let front = front.replace("columns = [{ name = \"id\", type = \"i64\" }]", "");
    assert!(read(&front).unwrap().destination.catalogue().is_some());
}
