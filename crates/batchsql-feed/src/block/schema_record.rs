//! Owns the schema record: the table, columns and conflict rule of stored rows as bytes, and what is read from them.
//! Must not know which schemas the program has.

use batchsql_core::exhaustive::ExprKind;
use batchsql_core::{Action, ColumnType, Conflict, Expr, Schema, SchemaError, TableName, Target};

use crate::block::bytes::{Input, Unreadable, put_list, put_optional, put_text};
use crate::block::types;

/// The version of schema records.
const VERSION: u8 = 1;

/// A schema as it is in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedSchema {
    /// The table.
    pub table: TableName,
    /// The columns, in the order of the block.
    pub columns: Vec<LoggedColumn>,
    /// The conflict rule.
    pub rule: LoggedRule,
    /// Whether values of identity columns are written.
    pub overrides_identity: bool,
}

/// A column as it is in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedColumn {
    /// The name.
    pub name: String,
    /// The type.
    pub ty: ColumnType,
    /// Whether values may be missing.
    pub is_nullable: bool,
}

/// A conflict rule as it is in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedRule {
    /// What is done with a row.
    pub action: Action,
    /// The columns of the key.
    pub key: Vec<String>,
    columns: Option<Vec<String>>,
    expressions: Vec<(String, LoggedExpr)>,
    version: Option<String>,
    target: LoggedTarget,
    adds_twice: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LoggedExpr {
    Known(Expr),
    /// SQL text, which only the program may have.
    Raw,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LoggedTarget {
    Known(Target),
    /// SQL text, which only the program may have.
    Partial,
}

/// Why a stored schema is not enough to write its rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotWhole {
    #[error("its rule has SQL text, which is taken from the program only")]
    HasSql,
    #[error(transparent)]
    Invalid(#[from] SchemaError),
}

fn action_code(action: Action) -> u8 {
    match action {
        Action::Insert => 1,
        Action::Ignore => 2,
        Action::Replace => 3,
        Action::Update => 4,
        Action::UpdateOnly => 5,
        Action::Delete => 6,
    }
}

fn action_of(code: u8) -> Result<Action, Unreadable> {
    let all = [Action::Insert, Action::Ignore, Action::Replace, Action::Update, Action::UpdateOnly, Action::Delete];
    let known = all.into_iter().find(|action| action_code(*action) == code);
    known.ok_or(Unreadable::Damaged("a rule has an unknown action"))
}

/// The bytes of a schema. Equal schemas have equal bytes.
pub fn encode(schema: &Schema) -> Vec<u8> {
    let mut out = vec![VERSION];
    let rule = schema.conflict();
    put_optional(&mut out, schema.table().namespace(), put_text);
    put_text(&mut out, schema.table().name());
    put_list(&mut out, schema.columns().iter(), |out, column| {
        put_text(out, column.name());
        out.push(types::code(column.column_type()));
        out.push(u8::from(column.is_nullable()));
    });
    out.push(action_code(rule.action()));
    put_list(&mut out, rule.key().iter(), |out, name| put_text(out, name));
    put_optional(&mut out, rule.named_columns(), |out, columns| {
        put_list(out, columns.iter(), |out, name| put_text(out, name));
    });
    put_list(&mut out, rule.expressions(), |out, (column, expr)| {
        put_text(out, column);
        put_expr(out, expr);
    });
    put_optional(&mut out, rule.version(), put_text);
    match rule.target() {
        Target::Key => out.push(1),
        Target::Constraint(name) => {
            out.push(2);
            put_text(&mut out, name);
        }
        Target::Partial(condition) => {
            out.push(3);
            put_text(&mut out, condition);
        }
    }
    out.push(u8::from(rule.adds_twice()));
    out.push(u8::from(schema.overrides_identity()));
    out
}

fn put_expr(out: &mut Vec<u8>, expr: &Expr) {
    let code = match expr.exhaustive() {
        ExprKind::Overwrite => 1,
        ExprKind::Add => 2,
        ExprKind::Keep => 3,
        ExprKind::UnlessNull => 4,
        ExprKind::Greatest => 5,
        ExprKind::Least => 6,
        ExprKind::Now => 7,
        ExprKind::Raw(sql) => {
            out.push(8);
            return put_text(out, sql);
        }
    };
    out.push(code);
}

fn read_expr(input: &mut Input<'_>) -> Result<LoggedExpr, Unreadable> {
    let expr = match input.u8()? {
        1 => Expr::overwrite(),
        2 => Expr::add(),
        3 => Expr::keep(),
        4 => Expr::unless_null(),
        5 => Expr::greatest(),
        6 => Expr::least(),
        7 => Expr::now(),
        8 => {
            input.text()?;
            return Ok(LoggedExpr::Raw);
        }
        _ => return Err(Unreadable::Damaged("a rule has an unknown expression")),
    };
    Ok(LoggedExpr::Known(expr))
}

/// Reads the bytes of a schema.
///
/// # Errors
/// A newer version wrote them, or they make no sense.
pub fn decode(bytes: &[u8]) -> Result<LoggedSchema, Unreadable> {
    let mut input = Input::new(bytes);
    match input.u8()? {
        0 => return Err(Unreadable::Damaged("it has no version")),
        VERSION => {}
        newer => return Err(Unreadable::NewerVersion(newer)),
    }
    let owned = |input: &mut Input<'_>| input.text().map(str::to_owned);
    let namespace = input.optional(owned)?;
    let name = owned(&mut input)?;
    let columns = input.list(|input| {
        Ok(LoggedColumn { name: owned(input)?, ty: types::of_code(input.u8()?)?, is_nullable: input.flag()? })
    })?;
    let rule = LoggedRule {
        action: action_of(input.u8()?)?,
        key: input.list(owned)?,
        columns: input.optional(|input| input.list(owned))?,
        expressions: input.list(|input| Ok((owned(input)?, read_expr(input)?)))?,
        version: input.optional(owned)?,
        target: match input.u8()? {
            1 => LoggedTarget::Known(Target::Key),
            2 => LoggedTarget::Known(Target::Constraint(owned(&mut input)?)),
            3 => {
                input.text()?;
                LoggedTarget::Partial
            }
            _ => return Err(Unreadable::Damaged("a rule has an unknown target")),
        },
        adds_twice: input.flag()?,
    };
    let overrides_identity = input.flag()?;
    input.end()?;
    let table = match namespace {
        Some(namespace) => TableName::qualified(namespace, name),
        None => TableName::new(name),
    };
    Ok(LoggedSchema { table, columns, rule, overrides_identity })
}

impl LoggedSchema {
    /// The schema, if the record has all of it.
    ///
    /// # Errors
    /// The rule has SQL text: it comes from the program only, so that bytes on a disk are never run. Or the schema is not
    /// valid.
    pub(crate) fn to_schema(&self) -> Result<Schema, NotWhole> {
        let mut schema = Schema::builder(self.table.clone()).on_conflict(self.rule.to_conflict()?);
        for LoggedColumn { name, ty, is_nullable } in &self.columns {
            let name = name.as_str();
            schema = if *is_nullable { schema.nullable(name, *ty) } else { schema.column(name, *ty) };
        }
        if self.overrides_identity {
            schema = schema.overriding_system_value();
        }
        Ok(schema.build()?)
    }
}

impl LoggedRule {
    fn to_conflict(&self) -> Result<Conflict, NotWhole> {
        let key = &self.key;
        let mut rule = match (self.action, &self.columns) {
            (Action::Insert, _) => Conflict::none(),
            (Action::Ignore, _) => Conflict::ignore(key),
            (Action::Replace, _) => Conflict::replace(key),
            (Action::Update, None) => Conflict::update(key),
            (Action::Update, Some(columns)) => Conflict::update_columns(key, columns),
            (Action::UpdateOnly, _) => Conflict::update_only(key),
            (Action::Delete, _) => Conflict::delete(key),
        };
        for (column, expr) in &self.expressions {
            let LoggedExpr::Known(expr) = expr else { return Err(NotWhole::HasSql) };
            rule = rule.set(column, expr.clone());
        }
        if let Some(version) = &self.version {
            rule = rule.only_if_newer(version);
        }
        match &self.target {
            LoggedTarget::Partial => return Err(NotWhole::HasSql),
            LoggedTarget::Known(Target::Constraint(name)) => rule = rule.on_constraint(name),
            LoggedTarget::Known(_) => {}
        }
        Ok(if self.adds_twice { rule.may_add_twice() } else { rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_rule(rule: Conflict) -> Schema {
        Schema::builder(TableName::qualified("audit", "t"))
            .column("id", ColumnType::I64)
            .column("v", ColumnType::I64)
            .nullable("note", ColumnType::Text)
            .on_conflict(rule)
            .build()
            .unwrap()
    }

    #[test]
    fn rules_are_read_as_they_were_written() {
        for rule in [
            Conflict::none(),
            Conflict::ignore(["id"]),
            Conflict::replace(["v", "id"]),
            Conflict::update(["id"]).only_if_newer("v"),
            Conflict::update_columns(["id"], ["v"]).on_constraint("t_key"),
            Conflict::update(["id"]).set("v", Expr::add()).set("note", Expr::keep()).may_add_twice(),
            Conflict::update(["id"]).set("v", Expr::greatest()).set("note", Expr::unless_null()),
            Conflict::update(["id"]).set("v", Expr::least()).set("changed", Expr::now()),
            Conflict::update_only(["id"]).set("v", Expr::overwrite()),
        ] {
            let schema = with_rule(rule);
            assert_eq!(decode(&encode(&schema)).unwrap().to_schema(), Ok(schema));
        }
        let gone = with_rule(Conflict::ignore(["id"])).deletion().unwrap();
        assert_eq!(decode(&encode(&gone)).unwrap().to_schema(), Ok(gone));
        let identity = Schema::builder("t").column("id", ColumnType::I64).overriding_system_value().build().unwrap();
        assert_eq!(decode(&encode(&identity)).unwrap().to_schema(), Ok(identity));
    }

    /// What a file says is never run as SQL.
    #[test]
    fn sql_text_is_not_taken_from_the_source() {
        for rule in [
            Conflict::update(["id"]).set("v", Expr::raw("{old} + 1")).may_add_twice(),
            Conflict::update(["id"]).on_partial_index("v > 0"),
        ] {
            let schema = with_rule(rule);
            let logged = decode(&encode(&schema)).unwrap();
            assert_eq!(logged.to_schema(), Err(NotWhole::HasSql));
        }
        // It tells rules apart, though.
        let of = |sql| encode(&with_rule(Conflict::update(["id"]).set("v", Expr::raw(sql)).may_add_twice()));
        assert_ne!(of("{old} + 1"), of("{old} + 2"));
    }

    #[test]
    fn newer_versions_are_named() {
        let mut bytes = encode(&with_rule(Conflict::none()));
        bytes[0] = 2;
        assert_eq!(decode(&bytes), Err(Unreadable::NewerVersion(2)));
    }
}
