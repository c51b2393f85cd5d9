//! Owns the check of a conflict rule against the columns of its schema, and the rule with columns as numbers.
//! Must not know SQL text, rows or tables.

use crate::model::column::Column;
use crate::model::conflict::{Action, Conflict, Target};
use crate::model::expr::{Assignment, Kind, RawPart, Set, SetPart, parse_raw};
use crate::model::value::ColumnType;

/// A rule with columns as numbers.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) key: Box<[usize]>,
    /// The declared columns that an update changes.
    pub(crate) update: Box<[usize]>,
    pub(crate) assignments: Box<[Assignment]>,
    pub(crate) version: Option<usize>,
}

/// Checks a rule.
///
/// # Errors
/// What does not fit the columns, or the rule itself.
pub(crate) fn resolve(rule: &Conflict, columns: &[Column]) -> Result<Resolved, String> {
    let key = numbers(&rule.key, "key", columns)?;
    if rule.action != Action::Insert && key.is_empty() {
        return Err("the conflict rule names no key column; name the columns of a unique index".into());
    }
    if let Some(nullable) = key.iter().map(|i| &columns[*i]).find(|c| c.is_nullable()) {
        return Err(format!(
            "the key column {:?} is nullable; NULL keys never conflict, so declare it with .column()",
            nullable.name()
        ));
    }
    check_refinements(rule)?;
    if rule.action == Action::Delete && key.len() < columns.len() {
        let other = columns.iter().enumerate().find(|(index, _)| !key.contains(index)).map(|(_, c)| c.name());
        return Err(format!(
            "a delete has the key columns only, not {:?}; remove it, or use Schema::deletion",
            other.unwrap_or_default()
        ));
    }
    let mut update: Vec<usize> = match (rule.action, &rule.columns) {
        (Action::Insert | Action::Ignore | Action::Delete, _) => Vec::new(),
        (_, Some(names)) => {
            let update = numbers(names, "update", columns)?.into_vec();
            if let Some(both) = update.iter().find(|i| key.contains(i)) {
                let name = columns[*both].name();
                return Err(format!("the column {name:?} is both a key and an update column"));
            }
            update
        }
        (_, None) => (0..columns.len()).filter(|index| !key.contains(index)).collect(),
    };
    let mut assignments: Vec<Assignment> = update
        .iter()
        .map(|i| Assignment { name: columns[*i].name().into(), column: Some(*i), set: Set::Overwrite })
        .collect();
    for (name, expr) in &rule.expressions {
        let column = number(name, columns);
        if column.is_some_and(|column| key.contains(&column)) {
            return Err(format!("the expression is for the key column {name:?}; a key is never changed"));
        }
        if column.is_none() && !expr.needs_no_column() {
            return Err(format!("the expression is for {name:?}, which is not a declared column"));
        }
        let set = set(name, &expr.0, column, columns)?;
        if let Some(column) = column.filter(|column| !update.contains(column)) {
            update.push(column);
        }
        match assignments.iter_mut().find(|assignment| *assignment.name == **name) {
            Some(assignment) => assignment.set = set,
            None => assignments.push(Assignment { name: name.as_str().into(), column, set }),
        }
    }
    if rule.action == Action::UpdateOnly && assignments.is_empty() {
        return Err(
            "the rule updates no column; declare a column that is not in the key, or name one with .set()".into()
        );
    }
    let version = rule.newer.as_ref().map(|name| version(name, columns, &assignments)).transpose()?;
    Ok(Resolved { key, update: update.into(), assignments: assignments.into(), version })
}

/// The rule for rows that carry only `present` of the columns.
///
/// # Errors
/// The rule needs a column that is not there.
pub(crate) fn projected(rule: &Conflict, all: &[Column], present: &[Column]) -> Result<Conflict, String> {
    let is_left_out = |name: &str| number(name, all).is_some() && number(name, present).is_none();
    if let Some(version) = rule.newer.as_ref().filter(|name| is_left_out(name)) {
        return Err(format!("the row leaves out {version:?}, the version that decides which row is newer; set it"));
    }
    let mut rule = rule.clone();
    if let Some(columns) = &mut rule.columns {
        columns.retain(|name| !is_left_out(name));
    }
    rule.expressions.retain(|(name, expr)| !is_left_out(name) || expr.needs_no_column());
    Ok(rule)
}

/// Whether two values of this type are ordered in the same way here and in every database that stores them.
pub(crate) const fn is_ordered(ty: ColumnType) -> bool {
    match ty {
        ColumnType::I16 | ColumnType::I32 | ColumnType::I64 | ColumnType::U64 => true,
        ColumnType::F32 | ColumnType::F64 | ColumnType::Decimal => true,
        ColumnType::Date | ColumnType::Time | ColumnType::Timestamp | ColumnType::TimestampTz => true,
        // Text has collations; databases order the others differently, or not at all.
        ColumnType::Bool | ColumnType::Text | ColumnType::Bytes | ColumnType::Uuid | ColumnType::Json => false,
    }
}

