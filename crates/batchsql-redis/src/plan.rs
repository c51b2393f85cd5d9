//! Owns the decisions made once per schema: which command its rows become, where each argument comes from, and
//! what the replies mean.
//! Must not know rows or connections.

use batchsql_core::{Action, ErrorClass, Schema, SinkError};

use crate::command::{Command, Key};
use crate::lookup::{Columns, is_number};
use crate::shape::{Body, IgnoredReply, Shape};

/// How batches of one schema are written.
#[derive(Debug)]
pub struct RedisPlan {
    pub(crate) shape: Shape,
    /// The argument that decides to which node of a cluster a command goes; the word itself is argument 0.
    /// `None`: any node.
    pub(crate) key_argument: Option<usize>,
    /// The reply of a command whose row already existed.
    pub(crate) ignored: Option<IgnoredReply>,
    /// Whether a later row with the same key overwrites a row.
    pub(crate) overwrites: bool,
    /// Whether writing the rows again changes nothing.
    pub(crate) is_repeatable: bool,
}

const NO_COMMAND: &str = "nothing says which command its rows become; name one with \
                          RedisOptions::command(table, Command::…), or declare a key to write hashes";

impl RedisPlan {
    /// Checks that the rows of the schema can become the command.
    pub(crate) fn make(schema: &Schema, command: Option<&Command>) -> Result<Self, SinkError> {
        let problem =
            |text: String| SinkError::new(ErrorClass::Schema, format!("table {}: {text}", schema.table_display()));
        let default = Command::Hash(Command::hash());
        let command = match command {
            Some(command) => command,
            None if !schema.key_columns().is_empty() => &default,
            None => return Err(problem(NO_COMMAND.into())),
        };
        Self::of(Columns { schema, used: Vec::new() }, command).map_err(problem)
    }

    fn of(mut columns: Columns<'_>, command: &Command) -> Result<Self, String> {
        columns.only_simple_rules()?;
        let nx = columns.schema.action() == Action::Ignore;
        let no_ignored = None;
        let (shape, ignored) = match command {
            Command::Set(set) => {
                let key = columns.key(&set.key)?;
                columns.check_rule("SET", &key.columns, true)?;
                let body = Body::Column(columns.value(&set.value, "value")?);
                let ttl = columns.ttl(&set.ttl)?;
                columns.all_used("SET")?;
                (Shape::Set { key, body, ttl, nx }, nx.then_some(IgnoredReply::Nil))
            }
            Command::Document(document) => {
                let key = columns.key(&document.key)?;
                columns.check_rule("a document", &key.columns, true)?;
                let ttl = columns.ttl(&document.ttl)?;
                let quoted = |name: &str| {
                    let mut quoted = Vec::new();
                    crate::types::write_json_string(&mut quoted, name);
                    quoted.push(b':');
                    quoted
                };
                let body = Body::Document(columns.rest(quoted));
                (Shape::Set { key, body, ttl, nx }, nx.then_some(IgnoredReply::Nil))
            }
            Command::Hash(hash) => {
                let key = columns.key(&hash.key)?;
                if nx {
                    return Err(
                        "HSET cannot keep an existing hash unchanged; use Command::document() or another conflict \
                                rule"
                            .into(),
                    );
                }
                columns.check_rule("HSET", &key.columns, true)?;
                let fields = columns.rest(|name| name.as_bytes().to_vec());
                if fields.is_empty() {
                    return Err(
                        "a hash needs a column that is not in its key; rows may not leave all of them out".into()
                    );
                }
                (Shape::Hash { key, fields }, no_ignored)
            }
            Command::ZAdd(zadd) => {
                let key = columns.key(&zadd.key)?;
                let score = columns.value(&zadd.score, "score")?;
                let member = columns.value(&zadd.member, "member")?;
                if !is_number(columns.schema.columns()[score].column_type()) {
                    return Err(format!("its column {:?} is the score, but is not a number", zadd.score));
                }
                columns.check_rule("ZADD", &[&*key.columns, &[member]].concat(), true)?;
                columns.all_used("ZADD")?;
                let (flag, columns) = (nx.then_some("NX"), [score, member].into());
                let shape = Shape::Simple { word: "ZADD", key, flag, columns, has_score: true };
                (shape, nx.then_some(IgnoredReply::Zero))
            }
            Command::SAdd(sadd) => {
                let key = columns.key(&sadd.key)?;
                let member = columns.value(&sadd.member, "member")?;
                columns.check_rule("SADD", &[&*key.columns, &[member]].concat(), false)?;
                columns.all_used("SADD")?;
                let columns = [member].into();
                let shape = Shape::Simple { word: "SADD", key, flag: None, columns, has_score: false };
                (shape, nx.then_some(IgnoredReply::Zero))
            }
            Command::XAdd(xadd) => {
                columns.no_rule("XADD")?;
                let key = columns.key(&xadd.key)?;
                let id = xadd.id.as_deref().map(|id| columns.find(id, "id")).transpose()?;
                let fields = columns.rest(|name| name.as_bytes().to_vec());
                if fields.is_empty() {
                    return Err("an entry of a stream needs a column that is in neither key nor id".into());
                }
                let max_len = xadd.max_len.map(|entries| entries.to_string());
                (Shape::Stream { key, max_len, id, fields }, no_ignored)
            }
            Command::Push(push) => {
                columns.no_rule(push.word)?;
                let key = columns.key(&push.key)?;
                let value = columns.value(&push.value, "value")?;
                columns.all_used(push.word)?;
                let columns = [value].into();
                (Shape::Simple { word: push.word, key, flag: None, columns, has_score: false }, no_ignored)
            }
            Command::Publish(publish) => {
                columns.no_rule("PUBLISH")?;
                let key = columns.key(&publish.channel)?;
                let message = columns.value(&publish.message, "message")?;
                columns.all_used("PUBLISH")?;
                let columns = [message].into();
                (Shape::Simple { word: "PUBLISH", key, flag: None, columns, has_score: false }, no_ignored)
            }
            Command::Raw(raw) => {
                columns.no_rule("a raw command")?;
                let words: Box<[String]> =
                    raw.word.iter().flat_map(|word| word.split_whitespace()).map(str::to_owned).collect();
                match (&raw.word, words.first(), columns.schema.columns()[0].is_nullable()) {
                    (Some(_), None, _) => return Err("its raw command has no word; name one".into()),
                    (None, _, true) => {
                        return Err("its first column is the word of the command, so it cannot be nullable".into());
                    }
                    _ => {}
                }
                (Shape::Raw { words, columns: columns.schema.columns().len() }, no_ignored)
            }
        };
        let is_repeatable = is_repeatable(columns.schema, command);
        let overwrites = match command {
            Command::Set(_) | Command::Hash(_) | Command::Document(_) | Command::ZAdd(_) => !nx,
            Command::Raw(_) => true,
            _ => false,
        };
        Ok(Self { shape, key_argument: Some(1), ignored, overwrites, is_repeatable })
    }
}

