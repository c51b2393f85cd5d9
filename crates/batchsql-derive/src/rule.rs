//! Owns the conflict rule of a row as its attributes give it, and which combinations are valid.
//! Must not know the code that is generated.

use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitStr, Result, Token, parenthesized};

use crate::expression::Expression;
use crate::field::{Field, FieldKind};
use crate::meta::set;

/// What happens to a row whose key is already there.
pub(crate) struct Rule {
    pub(crate) action: Action,
    pub(crate) key: Vec<LitStr>,
    pub(crate) update: Option<Vec<LitStr>>,
    pub(crate) newer: Option<LitStr>,
    pub(crate) constraint: Option<LitStr>,
    pub(crate) partial_index: Option<LitStr>,
    pub(crate) may_add_twice: bool,
    /// Columns that are no field and get the time of the database.
    pub(crate) now: Vec<LitStr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    None,
    Ignore,
    Replace,
    Update,
    UpdateOnly,
    Delete,
}

/// The attributes of the rule while they are parsed.
#[derive(Default)]
pub(crate) struct RuleParser {
    on_conflict: Option<LitStr>,
    key: Option<Vec<LitStr>>,
    update: Option<Vec<LitStr>>,
    newer: Option<LitStr>,
    constraint: Option<LitStr>,
    partial_index: Option<LitStr>,
    may_add_twice: Option<Ident>,
    now: Option<Vec<LitStr>>,
}

