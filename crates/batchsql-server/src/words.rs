//! Owns what messages of the library call its functions, and what a person who runs the program calls them: keys of the
//! configuration and options of commands.
//! Must not know when a message is made.

use std::borrow::Cow;
use std::io::{self, Write};

/// Longer parts first. No replacement has a quote, which a log in JSON would show with an escape.
const WORDS: &[(&str, &str)] = &[
    (
        "declare one with a conflict rule, for example Conflict::replace([\"id\"]), or choose the key with Key::prefixed",
        "give the table a `key` and a rule, for example replace",
    ),
    ("use Command::document() or another conflict rule", "use `redis = document` for the table, or another rule"),
    ("use Command::raw(\"UNLINK\") with the key, or let keys expire (ttl)", "use a SQL database"),
    ("use Command::raw with INCRBY, HINCRBY or ZADD GT", "use a SQL database"),
    ("use a sorted set with GT (Command::raw), or a SQL database", "use a SQL database"),
    ("name it as TableName::qualified(", "name it with its schema, as schema.table ("),
    (
        "it has no columns; add at least one with .column(name, type)",
        "it has no field that is a column of the table; give at least one",
    ),
    ("or name one with .set()", "or name one in `set`"),
    ("a rule with Expr::add or Expr::raw", "a rule that adds (`add` in `set`)"),
    (
        "add it to the builder as I64 or F64, or declare it TEXT",
        "give it a type, i64 or f64, in `columns` of the table, or declare it TEXT",
    ),
    (": remove it, or name another one with FileOptions::mark", ": remove it"),
    (
        "DurableOptions::exactly_once, accept it with Conflict::may_add_twice, or use another rule",
        "`exactly_once` in [durable], or use another rule",
    ),
    (
        "WorkerOptions::exactly_once, accept it with Conflict::may_add_twice, or give another rule to WorkerOptions::schema",
        "`guarantee = exactly_once` of the source, or give the table another rule",
    ),
    (
        "FileOptions::exactly_once, accept it with Conflict::may_add_twice, or use another rule",
        "exactly once (without `at_least_once`), or use another rule",
    ),
    ("with DurableOptions::accept_gaps", "with `batchsql run CONFIG --accept-log-gap`"),
    ("DurableOptions::exactly_once", "`exactly_once` in [durable]"),
    ("DurableOptions::schema", "[[tables]]"),
    ("durable_log export", "batchsql log export"),
    ("with WorkerOptions::accept_gaps", "with `batchsql run CONFIG --accept-gap SOURCE`"),
    ("WorkerOptions::schema", "[[tables]]"),
    ("WorkerOptions::tables", "`tables`"),
    ("WorkerOptions::source", "`source`"),
    (" (WorkerOptions::format)", ""),
    ("make it with StreamOptions::create", "make it with `create` in `stream`"),
    ("FileOptions::new", "[[tables]]"),
    ("with FileOptions::exactly_once", "(`id` of the source)"),
    ("with MissingFields::LeaveOut or Null", "with `missing_fields` of the table: leave_out or null"),
    ("; raise segment_bytes", "; make it smaller"),
    ("bytes of its disk_bytes", "bytes of `disk` in [durable]"),
    ("; settle rows or raise it", "; see why rows wait, or raise it"),
    ("less than min_free_bytes left", "less than `min_free` in [durable] left"),
    ("until flush() returns", "until no row waits in its log (`batchsql log inspect`)"),
    ("when_full is DropOldest", "when_full is drop_oldest"),
    ("WhenFull::Wait or Reject", "wait or reject"),
    ("WhenFull::Reject", "reject"),
    ("delivery is NeverRepeat", "delivery is never_repeat"),
    ("AtMostOnce (the default)", "at_most_once (the default)"),
    ("isolation is AtomicBatch", "isolation is atomic_batch"),
    ("Isolation::AtomicBatch", "atomic_batch"),
    ("Isolation::Bisect", "bisect"),
    ("SyncPolicy::Always", "`sync = always`"),
    ("the dead letter does not fit the schema", "the dead letter does not fit its table"),
    ("the rule of the schema, ", "the rule of its table, "),
    ("use a schema with Conflict::update_only", "give its table the rule `update_only`"),
    ("use the schema of deletes, schema.deletion()", "give its table the rule `delete`, or one with a key"),
    ("use the schema that the row was submitted with", "give its table the rule that it was submitted with"),
    ("use a schema with the rule that it was submitted with", "give its table the rule that it was submitted with"),
    ("Conflict::update, update_columns and update_only", "the rules `update` and `update_only`"),
    ("use Conflict::replace", "use the rule `replace`"),
    ("use Conflict::ignore or no conflict rule", "use the rule `ignore` or `insert`"),
    ("so declare it with .column()", "so declare it without `nullable`"),
    ("declare its columns with Schema::builder", "declare them: `columns` of the table"),
    ("declare them with Schema::builder", "declare them: `columns` of the table"),
    ("Expr::now() needs", "`now` in `set` needs"),
    ("use PostgresOptions::password_provider", "remove it"),
    ("(WhenFull::DropOldest)", "(`when_full` is drop_oldest)"),
];

/// A message of the library in the words of the program.
pub(crate) fn of_program(message: &str) -> Cow<'_, str> {
    let mut told = Cow::Borrowed(message);
    for (library, program) in WORDS {
        if told.contains(library) {
            told = Cow::Owned(told.replace(library, program));
        }
    }
    told
}

/// Standard error, for the log: the library writes to it too. A write never fails: lines that cannot be written are lost, and rows
/// do not depend on them.
#[derive(Debug)]
pub(crate) struct LogOutput;

impl Write for LogOutput {
    /// Each call has whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut out = io::stderr().lock();
        // Standard error may be a pipe without a reader, or a file on a full disk.
        let _ = match std::str::from_utf8(lines) {
            Ok(text) => out.write_all(of_program(text).as_bytes()),
            Err(_) => out.write_all(lines),
        };
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_library_become_keys_and_options() {
        let check = |message: &str, told: &str| assert_eq!(of_program(message), told);
        check(
            "or accept the loss with DurableOptions::accept_gaps",
            "or accept the loss with `batchsql run CONFIG --accept-log-gap`",
        );
        check("write its rows with `durable_log export`, and", "write its rows with `batchsql log export`, and");
        check(
            "give it to DurableOptions::schema; keep DurableOptions::exactly_once",
            "give it to [[tables]]; keep `exactly_once` in [durable]",
        );
        check(
            "the log has 5 bytes of its disk_bytes (6); settle rows or raise it",
            "the log has 5 bytes of `disk` in [durable] (6); see why rows wait, or raise it",
        );
        check(
            "there is a table \"ord\" in schema \"public\": name it as TableName::qualified(\"public\", \"ord\"); names are",
            "there is a table \"ord\" in schema \"public\": name it with its schema, as schema.table (\"public\", \"ord\"); names are",
        );
        check("table a has a row", "table a has a row");
        for (at, (library, program)) in WORDS.iter().enumerate() {
            assert!(!program.contains('"'), "{program}");
            assert_eq!(of_program(library), *program, "a shorter part is before number {at}");
        }
    }
}