/// Whether writing the rows of a command twice has the same effect as once. With `NX` the retry reports `Ignored`
/// for rows that the first attempt wrote, as in every database: a row with the key exists.
///
/// Commands that overwrite are retried only if the schema declares its key: without one, a later batch may
/// already have written the same key, and the retry would overwrite the newer row with the older one.
pub(crate) fn is_repeatable(schema: &Schema, command: &Command) -> bool {
    match command {
        Command::Set(_) | Command::Hash(_) | Command::Document(_) | Command::ZAdd(_) => schema.is_repeatable(),
        Command::SAdd(_) => true,
        _ => false,
    }
}

/// Why no row with these columns can be written, if rows may omit columns. Errors of the whole schema are found when
/// its plan is made.
pub(crate) fn refused_at_admission(schema: &Schema, command: Option<&Command>) -> Option<&'static str> {
    let mut columns = Columns { schema, used: Vec::new() };
    let has_column = |name: &str| schema.column_index(name).is_some();
    let (key, id, ttl, word) = match command {
        Some(Command::Hash(hash)) => (&hash.key, None, None, HASH_WITHOUT_FIELD),
        None => (&Key::of_row(), None, None, HASH_WITHOUT_FIELD),
        Some(Command::XAdd(xadd)) => (&xadd.key, xadd.id.as_deref(), None, ENTRY_WITHOUT_FIELD),
        Some(Command::Set(set)) => (&set.key, None, set.ttl.column_name(), ""),
        Some(Command::Document(document)) => (&document.key, None, document.ttl.column_name(), ""),
        _ => return None,
    };
    if ttl.is_some_and(|name| !has_column(name)) {
        return Some("leaves out the column that is its time to live; give it, NULL for no expiry");
    }
    if id.is_some_and(|name| !has_column(name)) {
        return Some("leaves out the column that is the id of its entry; give it, NULL for an id of the server");
    }
    if word.is_empty() || columns.key(key).is_err() {
        return None;
    }
    columns.used.extend(id.and_then(|name| schema.column_index(name)));
    (columns.used.len() >= schema.columns().len() && columns.rest(|_| Vec::new()).is_empty()).then_some(word)
}

const HASH_WITHOUT_FIELD: &str =
    "has no column besides its key, and a redis hash needs a field; give at least one column, NULL to delete its field";
