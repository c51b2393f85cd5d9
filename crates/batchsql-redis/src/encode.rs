//! Owns the encoding of a row as commands: its values as arguments, without an allocation per row.
//! Must not know replies or connections.

use batchsql_core::{ColumnView, ErrorClass, Rows, SinkError, ValueRef};

use crate::command_info::is_forbidden;
use crate::packed::Packed;
use crate::plan::RedisPlan;
use crate::score::is_kept;
use crate::shape::{Body, Field, KeyPlan, Shape, TtlPlan};
use crate::types::{write_json, write_key, write_key_part, write_text};

/// The commands of one row.
pub(crate) struct Encoded {
    pub(crate) command: Packed,
    /// A second command, which counts only together with the first: both go into a `MULTI`.
    pub(crate) second: Option<Packed>,
}

/// Encodes the commands of a batch.
pub(crate) struct Encoder<'a> {
    plan: &'a RedisPlan,
    columns: Vec<ColumnView<'a>>,
    scratch: Vec<u8>,
    /// Commands whose memory is reused.
    spare: Vec<Packed>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(plan: &'a RedisPlan, rows: Rows<'a>) -> Self {
        let columns = (0..rows.schema().columns().len()).map(|column| rows.column(column)).collect();
        Self { plan, columns, scratch: Vec::new(), spare: Vec::new() }
    }

    /// The commands of one row.
    ///
    /// # Errors
    /// This row cannot be encoded; the others may.
    pub(crate) fn row(&mut self, row: usize) -> Result<Encoded, SinkError> {
        let plan = self.plan;
        let command = match &plan.shape {
            Shape::Set { key, body, ttl, nx } => self.set(row, key, body, ttl, *nx),
            Shape::Hash { key, fields } => return self.hash(row, key, fields),
            Shape::Simple { word, key, flag, columns, has_score } => {
                if *has_score && !is_kept(self.columns[columns[0]].get(row), &mut self.scratch) {
                    let text = "the score of the row has digits that a double does not keep, and redis would round it; round it, or make its column an f64";
                    return Err(SinkError::new(ErrorClass::Row, text));
                }
                let mut command = self.begin(word);
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

    /// Takes back sent commands to reuse their memory.
    #[inline]
    pub(crate) fn recycle(&mut self, Encoded { command, second }: Encoded) {
        self.spare.push(command);
        self.spare.extend(second);
    }

    /// The key of what a row overwrites, for comparison with other rows.
    pub(crate) fn overwrite_key(&mut self, row: usize) -> Option<Vec<u8>> {
        let command = self.row(row).ok()?.command;
        let mut overwrite_key = command.argument(self.plan.key_argument?).to_vec();
        if let Shape::Simple { columns, .. } = &self.plan.shape
            && columns.len() > 1
        {
            // A member of a sorted set. The length of the key is included, so that different pairs cannot be equal.
            let length = overwrite_key.len() as u64;
            overwrite_key.extend_from_slice(&length.to_le_bytes());
            overwrite_key.extend_from_slice(command.argument(command.len() - 1));
        }
        Some(overwrite_key)
    }

    fn begin(&mut self, word: &str) -> Packed {
        let mut command = self.empty();
        command.write_arg(word.as_bytes());
        command
    }

    fn empty(&mut self) -> Packed {
        let mut command = self.spare.pop().unwrap_or_default();
        command.clear();
        command
    }

    #[inline]
    fn column(&mut self, command: &mut Packed, column: usize, row: usize) {
        self.value(command, self.columns[column].get(row));
    }

    #[inline]
    fn value(&mut self, command: &mut Packed, value: ValueRef<'_>) {
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

    /// Adds names and values, except those that are `NULL`.
    fn fields(&mut self, command: &mut Packed, fields: &[Field], row: usize) {
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

    fn key(&mut self, command: &mut Packed, key: &KeyPlan, row: usize) {
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

    fn set(&mut self, row: usize, key: &KeyPlan, body: &Body, ttl: &TtlPlan, nx: bool) -> Packed {
        let ttl = match ttl {
            TtlPlan::Column(column) if self.columns[*column].is_null(row) => &TtlPlan::None,
            other => other,
        };
        let short = match ttl {
            TtlPlan::Seconds(_) | TtlPlan::Column(_) if !nx => Some("SETEX"),
            TtlPlan::Millis(_) if !nx => Some("PSETEX"),
            _ => None,
        };
        let mut command = self.begin(short.unwrap_or("SET"));
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

    fn time(&mut self, command: &mut Packed, ttl: &TtlPlan, row: usize) {
        match ttl {
            TtlPlan::Seconds(time) | TtlPlan::Millis(time) => command.write_arg(time.as_bytes()),
            TtlPlan::Column(column) => self.column(command, *column, row),
            TtlPlan::None | TtlPlan::Keep => {}
        }
    }

    fn document(&mut self, command: &mut Packed, members: &[Field], row: usize) {
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
            let mut command = self.begin("HSET");
            self.key(&mut command, key, row);
            self.fields(&mut command, fields, row);
            command
        });
        let delete = (nulls > 0).then(|| {
            let mut command = self.begin("HDEL");
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
    ) -> Result<Packed, SinkError> {
        let mut command = self.begin("XADD");
        self.key(&mut command, key, row);
        if let Some(max_len) = max_len {
            ["MAXLEN", "~", max_len].iter().for_each(|argument| command.write_arg(argument.as_bytes()));
        }
        match id {
            Some(id) if !self.columns[id].is_null(row) => self.column(&mut command, id, row),
            _ => command.write_arg(b"*"),
        }
        let before = command.len();
        self.fields(&mut command, fields, row);
        if command.len() == before {
            let text = "every field of the row is NULL, and an entry of a stream needs one; give a value";
            return Err(SinkError::new(ErrorClass::Row, text));
        }
        Ok(command)
    }

    fn raw(&mut self, row: usize, words: &[String], columns: usize) -> Result<Packed, SinkError> {
        let mut command = self.empty();
        words.iter().for_each(|word| command.write_arg(word.as_bytes()));
        for column in 0..columns {
            match self.columns[column].get(row) {
                ValueRef::Null => {}
                value => self.value(&mut command, value),
            }
        }
        if words.is_empty()
            && (command.argument(0).is_empty() || is_forbidden(command.argument(0), command.argument(1)))
        {
            let text = "the row's command is empty, or would change the connection; use one that reads or writes data";
            return Err(SinkError::new(ErrorClass::Row, text));
        }
        Ok(command)
    }
}

fn only(command: Packed) -> Encoded {
    Encoded { command, second: None }
}
