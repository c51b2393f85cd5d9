//! Owns how a row becomes commands: its values as arguments, without a copy per argument but the command's own.
//! Must not know replies or connections.

use batchsql_core::exhaustive::Value;
use batchsql_core::{ColumnView, ErrorClass, Rows, SinkError, ValueRef};
use redis::{Arg, Cmd, RedisWrite};

use crate::command_info::is_forbidden;
use crate::plan::RedisPlan;
use crate::shape::{Body, Field, KeyPlan, Shape, TtlPlan};
use crate::types::{write_json, write_key, write_key_part, write_text};

/// The commands of one row.
pub(crate) struct Encoded {
    pub(crate) command: Cmd,
    /// A second command, which counts only together with the first: both go into a `MULTI`.
    pub(crate) second: Option<Cmd>,
}

/// Makes the commands of a batch.
pub(crate) struct Encoder<'a> {
    plan: &'a RedisPlan,
    columns: Vec<ColumnView<'a>>,
    scratch: Vec<u8>,
    /// Bytes to reserve for the arguments of a command: a little more than the first of the batch has.
    reserve: usize,
}

/// No command reserves more: one large row must not make all others large.
const MOST_RESERVED: usize = 4096;

impl<'a> Encoder<'a> {
    pub(crate) fn new(plan: &'a RedisPlan, rows: Rows<'a>) -> Self {
        let columns = (0..rows.schema().columns().len()).map(|column| rows.column(column)).collect();
        Self { plan, columns, scratch: Vec::new(), reserve: 0 }
    }

    /// The commands of one row.
    ///
    /// # Errors
    /// The row makes no command; the others may.
    pub(crate) fn row(&mut self, row: usize) -> Result<Encoded, SinkError> {
        let encoded = self.encode(row)?;
        if self.reserve == 0 {
            let bytes: usize = encoded.command.args_iter().map(|argument| bytes_of(&argument).len()).sum();
            self.reserve = (bytes + bytes / 4).min(MOST_RESERVED);
        }
        Ok(encoded)
    }

    fn encode(&mut self, row: usize) -> Result<Encoded, SinkError> {
        let plan = self.plan;
        let command = match &plan.shape {
            Shape::Set { key, body, ttl, nx } => self.set(row, key, body, ttl, *nx),
            Shape::Hash { key, fields } => return self.hash(row, key, fields),
            Shape::Simple { word, key, flag, columns, has_score } => {
                if *has_score && !is_exact(self.columns[columns[0]].get(row)) {
                    let text = "the score of the row has digits that a double cannot hold; redis would round it";
                    return Err(SinkError::new(ErrorClass::Row, text));
                }
                let mut command = self.begin(word, 3 + columns.len());
                self.key(&mut command, key, row);
                flag.iter().for_each(|flag| command.write_arg(flag.as_bytes()));
                columns.iter().for_each(|column| self.column(&mut command, *column, row));
                command
            }
            Shape::Stream { key, max_len, id, fields } => {
                return self.stream(row, key, max_len.as_deref(), *id, fields).map(only);
            }
            Shape::Raw { words, columns } => return self.raw(row, words, *columns).map(only),
        };
        Ok(only(command))
    }

    /// What a row overwrites, to be compared with that of other rows.
    pub(crate) fn overwrite_key(&mut self, row: usize) -> Option<Vec<u8>> {
        let command = self.row(row).ok()?.command;
        let argument = |index: usize| command.args_iter().nth(index).map_or(&[][..], |argument| bytes_of(&argument));
        let mut overwrite_key = argument(self.plan.key_argument?).to_vec();
        if let Shape::Simple { columns, .. } = &self.plan.shape
            && columns.len() > 1
        {
            // A member of a sorted set. No length can be mistaken for another, because the length of the key is included.
            let length = overwrite_key.len() as u64;
            overwrite_key.extend_from_slice(&length.to_le_bytes());
            overwrite_key.extend_from_slice(argument(command.args_iter().len() - 1));
        }
        Some(overwrite_key)
    }

    fn begin(&self, word: &str, arguments: usize) -> Cmd {
        let mut command = Cmd::with_capacity(arguments, self.reserve);
        command.write_arg(word.as_bytes());
        command
    }