pub(crate) const fn is_number(ty: ColumnType) -> bool {
    use ColumnType::{Decimal, F32, F64, I16, I32, I64, U64};
    matches!(ty, I16 | I32 | I64 | U64 | F32 | F64 | Decimal)
}

/// A refinement that the action has no use for would be a mistake without an error.
fn check_refinements(rule: &Conflict) -> Result<(), String> {
    let changes = matches!(rule.action, Action::Update | Action::UpdateOnly);
    if !changes && !rule.expressions.is_empty() {
        return Err("expressions are for Conflict::update, update_columns and update_only".into());
    }
    if !changes && rule.newer.is_some() {
        return Err("only_if_newer is for Conflict::update, update_columns and update_only".into());
    }
    if rule.newer.is_some() && rule.expressions.iter().any(|(_, expr)| !expr.is_repeatable()) {
        return Err(
            "only_if_newer and an added or raw value exclude each other: a row that loses would not be added".into()
        );
    }
    match &rule.target {
        Target::Key => Ok(()),
        _ if !matches!(rule.action, Action::Ignore | Action::Replace | Action::Update) => {
            Err("a constraint or a partial index is for rules that insert: Conflict::ignore, replace and update".into())
        }
        Target::Constraint(name) if name.is_empty() || name.contains('\0') => {
            Err("the name of the constraint is empty or contains a NUL character".into())
        }
        Target::Constraint(_) => Ok(()),
        Target::Partial(condition) => match parse_raw(condition) {
            Ok(parts) if parts.iter().all(|part| matches!(part, RawPart::Sql(_))) => Ok(()),
            Ok(_) => {
                Err("the condition of the partial index refers to columns by name, without {old} and {new}".into())
            }
            Err(why) => Err(format!("the condition of the partial index {why}")),
        },
    }
}

fn numbers(names: &[String], role: &str, columns: &[Column]) -> Result<Box<[usize]>, String> {
    let mut numbers = Vec::with_capacity(names.len());
    for name in names {
        let number =
            number(name, columns).ok_or_else(|| format!("the {role} column {name:?} is not a declared column"))?;
        if numbers.contains(&number) {
            return Err(format!("the {role} column {name:?} is named twice"));
        }
        numbers.push(number);
    }
    Ok(numbers.into())
}

fn number(name: &str, columns: &[Column]) -> Option<usize> {
    columns.iter().position(|column| column.name() == name)
}

fn set(name: &str, kind: &Kind, column: Option<usize>, columns: &[Column]) -> Result<Set, String> {
    let ty = column.map(|column| columns[column].column_type());
    let refuse =
        |what: &str| Err(format!("column {name:?} cannot be {what}: {}", ty.map_or("no column", ColumnType::name)));
    Ok(match kind {
        Kind::Overwrite => Set::Overwrite,
        Kind::Keep => Set::Keep,
        Kind::UnlessNull => Set::UnlessNull,
        Kind::Now => Set::Now,
        Kind::Add if !ty.is_some_and(is_number) => return refuse("added up, because it is not a number"),
        Kind::Add => Set::Add,
        Kind::Greatest | Kind::Least if !ty.is_some_and(is_ordered) => {
            return refuse("compared, because databases order such values differently");
        }
        Kind::Greatest => Set::Greatest,
        Kind::Least => Set::Least,
        Kind::Raw(sql) => {
            let parts = parse_raw(sql).map_err(|why| format!("the raw expression of column {name:?} {why}"))?;
            let part = |part| match part {
                RawPart::Sql(sql) => Ok(SetPart::Sql(sql)),
                RawPart::Old(old) => Ok(SetPart::Old(old.unwrap_or_else(|| name.into()))),
                RawPart::New(new) => {
                    let new = new.unwrap_or_else(|| name.into());
                    let column = number(&new, columns);
                    let missing = || {
                        format!(
                            "the raw expression of column {name:?} needs the submitted value of {new:?}, which the row does not carry"
                        )
                    };
                    column.map(SetPart::New).ok_or_else(missing)
                }
            };
            Set::Raw(parts.into_iter().map(part).collect::<Result<_, _>>()?)
        }
    })
}