const ENTRY_WITHOUT_FIELD: &str =
    "has no column besides key and id, and an entry of a stream needs a field; give at least one column a value";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Ttl;
    use batchsql_core::{ColumnType, Conflict, Expr, SchemaBuilder, TableName};
    use std::time::Duration;

    fn table() -> SchemaBuilder {
        Schema::builder("t").column("id", ColumnType::I64).column("v", ColumnType::Text)
    }

    fn refused(schema: SchemaBuilder, command: impl Into<Command>, part: &str) {
        let error = RedisPlan::make(&schema.build().unwrap(), Some(&command.into())).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Schema);
        assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
    }

    #[test]
    fn rules_that_depend_on_the_stored_value_are_refused_with_advice() {
        let number = || Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
        let check = |rule: Conflict, part| refused(number().on_conflict(rule), Command::set("id", "n"), part);
        check(Conflict::update(["id"]).only_if_newer("n"), "cannot compare versions");
        check(Conflict::update(["id"]).set("n", Expr::add()), "INCRBY");
        check(Conflict::update_only(["id"]), "only existing rows");
        check(Conflict::update(["id"]).on_partial_index("n > 1"), "cannot name an index");
        refused(number().returning("n", ColumnType::I64), Command::set("id", "n"), "cannot return values");
        let key = Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::delete(["id"]));
        refused(key, Command::hash(), "UNLINK");
    }

    #[test]
    fn what_a_command_cannot_do_is_refused_with_advice() {
        let wide = || table().column("more", ColumnType::Text);
        let opt = || Schema::builder("t").column("id", ColumnType::I64).nullable("v", ColumnType::Text);
        refused(wide(), Command::set("id", "v"), "SET does not use its column \"more\"");
        refused(
            table(),
            Command::set("id", "w"),
            "no column \"w\", which the command needs as value (they carry id, v)",
        );
        refused(opt(), Command::set("id", "v"), "\"v\" is the value, but nullable");
        refused(opt(), Command::set("v", "id"), "\"v\" is the key, but nullable");
        refused(table(), Command::set("id", "v").ttl(Ttl::column("v")), "not an integer (seconds)");
        refused(table(), Command::set("id", "v").ttl(Duration::from_micros(10)), "below 1 ms");
        refused(table(), Command::hash(), "declares no key");
        refused(table(), Command::hash().key(Key::prefixed("p", Vec::<String>::new())), "use Key::constant");
        refused(table().on_conflict(Conflict::ignore(["id"])), Command::hash(), "use Command::document()");
        refused(table().on_conflict(Conflict::replace(["id", "v"])), Command::hash(), "needs a column");
        refused(wide().on_conflict(Conflict::update_columns(["id"], ["v"])), Command::hash(), "use Conflict::replace");
        refused(table().on_conflict(Conflict::replace(["v"])), Command::set("id", "v"), "make them the same");
        refused(table(), Command::zadd("id", "v", "id"), "is not a number");
        refused(table().on_conflict(Conflict::replace(["id"])), Command::lpush("id", "v"), "declare no conflict rule");
        refused(table().on_conflict(Conflict::replace(["id", "v"])), Command::sadd("id", "v"), "nothing to overwrite");
        refused(Schema::builder("t").column("id", ColumnType::I64), Command::xadd("id"), "needs a column");
        refused(table(), Command::raw(" "), "no word");
        refused(Schema::builder("t").nullable("w", ColumnType::Text), Command::raw_from_row(), "cannot be nullable");
    }

    #[test]
    fn without_a_command_a_key_makes_hashes() {
        let keyed = table().on_conflict(Conflict::replace(["id"])).build().unwrap();
        assert!(matches!(RedisPlan::make(&keyed, None).unwrap().shape, Shape::Hash { .. }));
        let error = RedisPlan::make(&table().build().unwrap(), None).unwrap_err();
        assert!(error.to_string().contains("RedisOptions::command(table"), "{error}");
    }

    #[test]
    fn names_of_tables_never_meet_in_a_key() {
        let prefix = |name: TableName| {
            let schema = Schema::builder(name).column("id", ColumnType::I64).column("v", ColumnType::I64);
            let schema = schema.on_conflict(Conflict::replace(["id"])).build().unwrap();
            match RedisPlan::make(&schema, None).unwrap().shape {
                Shape::Hash { key, .. } => String::from_utf8(key.prefix.into()).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(prefix(TableName::new("users")), "users:");
        assert_eq!(prefix(TableName::qualified("app", "users")), "app.users:");
        assert_eq!(prefix(TableName::new("app.users")), "app%2Eusers:");
        assert_eq!(prefix(TableName::new("a:b%")), "a%3Ab%25:");
    }
}