    #[inline]
    fn column(&mut self, command: &mut Cmd, column: usize, row: usize) {
        self.value(command, self.columns[column].get(row));
    }

    #[inline]
    fn value(&mut self, command: &mut Cmd, value: ValueRef<'_>) {
        match value {
            ValueRef::Text(v) | ValueRef::Decimal(v) | ValueRef::Json(v) => command.write_arg(v.as_bytes()),
            ValueRef::Bytes(v) => command.write_arg(v),
            other => {
                self.scratch.clear();
                write_text(&mut self.scratch, other);
                command.write_arg(&self.scratch);
            }
        }
    }

    /// Names and values, without those that are `NULL`.
    fn fields(&mut self, command: &mut Cmd, fields: &[Field], row: usize) {
        for field in fields {
            match self.columns[field.column].get(row) {
                ValueRef::Null => {}
                value => {
                    command.write_arg(&field.name);
                    self.value(command, value);
                }
            }
        }
    }

    fn key(&mut self, command: &mut Cmd, key: &KeyPlan, row: usize) {
        if let ([], [column]) = (&*key.prefix, &*key.columns)
            && let ValueRef::Text(text) = self.columns[*column].get(row)
        {
            return command.write_arg(text.as_bytes());
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&key.prefix);
        for (index, column) in key.columns.iter().enumerate() {
            if index > 0 {
                self.scratch.push(b':');
            }
            let value = self.columns[*column].get(row);
            if key.escapes { write_key_part(&mut self.scratch, value) } else { write_key(&mut self.scratch, value) }
        }
        command.write_arg(&self.scratch);
    }

    fn set(&mut self, row: usize, key: &KeyPlan, body: &Body, ttl: &TtlPlan, nx: bool) -> Cmd {
        let ttl = match ttl {
            TtlPlan::Column(column) if self.columns[*column].is_null(row) => &TtlPlan::None,
            other => other,
        };
        let short = match ttl {
            TtlPlan::Seconds(_) | TtlPlan::Column(_) if !nx => Some("SETEX"),
            TtlPlan::Millis(_) if !nx => Some("PSETEX"),
            _ => None,
        };
        let mut command = self.begin(short.unwrap_or("SET"), 6);
        self.key(&mut command, key, row);
        if short.is_some() {
            self.time(&mut command, ttl, row);
        }
        match body {
            Body::Column(column) => self.column(&mut command, *column, row),
            Body::Document(members) => self.document(&mut command, members, row),
        }
        if nx {
            command.write_arg(b"NX");
        }
        match (short, ttl) {
            (None, TtlPlan::Keep) => command.write_arg(b"KEEPTTL"),
            (None, TtlPlan::Seconds(_) | TtlPlan::Column(_)) => {
                command.write_arg(b"EX");
                self.time(&mut command, ttl, row);
            }
            (None, TtlPlan::Millis(_)) => {
                command.write_arg(b"PX");
                self.time(&mut command, ttl, row);
            }
            (Some(_), _) | (None, TtlPlan::None) => {}
        }
        command
    }

    fn time(&mut self, command: &mut Cmd, ttl: &TtlPlan, row: usize) {
        match ttl {
            TtlPlan::Seconds(time) | TtlPlan::Millis(time) => command.write_arg(time.as_bytes()),
            TtlPlan::Column(column) => self.column(command, *column, row),
            TtlPlan::None | TtlPlan::Keep => {}
        }
    }