impl RuleParser {
    /// Whether the attribute is one of these.
    pub(crate) fn parse(&mut self, meta: &ParseNestedMeta<'_>) -> Result<bool> {
        let text = |slot: &mut Option<LitStr>| set(slot, meta.value()?.parse()?, meta);
        let Some(name) = meta.path.get_ident() else { return Ok(false) };
        match name.to_string().as_str() {
            "on_conflict" => text(&mut self.on_conflict)?,
            "key" => set(&mut self.key, names(meta)?, meta)?,
            "update" => set(&mut self.update, names(meta)?, meta)?,
            "only_if_newer" => text(&mut self.newer)?,
            "on_constraint" => text(&mut self.constraint)?,
            "on_partial_index" => text(&mut self.partial_index)?,
            "may_add_twice" => set(&mut self.may_add_twice, name.clone(), meta)?,
            "now" => set(&mut self.now, names(meta)?, meta)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The rule for these fields. Columns of flattened fields are not known here: the schema checks them.
    pub(crate) fn finish(self, row: &Ident, fields: &[Field<'_>]) -> Result<Rule> {
        let may_add_twice = self.may_add_twice;
        let rule = Rule {
            action: action(self.on_conflict.as_ref())?,
            key: self.key.unwrap_or_default(),
            update: self.update,
            newer: self.newer,
            constraint: self.constraint,
            partial_index: self.partial_index,
            may_add_twice: may_add_twice.is_some(),
            now: self.now.unwrap_or_default(),
        };
        match (rule.action, rule.key.first()) {
            (Action::None, Some(key)) => {
                let message =
                    "a key needs on_conflict = \"ignore\", \"replace\", \"update\", \"update_only\" or \"delete\"";
                return Err(Error::new(key.span(), message));
            }
            (Action::None, None) | (_, Some(_)) => {}
            (_, None) => {
                let span = self.on_conflict.map_or_else(|| row.span(), |rule| rule.span());
                return Err(Error::new(span, "a conflict rule needs the key: add key = \"column\""));
            }
        }
        rule.check_action(fields)?;
        rule.check_columns(fields)?;
        rule.check_key(fields)?;
        rule.check_newer(fields)?;
        rule.check_now(fields)?;
        let adds = |field: &Field<'_>| field.expression.as_ref().is_some_and(|(_, expr)| !expr.is_repeatable());
        match may_add_twice {
            Some(flag) if !has_flattened(fields) && !fields.iter().any(adds) => {
                Err(Error::new(flag.span(), "may_add_twice is for rows with add or raw fields; there are none"))
            }
            _ => rule.check_update_only(row, fields).map(|()| rule),
        }
    }
}

impl Rule {
    fn updates(&self) -> bool {
        matches!(self.action, Action::Update | Action::UpdateOnly)
    }

    /// Attributes that the action has no use for.
    fn check_action(&self, fields: &[Field<'_>]) -> Result<()> {
        if let (Some(first), true) = (self.update.iter().flatten().next(), self.action != Action::Update) {
            return Err(Error::new(first.span(), "update columns need on_conflict = \"update\""));
        }
        let expression = fields.iter().find_map(|field| field.expression.as_ref()).map(|(name, _)| name.span());
        let of_updates = [
            (self.newer.as_ref().map(LitStr::span), "only_if_newer needs"),
            (self.now.first().map(LitStr::span), "now needs"),
            (expression, "this says what an update does with the column; it needs"),
        ];
        for (span, needs) in of_updates {
            if let (Some(span), false) = (span, self.updates()) {
                let message = format!("{needs} on_conflict = \"update\" or \"update_only\"");
                return Err(Error::new(span, message));
            }
        }
        let target = self.constraint.as_ref().or(self.partial_index.as_ref());
        match target {
            Some(target) if matches!(self.action, Action::None | Action::UpdateOnly | Action::Delete) => {
                let message =
                    "the index is named for rules that insert: on_conflict = \"ignore\", \"replace\" or \"update\"";
                Err(Error::new(target.span(), message))
            }
            Some(target) if self.constraint.is_some() && self.partial_index.is_some() => Err(Error::new(
                target.span(),
                "on_constraint and on_partial_index are two ways to name the index; keep one",
            )),
            _ => Ok(()),
        }
    }

    /// The columns that the rule names are columns, and named once.
    fn check_columns(&self, fields: &[Field<'_>]) -> Result<()> {
        let update: Vec<&LitStr> = self.update.iter().flatten().collect();
        for name in self.key.iter().chain(update.iter().copied()).chain(&self.newer) {
            if column(fields, name).is_none() && !has_flattened(fields) {
                let known: Vec<String> = fields.iter().filter_map(Field::column_name).collect();
                let message = format!("no such column; the columns are {}", known.join(", "));
                return Err(Error::new(name.span(), message));
            }
        }
        let lists = [self.key.iter().collect(), update.clone(), self.now.iter().collect()];
        for list in lists {
            for (index, name) in list.iter().enumerate() {
                if list[..index].iter().any(|earlier| earlier.value() == name.value()) {
                    return Err(Error::new(name.span(), "this column is named twice"));
                }
            }
        }
        match update.into_iter().find(|name| self.is_key(name)) {
            Some(both) => Err(Error::new(both.span(), "both a key and an update column")),
            None => Ok(()),
        }
    }

    /// A key is always written, and never changed; a delete has nothing else.
    fn check_key(&self, fields: &[Field<'_>]) -> Result<()> {
        let is_other = |field: &&Field<'_>| field.name().is_some_and(|name| !self.is_key(name));
        if let (Action::Delete, Some(other)) = (self.action, fields.iter().find(is_other)) {
            let message = "a delete has the key columns only: remove this field, or use Delete::of(&row) with a row of another type";
            return Err(Error::new_spanned(other.ident, message));
        }
        for field in self.key.iter().filter_map(|key| column(fields, key)) {
            let error = |message| Err(Error::new_spanned(field.ty, message));
            if field.absent.is_some() {
                return error("a key column cannot be left out: remove default or skip_none");
            }
            if !matches!(field.kind, FieldKind::With(..)) && field.option().is_some() {
                return error("a key column cannot be an Option: NULL keys never conflict");
            }
            if let Some((name, _)) = &field.expression {
                return Err(Error::new(name.span(), "this is a key column, which an update never changes"));
            }
        }
        Ok(())
    }

    /// The version is overwritten, always written, and its row is not added up.
    fn check_newer(&self, fields: &[Field<'_>]) -> Result<()> {
        let Some(newer) = &self.newer else { return Ok(()) };
        let error = |message| Err(Error::new(newer.span(), message));
        if self.is_key(newer) {
            return error("the version cannot be a key column: rows of one key have one version then");
        }
        let updated = |names: &Vec<LitStr>| names.iter().any(|name| name.value() == newer.value());
        if !self.update.as_ref().is_none_or(updated) {
            return error("the version must be one of the update columns");
        }
        if let Some(version) = column(fields, newer) {
            if version.absent.is_some() {
                return error("the version cannot be left out: remove default or skip_none from its field");
            }
            if let Some((name, _)) = &version.expression {
                let message = "this is the version of only_if_newer, which is overwritten with the newer one";
                return Err(Error::new(name.span(), message));
            }
        }
        let adding = fields.iter().filter_map(|field| field.expression.as_ref());
        match adding.into_iter().find(|(_, expression)| !expression.is_repeatable()) {
            Some((name, _)) => Err(Error::new(
                name.span(),
                "only_if_newer and an added or raw value exclude each other: a row that loses would not be added",
            )),
            None => Ok(()),
        }
    }

    fn check_now(&self, fields: &[Field<'_>]) -> Result<()> {
        match self.now.iter().find(|name| column(fields, name).is_some()) {
            Some(name) => Err(Error::new(name.span(), "this column is a field: put #[row(now)] on the field")),
            None => Ok(()),
        }
    }

    /// An update without insert changes something, whatever a row leaves out.
    fn check_update_only(&self, row: &Ident, fields: &[Field<'_>]) -> Result<()> {
        let changes = |field: &Field<'_>| match (field.name(), &field.expression) {
            (None, _) | (_, Some((_, Expression::Now))) => true,
            (Some(name), _) => field.absent.is_none() && !self.is_key(name),
        };
        if self.action == Action::UpdateOnly && self.now.is_empty() && !fields.iter().any(changes) {
            let message =
                "update_only needs a column that is not in the key and is always written, or now = \"column\"";
            return Err(Error::new(row.span(), message));
        }
        Ok(())
    }

    fn is_key(&self, name: &LitStr) -> bool {
        self.key.iter().any(|key| key.value() == name.value())
    }
}

fn action(on_conflict: Option<&LitStr>) -> Result<Action> {
    let Some(name) = on_conflict else { return Ok(Action::None) };
    Ok(match name.value().as_str() {
        "none" => Action::None,
        "ignore" => Action::Ignore,
        "replace" => Action::Replace,
        "update" => Action::Update,
        "update_only" => Action::UpdateOnly,
        "delete" => Action::Delete,
        _ => return Err(Error::new(name.span(), "expected none, ignore, replace, update, update_only or delete")),
    })
}

fn column<'f, 'a>(fields: &'f [Field<'a>], name: &LitStr) -> Option<&'f Field<'a>> {
    fields.iter().find(|field| field.column_name() == Some(name.value()))
}

fn has_flattened(fields: &[Field<'_>]) -> bool {
    fields.iter().any(|field| matches!(field.kind, FieldKind::Flatten))
}

/// `name = "a"` or `name("a", "b")`.
fn names(meta: &ParseNestedMeta<'_>) -> Result<Vec<LitStr>> {
    if meta.input.peek(Token![=]) {
        return Ok(vec![meta.value()?.parse()?]);
    }
    let content;
    parenthesized!(content in meta.input);
    Ok(Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}
