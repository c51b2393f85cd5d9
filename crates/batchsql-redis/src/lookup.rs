//! Owns the lookup of a command's columns in a schema, and the check whether the schema fits the command.
//! Must not know which commands exist.

use batchsql_core::exhaustive::Type;
use batchsql_core::{Action, Column, ColumnType, Schema, Target};

use crate::command::{Key, KeyParts, Ttl, TtlKind};
use crate::shape::{Field, KeyPlan, TtlPlan};
use crate::types::escape_key;

/// Looks up the columns that a command names, and finds the unused ones.
pub(crate) struct Columns<'a> {
    pub(crate) schema: &'a Schema,
    /// The used columns, by number.
    pub(crate) used: Vec<usize>,
}

impl Columns<'_> {
    pub(crate) fn find(&mut self, name: &str, role: &str) -> Result<usize, String> {
        let Some(index) = self.schema.column_index(name) else {
            let known: Vec<&str> = self.schema.columns().iter().map(Column::name).collect();
            return Err(format!(
                "its rows carry no column {name:?}, which the command needs as {role} (they carry {})",
                known.join(", ")
            ));
        };
        self.used.push(index);
        Ok(index)
    }

    /// A column that becomes an argument, so that it needs a value.
    pub(crate) fn value(&mut self, name: &str, role: &str) -> Result<usize, String> {
        let index = self.find(name, role)?;
        if self.schema.columns()[index].is_nullable() {
            return Err(format!("its column {name:?} is the {role}, but nullable; redis has no NULL, so forbid it"));
        }
        Ok(index)
    }

    pub(crate) fn key(&mut self, key: &Key) -> Result<KeyPlan, String> {
        let schema = self.schema;
        let (prefix, columns, escapes) = match &key.0 {
            KeyParts::Column(name) => (Vec::new(), [self.value(name, "key")?].into(), false),
            KeyParts::Constant(key) => (key.as_bytes().to_vec(), Box::default(), false),
            KeyParts::Prefixed(_, names) if names.is_empty() => {
                return Err("its key has a prefix and no column; use Key::constant for one key".into());
            }
            KeyParts::Prefixed(prefix, names) => {
                let columns = names.iter().map(|name| self.value(name, "key")).collect::<Result<_, _>>()?;
                (format!("{prefix}:").into_bytes(), columns, true)
            }
            KeyParts::OfRow if schema.key_columns().is_empty() => {
                return Err(
                    "it declares no key to build redis keys from; declare one with a conflict rule, for example \
                            Conflict::replace([\"id\"]), or choose the key with Key::prefixed"
                        .into(),
                );
            }
            KeyParts::OfRow => {
                self.used.extend(schema.key_columns());
                let mut prefix = Vec::new();
                for part in schema.table().namespace().into_iter().chain([schema.table().name()]) {
                    if !prefix.is_empty() {
                        prefix.push(b'.');
                    }
                    escape_key(&mut prefix, part.as_bytes(), b":%.");
                }
                prefix.push(b':');
                (prefix, schema.key_columns().into(), true)
            }
        };
        Ok(KeyPlan { prefix: prefix.into(), columns, escapes })
    }

    pub(crate) fn ttl(&mut self, ttl: &Ttl) -> Result<TtlPlan, String> {
        Ok(match &ttl.0 {
            TtlKind::None => TtlPlan::None,
            TtlKind::Keep => TtlPlan::Keep,
            TtlKind::After(duration) if duration.as_millis() == 0 => {
                return Err("its time to live is below 1 ms; give a longer one, or none".into());
            }
            TtlKind::After(duration) if duration.subsec_nanos() == 0 => {
                TtlPlan::Seconds(duration.as_secs().to_string())
            }
            TtlKind::After(duration) => TtlPlan::Millis(duration.as_millis().to_string()),
            TtlKind::Column(name) => {
                let index = self.find(name, "time to live")?;
                let ty = self.schema.columns()[index].column_type();
                if Kind::of(ty) != Kind::Integer {
                    return Err(format!("its column {name:?} is the time to live, but not an integer (seconds)"));
                }
                TtlPlan::Column(index)
            }
        })
    }

    /// The columns that are not used otherwise.
    pub(crate) fn rest(&mut self, name: impl Fn(&str) -> Vec<u8>) -> Box<[Field]> {
        let columns = self.schema.columns().iter().enumerate().filter(|(index, _)| !self.used.contains(index));
        columns.map(|(column, declared)| Field { name: name(declared.name()).into(), column }).collect()
    }

    pub(crate) fn all_used(&self, word: &str) -> Result<(), String> {
        match self.schema.columns().iter().enumerate().find(|(index, _)| !self.used.contains(index)) {
            None => Ok(()),
            Some((_, column)) => Err(format!(
                "{word} does not use its column {:?}; remove the column, or choose another command",
                column.name()
            )),
        }
    }

    /// Rules that depend on the stored value have no command.
    pub(crate) fn only_simple_rules(&self) -> Result<(), String> {
        let refuse = |what: &str, instead: &str| Err(format!("redis cannot {what}; {instead}"));
        match self.schema.action() {
            Action::Delete => {
                return refuse(
                    "delete by a rule",
                    "use Command::raw(\"UNLINK\") with the key, or let keys expire (ttl)",
                );
            }
            Action::UpdateOnly => {
                return refuse("update only existing rows", "use Conflict::replace, which also creates the key");
            }
            Action::Insert | Action::Ignore | Action::Replace | Action::Update => {}
        }
        if self.schema.version_column().is_some() {
            return refuse("compare versions", "use a sorted set with GT (Command::raw), or a SQL database");
        }
        if *self.schema.target() != Target::Key {
            return refuse("name an index", "the key of the command decides");
        }
        if !self.schema.returning().is_empty() {
            return refuse("return values of written rows", "remove SchemaBuilder::returning");
        }
        if !self.schema.only_overwrites() {
            return refuse("compute with stored values by a rule", "use Command::raw with INCRBY, HINCRBY or ZADD GT");
        }
        Ok(())
    }

    pub(crate) fn no_rule(&self, word: &str) -> Result<(), String> {
        match self.schema.action() {
            Action::Insert => Ok(()),
            _ => Err(format!("{word} supports no conflict rule; declare no conflict rule")),
        }
    }

    /// Checks that the command supports the conflict rule. `overwrites` are the columns that determine what a
    /// row overwrites.
    pub(crate) fn check_rule(&self, word: &str, overwrites: &[usize], can_overwrite: bool) -> Result<(), String> {
        let key = self.schema.key_columns();
        if self.schema.action() == Action::Insert {
            return Ok(());
        }
        let is_same = key.len() == overwrites.len() && key.iter().all(|column| overwrites.contains(column));
        if !is_same {
            let names = |columns: &[usize]| {
                let names: Vec<&str> = columns.iter().map(|column| self.schema.columns()[*column].name()).collect();
                names.join(", ")
            };
            return Err(format!(
                "its conflict key is ({}), but for {word} the columns ({}) decide what a row overwrites; make them the same",
                names(key),
                names(overwrites)
            ));
        }
        match self.schema.action() {
            Action::Ignore => Ok(()),
            Action::Replace | Action::Update if !can_overwrite => {
                Err(format!("{word} has nothing to overwrite; use Conflict::ignore or no conflict rule"))
            }
            Action::Replace | Action::Update
                if key.len() + self.schema.update_columns().len() == self.schema.columns().len() =>
            {
                Ok(())
            }
            Action::Update => Err(format!(
                "{word} cannot overwrite some columns of an existing row and set the others of a new one; use \
                 Conflict::replace, or a schema of the columns to overwrite"
            )),
            _ => Err(format!("{word} does not support this conflict rule")),
        }
    }
}

pub(crate) fn is_number(ty: ColumnType) -> bool {
    Kind::of(ty) != Kind::NoNumber
}

pub(crate) fn is_float(ty: ColumnType) -> bool {
    Kind::of(ty) == Kind::Float
}

/// The kind of a column that must be a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Decimal,
    Float,
    NoNumber,
}

impl Kind {
    fn of(ty: ColumnType) -> Self {
        match ty.exhaustive() {
            Type::I16 | Type::I32 | Type::I64 | Type::U64 => Self::Integer,
            Type::Decimal => Self::Decimal,
            Type::F32 | Type::F64 => Self::Float,
            Type::Bool
            | Type::Text
            | Type::Bytes
            | Type::Uuid
            | Type::Json
            | Type::Date
            | Type::Time
            | Type::Timestamp
            | Type::TimestampTz => Self::NoNumber,
        }
    }
}