    fn document(&mut self, command: &mut Cmd, members: &[Field], row: usize) {
        let out = &mut self.scratch;
        out.clear();
        out.push(b'{');
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&member.name);
            write_json(out, self.columns[member.column].get(row));
        }
        out.push(b'}');
        command.write_arg(out);
    }

    fn hash(&mut self, row: usize, key: &KeyPlan, fields: &[Field]) -> Result<Encoded, SinkError> {
        let nulls = fields.iter().filter(|field| self.columns[field.column].is_null(row)).count();
        let set = (nulls < fields.len()).then(|| {
            let mut command = self.begin("HSET", 2 + 2 * fields.len());
            self.key(&mut command, key, row);
            self.fields(&mut command, fields, row);
            command
        });
        let delete = (nulls > 0).then(|| {
            let mut command = self.begin("HDEL", 2 + nulls);
            self.key(&mut command, key, row);
            for field in fields.iter().filter(|field| self.columns[field.column].is_null(row)) {
                command.write_arg(&field.name);
            }
            command
        });
        match (set, delete) {
            (Some(command), second) => Ok(Encoded { command, second }),
            (None, Some(command)) => Ok(only(command)),
            (None, None) => Err(SinkError::new(ErrorClass::Internal, "a hash without fields")),
        }
    }

    fn stream(
        &mut self,
        row: usize,
        key: &KeyPlan,
        max_len: Option<&str>,
        id: Option<usize>,
        fields: &[Field],
    ) -> Result<Cmd, SinkError> {
        let mut command = self.begin("XADD", 6 + 2 * fields.len());
        self.key(&mut command, key, row);
        if let Some(max_len) = max_len {
            ["MAXLEN", "~", max_len].iter().for_each(|argument| command.write_arg(argument.as_bytes()));
        }
        match id {
            Some(id) if !self.columns[id].is_null(row) => self.column(&mut command, id, row),
            _ => command.write_arg(b"*"),
        }
        let before = command.args_iter().len();
        self.fields(&mut command, fields, row);
        if command.args_iter().len() == before {
            let text = "every field of the row is NULL, and an entry of a stream needs one; give a value";
            return Err(SinkError::new(ErrorClass::Row, text));
        }
        Ok(command)
    }

    fn raw(&mut self, row: usize, words: &[String], columns: usize) -> Result<Cmd, SinkError> {
        let mut command = Cmd::with_capacity(words.len() + columns, self.reserve);
        words.iter().for_each(|word| command.write_arg(word.as_bytes()));
        for column in 0..columns {
            match self.columns[column].get(row) {
                ValueRef::Null => {}
                value => self.value(&mut command, value),
            }
        }
        if words.is_empty()
            && let Some(Arg::Simple(word)) = command.args_iter().next()
            && (word.is_empty()
                || is_forbidden(word, command.args_iter().nth(1).map_or(&[][..], |next| bytes_of(&next))))
        {
            let text = "the row's command is empty, or would change the connection; use one that reads or writes data";
            return Err(SinkError::new(ErrorClass::Row, text));
        }
        Ok(command)
    }
}

/// Whether a double can hold an integer. Fractions are nobody's integers: they are as near as a double comes.
fn is_exact(score: ValueRef<'_>) -> bool {
    // Every number of up to 53 bits, and larger ones that end in as many zeros.
    let holds = |size: u64| size == 0 || 64 - size.leading_zeros() - size.trailing_zeros() <= f64::MANTISSA_DIGITS;
    match score.exhaustive() {
        Value::I64(v) => holds(v.unsigned_abs()),
        Value::U64(v) => holds(v),
        Value::I16(_) | Value::I32(_) | Value::F32(_) | Value::F64(_) | Value::Decimal(_) => true,
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Bytes(_)
        | Value::Uuid(_)
        | Value::Json(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_)
        | Value::TimestampTz(_) => unreachable!("a score is a number, see `lookup::is_number`"),
    }
}

/// The bytes of an argument. There are no cursors here.
pub(crate) fn bytes_of<'a>(argument: &Arg<&'a [u8]>) -> &'a [u8] {
    match argument {
        Arg::Simple(bytes) => bytes,
        _ => &[],
    }
}

fn only(command: Cmd) -> Encoded {
    Encoded { command, second: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_holds_what_has_53_bits() {
        let check = |score, expected| assert_eq!(is_exact(score), expected, "{score:?}");
        for exact in [0, 1, -1, 1 << 53, -(1 << 53), (1 << 53) + 2, i64::MIN, i64::MAX - 1023] {
            check(ValueRef::I64(exact), true);
            assert_eq!(exact as f64 as i128, i128::from(exact));
        }
        for rounded in [(1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MAX - 1] {
            check(ValueRef::I64(rounded), false);
        }
        check(ValueRef::U64(1 << 63), true);
        check(ValueRef::U64(u64::MAX), false);
        check(ValueRef::F64(0.1), true);
    }
}