fn version(name: &str, columns: &[Column], assignments: &[Assignment]) -> Result<usize, String> {
    let version =
        number(name, columns).ok_or_else(|| format!("the version column {name:?} is not a declared column"))?;
    if !is_ordered(columns[version].column_type()) {
        return Err(format!(
            "the version column {name:?} holds {}, which databases order differently; use a number, a date or a time",
            columns[version].column_type().name()
        ));
    }
    match assignments.iter().find(|assignment| assignment.column == Some(version)) {
        Some(Assignment { set: Set::Overwrite, .. }) => Ok(version),
        Some(_) => {
            Err(format!("the version column {name:?} is overwritten with the newer version; it has no expression"))
        }
        None => Err(format!("the version column {name:?} must be one of the updated columns, and not a key column")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::expr::Expr;
    use crate::model::schema::Schema;

    fn build(rule: Conflict) -> Result<Schema, String> {
        let schema = Schema::builder("t").column("id", ColumnType::I64).column("v", ColumnType::TimestampTz);
        let schema = schema.nullable("n", ColumnType::I64).nullable("note", ColumnType::Text);
        schema.on_conflict(rule).build().map_err(|error| error.to_string())
    }

    fn update() -> Conflict {
        Conflict::update(["id"])
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_with_the_reason() {
        let check = |rule, part: &str| {
            let error = build(rule).unwrap_err();
            assert!(error.contains(part), "{error:?} does not contain {part:?}");
        };
        check(Conflict::ignore(["id"]).only_if_newer("v"), "only_if_newer is for");
        check(Conflict::none().set("n", Expr::add()), "expressions are for");
        check(update().only_if_newer("x"), "not a declared column");
        check(update().only_if_newer("note"), "order differently");
        check(update().only_if_newer("id"), "not a key column");
        check(Conflict::update_columns(["id"], ["n"]).only_if_newer("v"), "one of the updated columns");
        check(update().only_if_newer("v").set("v", Expr::greatest()), "has no expression");
        check(update().only_if_newer("v").set("n", Expr::add()), "exclude each other");
        check(update().set("id", Expr::keep()), "key column");
        check(update().set("x", Expr::add()), "not a declared column");
        check(update().set("note", Expr::add()), "not a number");
        check(update().set("note", Expr::greatest()), "order such values differently");
        check(update().set("n", Expr::raw("{new.x}")), "does not carry");
        check(update().set("x", Expr::raw("{new}")), "does not carry");
        check(update().set("n", Expr::raw("1; 2")), "one expression");
        check(Conflict::delete(["id"]), "key columns only");
        check(Conflict::none().on_constraint("k"), "rules that insert");
        check(update().on_constraint(""), "is empty");
        check(update().on_partial_index("a) OR (b"), "not balanced");
        check(update().on_partial_index("{new} > 1"), "without {old}");
        let key = Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::update_only(["id"]));
        assert!(key.build().unwrap_err().to_string().contains("updates no column"));
    }

    #[test]
    fn expressions_replace_or_join_the_columns_that_are_overwritten() {
        let schema =
            build(Conflict::update_columns(["id"], ["v"]).set("n", Expr::add()).set("t", Expr::now())).unwrap();
        let sets: Vec<_> = schema.assignments().iter().map(|a| (&*a.name, a.column, a.set.clone())).collect();
        assert_eq!(sets, [("v", Some(1), Set::Overwrite), ("n", Some(2), Set::Add), ("t", None, Set::Now)]);
        assert_eq!(schema.update_columns(), [1, 2]);
        assert!(!schema.is_repeatable() && schema.counts_repeats());
        let twice = build(update().set("n", Expr::add()).may_add_twice()).unwrap();
        assert!(twice.is_repeatable() && !twice.counts_repeats());
        for partial in [Conflict::ignore(["id"]), update().may_add_twice(), update().only_if_newer("v")] {
            let partial = build(partial.on_partial_index("n > 0")).unwrap();
            assert!(!partial.is_repeatable() && !partial.counts_repeats());
        }
        assert!(build(update().on_constraint("k")).unwrap().is_repeatable());
        let harmless = build(update().set("n", Expr::greatest()).set("v", Expr::now()).only_if_newer("v"));
        assert!(harmless.is_err());
        let harmless = build(update().set("n", Expr::greatest()).set("note", Expr::keep()).only_if_newer("v")).unwrap();
        assert!(harmless.is_repeatable() && harmless.may_ignore() && !harmless.only_overwrites());
    }

    #[test]
    fn rows_that_leave_columns_out_keep_the_rest_of_the_rule() {
        let schema = build(update().set("n", Expr::add()).set("t", Expr::now())).unwrap();
        let row = schema.row().set("id", 1_i64).unwrap().set("v", crate::TimestampTz::MIN).unwrap().finish().unwrap();
        let names: Vec<_> = crate::row::traits::Row::schema(&row).assignments().iter().map(|a| &*a.name).collect();
        assert_eq!(names, ["v", "t"]);
        let raw = build(update().set("n", Expr::raw("{old} + {new}"))).unwrap();
        let row = raw.row().set("id", 1_i64).unwrap().set("v", crate::TimestampTz::MIN).unwrap().finish();
        assert!(row.unwrap_err().to_string().contains("does not carry"));
        let nullable = Schema::builder("t").column("id", ColumnType::I64).nullable("v", ColumnType::I64);
        let nullable =
            nullable.nullable("x", ColumnType::I64).on_conflict(update().only_if_newer("v")).build().unwrap();
        let row = nullable.row().set("id", 1_i64).unwrap().set("x", 1_i64).unwrap().finish();
        assert!(row.unwrap_err().to_string().contains("leaves out \"v\""));
    }
}
